// The program: sub-commands and wiring. The only place that names everything.

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <CLI/CLI.hpp>

#include "base/text.h"
#include "bench/bench.h"
#include "cli/cli.h"
#include "cli/journal.h"
#include "cli/message.h"
#include "cli/ownership.h"
#include "env/real/certificates.h"
#include "events/packed.h"
#include "server/config.h"
#include "server/driver.h"
#include "sim/command.h"

namespace {

using lockstep::server::Config;

struct ServeOptions {
  std::string config;
  std::string data_dir;
  std::string models_dir;
  int port = -1;
  int workers = -1;
};

void add_serve(CLI::App& app, ServeOptions& options) {
  CLI::App* serve = app.add_subcommand("serve", "run the orchestrator and its workers until Ctrl-C or SIGTERM");
  serve->add_option("--config", options.config, "configuration file (default: lockstep.toml where it exists)");
  serve->add_option("--data-dir", options.data_dir, "where journal, outputs and logs are kept");
  serve->add_option("--models-dir", options.models_dir, "folder with one sub-folder per model");
  serve->add_option("--port", options.port, "HTTP port, 0 for any free one")->check(CLI::Range(0, 65535));
  serve->add_option("--workers", options.workers, "only the first N configured workers; 0 runs none")
      ->check(CLI::Range(0, 64));
}

int run_serve(const ServeOptions& options) {
  std::string path = options.config;
  if (path.empty() && std::filesystem::exists("lockstep.toml")) path = "lockstep.toml";
  auto config =
      path.empty() ? lockstep::Result<Config>(lockstep::server::default_config()) : lockstep::server::read_config(path);
  if (!config) {
    std::cerr << "lockstep: " << config.error().message << "\n";
    return 2;
  }
  if (!options.data_dir.empty()) config->data_dir = options.data_dir;
  if (!options.models_dir.empty()) config->models_dir = options.models_dir;
  if (options.port >= 0) config->http.port = static_cast<std::uint16_t>(options.port);
  if (options.workers >= 0 && static_cast<std::size_t>(options.workers) < config->core.workers.size()) {
    config->core.workers.resize(static_cast<std::size_t>(options.workers));
  }
  config->core.schema_digest = lockstep::packed::schema_digest();  // two milliseconds that only a server needs
  spdlog::set_default_logger(spdlog::stderr_color_mt("lockstep"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  spdlog::set_level(spdlog::level::from_str(config->log_level));
  lockstep::server::Driver driver(*std::move(config));
  const lockstep::server::Ended ended = driver.run();
  if (!ended.message.empty()) {
    if (ended.status == 1) {
      std::cerr << "lockstep: " << ended.message << "\n";
    } else {
      spdlog::info("{}", ended.message);
    }
  }
  spdlog::shutdown();
  return ended.status;
}

/// `lockstep models make-tiny DIR` runs the project's own Python, which has the real classes.
int run_make_tiny(const std::string& folder, bool force) {
  const Config config = lockstep::server::default_config();
  std::vector<std::string> command{config.worker_command.front(), "-m", "lockstep.diffusers.make_tiny", folder};
  if (force) command.emplace_back("--force");
  for (const std::string& variable : config.worker_environment) ::putenv(::strdup(variable.c_str()));
  std::vector<char*> argv;
  for (std::string& each : command) argv.push_back(each.data());
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  std::cerr << "lockstep: cannot run " << command.front() << ": " << std::strerror(errno)
            << "; tools/setup.sh installs the project's Python\n";
  return 1;
}

int run_make_certificates(const lockstep::real::CertificateOrder& order) {
  const auto written = lockstep::real::make_certificates(order);
  if (!written) {
    std::cerr << "lockstep: " << written.error().message << "\n";
    return written.error().code == lockstep::ErrorCode::invalid_argument ? 2 : 1;
  }
  for (const std::string& path : *written) std::cout << path << "\n";
  if (written->empty()) std::cout << "everything was there already\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  ::umask(0077);
  CLI::App app{"lockstep keeps the state of GPU image-generation workers consistent."};
  app.set_version_flag("--version", std::string("lockstep ") + LOCKSTEP_VERSION);
  app.require_subcommand(1);
  ServeOptions serve;
  add_serve(app, serve);
  lockstep::cli::Client client(app);
  lockstep::cli::Message message(app);
  lockstep::cli::Ownership ownership(app);
  lockstep::cli::Journal journal(app, lockstep::server::default_config().data_dir);
  lockstep::sim::Command sim(app);
  lockstep::bench::Command bench(app);
  std::string tiny_folder;
  bool tiny_force = false;
  CLI::App* models = app.get_subcommand("models");
  CLI::App* make_tiny =
      models->add_subcommand("make-tiny", "write small real models for a first run: SDXL, upscaler, safety");
  make_tiny->add_option("DIR", tiny_folder, "folder to write into")->required();
  make_tiny->add_flag("--force", tiny_force, "replace models that are there");
  CLI::App* certificates = app.add_subcommand("certificates", "certificates for workers of other machines");
  certificates->require_subcommand(1);
  CLI::App* make_certificates = certificates->add_subcommand(
      "make", "make what is missing: an authority, the server's certificate, the workers'");
  lockstep::real::CertificateOrder certificate_order;
  make_certificates->add_option("DIR", certificate_order.folder, "folder to write into")->required();
  make_certificates->add_option("--worker", certificate_order.workers, "a worker's name; may be repeated");
  make_certificates->add_option("--host", certificate_order.hosts,
                                "what workers dial the server by; may be repeated (default: localhost, 127.0.0.1)");
  make_certificates->add_option("--days", certificate_order.days, "how long they are valid (default: 365)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // --help and --version end here too, with 0
  }

  if (app.got_subcommand("serve")) return run_serve(serve);
  if (make_tiny->parsed()) return run_make_tiny(tiny_folder, tiny_force);
  if (make_certificates->parsed()) return run_make_certificates(certificate_order);
  if (const auto status = journal.run()) return *status;
  if (const auto status = sim.run()) return *status;
  if (const auto status = bench.run()) return *status;
  if (const auto status = message.run()) return *status;
  if (const auto status = ownership.run()) return *status;
  if (const auto status = client.run()) return *status;
  std::cerr << app.help();
  return 2;
}
