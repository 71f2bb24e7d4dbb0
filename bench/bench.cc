#include "bench/bench.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "base/units.h"
#include "bench/codec.h"
#include "bench/propagation.h"
#include "bench/report.h"
#include "bench/transactions.h"
#include "env/real/blob_store.h"
#include "events/json_read.h"
#include "http/client.h"
#include "operations/views.h"

namespace lockstep::bench {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

struct BareAnswer {
  double ms = 0;
  std::string sha256;
};
BOOST_DESCRIBE_STRUCT(BareAnswer, (), (ms, sha256))

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// A child program; its standard input and output are pipes when asked for. Ended at the latest by the destructor.
class Program {
 public:
  Program(std::vector<std::string> command, bool pipes, const std::string& log) {
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    if (pipes && (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0)) return;
    std::vector<char*> argv;
    for (std::string& each : command) argv.push_back(each.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      if (pipes) {
        ::dup2(in[0], 0);
        ::dup2(out[1], 1);
      } else {
        ::dup2(file, 1);
      }
      ::dup2(file, 2);
      ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
    if (pipes) {
      ::close(in[0]);
      ::close(out[1]);
      to_ = ::fdopen(in[1], "w");
      from_ = ::fdopen(out[0], "r");
    }
  }
  ~Program() {
    if (to_ != nullptr) std::fclose(to_);
    if (from_ != nullptr) std::fclose(from_);
    stop();
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void stop(int signal = SIGTERM) {
    if (pid_ <= 0) return;
    ::kill(pid_, signal);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  Result<std::string> ask(const std::string& line) {
    if (to_ == nullptr || std::fprintf(to_, "%s\n", line.c_str()) < 0 || std::fflush(to_) != 0) {
      return fail(ErrorCode::unavailable, "the program does not read");
    }
    char* text = nullptr;
    std::size_t size = 0;
    const ssize_t got = ::getline(&text, &size, from_);
    std::string answer(text == nullptr ? "" : text, got > 0 ? static_cast<std::size_t>(got) : 0);
    std::free(text);
    if (got <= 0) return fail(ErrorCode::unavailable, "the program ended");
    return answer;
  }

 private:
  pid_t pid_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

/// A server of our own in a folder of its own, on a port that it chose.
class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const std::string& root, const std::string& models, int workers) {
    std::string folder = cat(root, "/server-XXXXXX");  // its own data, its own log
    if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a temporary folder");
    return start_in(folder, models, workers, "server.log");
  }
  /// Where an earlier one may have been.
  static Result<std::unique_ptr<Server>> start_in(const std::string& folder, const std::string& models, int workers,
                                                  const std::string& log_name) {
    auto server = std::make_unique<Server>();
    const std::string self = fs::read_symlink("/proc/self/exe").string();
    const std::string log = cat(folder, "/", log_name);
    server->log_ = log;
    const auto begin = Clock::now();
    server->program_ = std::make_unique<Program>(
        std::vector<std::string>{self, "serve", "--data-dir", cat(folder, "/data"), "--models-dir", models, "--port",
                                 "0", "--workers", cat(workers)},
        false, log);
    // The port stands in the log as soon as the listener is open.
    while (ms_since(begin) < 30'000) {
      const auto text = real::read_file(log, 1 << 20);
      const std::size_t at = text ? text->find("listening on http://") : std::string::npos;
      if (at != std::string::npos && text->find('\n', at) != std::string::npos) {
        const std::string url = text->substr(at + 13, text->find('\n', at) - at - 13);
        server->address_ = LOCKSTEP_TRY(http::address_from_url(url));
        const auto live = http::request(server->address_, "GET", "/livez");
        if (live && live->status == 200) {
          server->start_ms_ = ms_since(begin);
          return server;
        }
      }
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    return fail(ErrorCode::deadline_exceeded, cat("the server did not start; its log is ", log));
  }
  const http::Address& address() const { return address_; }
  double start_ms() const { return start_ms_; }
  const std::string& log() const { return log_; }
  /// As the kernel would: nothing is said, nothing is finished.
  void kill() { program_->stop(SIGKILL); }

  Status wait_ready() const {
    const auto begin = Clock::now();
    while (ms_since(begin) < 120'000) {
      const auto view = status();
      const bool all = view && std::ranges::all_of(view->workers, [](const auto& w) { return w.state == "ready"; });
      if (all && view->ready) return {};
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return fail(ErrorCode::deadline_exceeded, "the workers were not ready in two minutes");
  }
  Result<StatusView> status() const {
    const auto response = LOCKSTEP_TRY(http::request(address_, "GET", "/api/v1/status"));
    return json::from_text<StatusView>(response.body);
  }

 private:
  std::unique_ptr<Program> program_;
  http::Address address_;
  std::string log_;
  double start_ms_ = 0;
};

struct Setup {
  std::string folder;
  std::string models;
  std::string python;
};

/// A folder for the run, with the tiny models in it.
Result<Setup> prepare() {
  std::string folder = (fs::temp_directory_path() / "lockstep-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a temporary folder");
  Setup setup{folder, cat(folder, "/models"), ""};
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  if (std::system(cat("'", self, "' models make-tiny '", setup.models, "' >/dev/null").c_str()) != 0) {
    return fail(ErrorCode::unavailable, "the tiny models could not be written");
  }
  return setup;
}

/// The folder that holds python/lockstep, upward from this program.
fs::path home_folder() {
  fs::path home = fs::read_symlink("/proc/self/exe").parent_path();
  while (!fs::exists(home / "python" / "lockstep") && home != home.root_path()) home = home.parent_path();
  return home;
}

/// One request through lockstep beside the same pipeline from a bare script, warm, A/B interleaved.
Status request_overhead(const Setup& setup, const std::string& size, int runs, Report& report) {
  const auto server = LOCKSTEP_TRY(Server::start(setup.folder, setup.models, 1));
  LOCKSTEP_TRY_STATUS(server->wait_ready());
  const fs::path home = home_folder();
  ::setenv("PYTHONPATH", (home / "python").c_str(), 1);
  Program bare({(home / ".venv/bin/python").string(), "-m", "lockstep.diffusers.bare", setup.models, "--serve"}, true,
               cat(setup.folder, "/bare.log"));
  const std::size_t by = size.find('x');
  std::vector<double> ours;
  std::vector<double> floor;
  for (int run = -2; run < runs; ++run) {  // two warm-up rounds
    const std::string tail = cat("\"steps\":8,\"guidance_scale\":5.0,\"seed\":", 100 + run);
    const std::string ask = cat("{\"prompt\":\"a lighthouse\",\"negative_prompt\":\"\",\"width\":", size.substr(0, by),
                                ",\"height\":", size.substr(by + 1), ",", tail, "}");
    const std::string answer = LOCKSTEP_TRY(bare.ask(ask));
    const BareAnswer bare_answer = LOCKSTEP_TRY(json::from_text<BareAnswer>(answer));
    const auto begin = Clock::now();
    const auto response = LOCKSTEP_TRY(http::request(
        server->address(), "POST", "/v1/images/generations",
        cat("{\"prompt\":\"a lighthouse\",\"size\":\"", size, "\",\"response_format\":\"url\",", tail, "}")));
    const double ms = ms_since(begin);
    if (response.status != 200) return fail(ErrorCode::internal, cat("the request failed: ", response.body));
    if (run < 0) continue;
    ours.push_back(ms);
    floor.push_back(bare_answer.ms);
  }
  Row row{.name = cat("request_overhead_", size), .unit = "ms"};
  const double base = percentile(floor, 0.5);
  row.value = percentile(ours, 0.5) - base;
  row.p50 = percentile(ours, 0.5);
  row.p99 = percentile(ours, 0.99);
  row.runs = ours.size();
  row.floor = base;
  row.target = std::max(20.0, base * 0.05);
  report.rows.push_back(row);
  return {};
}

/// SIGKILL of a worker until the orchestrator's stream says so: first that it is dying (nothing new goes there), then
/// that it is gone (proven by its process handle, everything it held freed, durable). The kernel needs its own time to
/// take a process apart; what another watcher of the same process handle sees in the same run is the floor.
Status death_noticed(const Setup& setup, int runs, Report& report) {
  const auto server = LOCKSTEP_TRY(Server::start(setup.folder, setup.models, 2));
  std::vector<double> noticed;
  std::vector<double> gone;
  std::vector<double> floor;
  const auto stream = LOCKSTEP_TRY(http::EventStream::open(server->address(), "/api/v1/events"));
  for (int run = 0; run < runs; ++run) {
    // Both up and idle, so that a restart's imports do not share the processor with the measurement.
    LOCKSTEP_TRY_STATUS(server->wait_ready());
    const WorkerView victim = LOCKSTEP_TRY(server->status()).workers.at(static_cast<std::size_t>(run) % 2);
    const int handle = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(victim.pid), 0));
    if (handle < 0) return fail(ErrorCode::unavailable, "this kernel gives no process handles");
    const auto begin = Clock::now();
    double exit_ms = 0;
    ::kill(static_cast<pid_t>(victim.pid), SIGKILL);
    std::thread watcher([&] {
      pollfd wait{handle, POLLIN, 0};
      ::poll(&wait, 1, 10'000);
      exit_ms = ms_since(begin);
    });
    const auto join = [&] {
      watcher.join();
      ::close(handle);
    };
    std::optional<double> first;
    for (;;) {
      const auto event = stream->next(10'000);
      if (!event || !*event) {
        join();
        return fail(ErrorCode::deadline_exceeded, "the death was not noticed in 10 s");
      }
      if ((*event)->data.find(victim.worker_id.str()) == std::string::npos) continue;
      const bool last = (*event)->type == "worker_gone";
      if (!first && (last || (*event)->type == "worker_dying")) first = ms_since(begin);
      if (last) break;
    }
    gone.push_back(ms_since(begin));
    noticed.push_back(*first);
    join();
    floor.push_back(exit_ms);
  }
  report.rows.push_back({.name = "death_noticed",
                         .unit = "ms",
                         .value = percentile(noticed, 0.99),
                         .p50 = percentile(noticed, 0.5),
                         .p99 = percentile(noticed, 0.99),
                         .runs = noticed.size(),
                         .target = 50});
  report.rows.push_back({.name = "death_proven",
                         .unit = "ms",
                         .value = percentile(gone, 0.99),
                         .p50 = percentile(gone, 0.5),
                         .p99 = percentile(gone, 0.99),
                         .runs = gone.size(),
                         .floor = percentile(floor, 0.99)});
  return {};
}

/// SIGKILL of the orchestrator while both workers hold the models, and its next start: from ready to the first image.
/// It counts only when the same processes are back and nothing was loaded again.
Status readoption(const Setup& setup, int runs, Report& report) {
  const std::string folder = cat(setup.folder, "/readoption");
  fs::create_directory(folder);
  const auto image = [](const Server& server, int seed, int n) -> Result<double> {
    const auto begin = Clock::now();
    const auto response = LOCKSTEP_TRY(
        http::request(server.address(), "POST", "/v1/images/generations",
                      cat("{\"prompt\":\"a lighthouse\",\"size\":\"64x64\",\"steps\":4,\"response_format\":\"url\",",
                          "\"n\":", n, ",\"seed\":", seed, "}")));
    if (response.status != 200) return fail(ErrorCode::internal, cat("the request failed: ", response.body));
    return ms_since(begin);
  };
  const auto processes = [](const StatusView& view) {
    std::vector<std::int64_t> pids;
    for (const WorkerView& worker : view.workers) pids.push_back(worker.pid);
    return pids;
  };
  auto server = LOCKSTEP_TRY(Server::start_in(folder, setup.models, 2, "server-0.log"));
  LOCKSTEP_TRY_STATUS(server->wait_ready());
  LOCKSTEP_TRY(image(*server, 1, 4));  // both hold what an image needs
  std::vector<double> samples;
  for (int run = 1; run <= runs; ++run) {
    const auto before = processes(LOCKSTEP_TRY(server->status()));
    server->kill();
    server = LOCKSTEP_TRY(Server::start_in(folder, setup.models, 2, cat("server-", run, ".log")));
    LOCKSTEP_TRY_STATUS(server->wait_ready());
    samples.push_back(LOCKSTEP_TRY(image(*server, run, 1)));
    if (processes(LOCKSTEP_TRY(server->status())) != before) {
      return fail(ErrorCode::internal, "a worker was started again instead of taken back");
    }
    const std::string log = LOCKSTEP_TRY(real::read_file(server->log(), 1 << 20));
    if (log.find("is loaded on") != std::string::npos) {
      return fail(ErrorCode::internal, "a model was loaded again after the restart");
    }
  }
  report.rows.push_back({.name = "readoption",
                         .unit = "ms",
                         .value = percentile(samples, 0.99),
                         .p50 = percentile(samples, 0.5),
                         .p99 = percentile(samples, 0.99),
                         .runs = samples.size(),
                         .target = 1000});
  return {};
}

struct Mapped {
  std::uint64_t resident = 0;
  std::uint64_t proportional = 0;  // of the pages that n processes have, 1/n
};

/// What a process has of a model's segments, from the kernel.
Mapped mapped_of(std::int64_t pid, const std::string& model) {
  std::ifstream smaps(cat("/proc/", pid, "/smaps"));
  const std::string name = cat("/memfd:lockstep:", model, "/");
  Mapped out;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    const bool heading = line.find(':') > line.find(' ');  // "from-to rights ... path", and not "Name:  value kB"
    if (heading) inside = line.find(name) != std::string::npos;
    if (!inside || heading) continue;
    if (line.starts_with("Rss:")) out.resident += std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
    if (line.starts_with("Pss:")) out.proportional += std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
  }
  return out;
}

/// A model of over 1 GiB, used by two workers, takes its size once.
Status cache_sharing(const Setup& setup, Report& report) {
  const std::string models = cat(setup.folder, "/large");
  const fs::path home = home_folder();
  ::setenv("PYTHONPATH", (home / "python").c_str(), 1);
  const std::string python = (home / ".venv/bin/python").string();
  const std::string make = cat("'", python, "' -m lockstep.diffusers.make_tiny '", models, "' --scale 16 >/dev/null");
  if (std::system(make.c_str()) != 0) return fail(ErrorCode::unavailable, "the large model could not be written");
  const auto server = LOCKSTEP_TRY(Server::start(setup.folder, models, 2));
  LOCKSTEP_TRY_STATUS(server->wait_ready());
  const auto response =
      LOCKSTEP_TRY(http::request(server->address(), "POST", "/v1/images/generations",
                                 R"({"prompt":"x","size":"64x64","steps":1,"response_format":"url","n":4,"seed":1})"));
  if (response.status != 200) return fail(ErrorCode::internal, cat("the request failed: ", response.body));
  const StatusView view = LOCKSTEP_TRY(server->status());
  const auto model =
      std::ranges::find(view.models, ModelId("tiny-sdxl"), [](const auto& each) { return each.model.model_id; });
  if (model == view.models.end() || model->model.bytes < 1_GiB || model->residencies.size() != 2) {
    return fail(ErrorCode::internal, "two workers should hold a model of 1 GiB and more");
  }
  const double bytes = static_cast<double>(model->model.bytes.value);
  double sum = 0;
  for (const WorkerView& worker : view.workers) {
    const Mapped mapped = mapped_of(worker.pid, "tiny-sdxl");
    if (static_cast<double>(mapped.resident) < 0.95 * bytes) {
      return fail(ErrorCode::internal, cat(worker.worker_id.str(), " has not used the whole model: ", mapped.resident));
    }
    sum += static_cast<double>(mapped.proportional);
  }
  report.rows.push_back(
      {.name = "cache_sharing", .unit = "x its size", .value = sum / bytes, .runs = 1, .floor = 1.0, .target = 1.05});
  return {};
}

/// Start of the process until /livez answers, without workers.
Status cold_start(const Setup& setup, int runs, Report& report) {
  std::vector<double> samples;
  for (int run = 0; run < runs; ++run) {
    const auto server = LOCKSTEP_TRY(Server::start(setup.folder, setup.models, 0));
    samples.push_back(server->start_ms());
  }
  report.rows.push_back({.name = "cold_start",
                         .unit = "ms",
                         .value = percentile(samples, 0.5),
                         .p50 = percentile(samples, 0.5),
                         .p99 = percentile(samples, 0.99),
                         .runs = samples.size(),
                         .floor = std::nullopt,
                         .target = 150});
  return {};
}

/// only: the one row to measure; empty for all of them
Result<Report> path(int runs, const std::string& only) {
  Report report{"path", this_machine(), {}};
  const Setup setup = LOCKSTEP_TRY(prepare());
  const auto wanted = [&](const std::string& name) {
    if (!only.empty() && only != name) return false;
    std::cerr << "measuring " << name << " ...\n";
    return true;
  };
  if (wanted("cold_start")) LOCKSTEP_TRY_STATUS(cold_start(setup, 11, report));
  if (wanted("request_overhead_64x64")) LOCKSTEP_TRY_STATUS(request_overhead(setup, "64x64", runs, report));
  if (wanted("request_overhead_256x256")) {
    LOCKSTEP_TRY_STATUS(request_overhead(setup, "256x256", std::max(5, runs / 2), report));
  }
  if (wanted("cache_sharing")) LOCKSTEP_TRY_STATUS(cache_sharing(setup, report));
  if (wanted("readoption")) LOCKSTEP_TRY_STATUS(readoption(setup, 10, report));
  if (wanted("death_noticed")) LOCKSTEP_TRY_STATUS(death_noticed(setup, 20, report));
  std::error_code ignored;
  fs::remove_all(setup.folder, ignored);
  return report;
}

}  // namespace

struct Command::State {
  CLI::App* app = nullptr;
  CLI::App* path = nullptr;
  CLI::App* codec = nullptr;
  CLI::App* propagation = nullptr;
  CLI::App* transactions = nullptr;
  int commits = TransactionsOptions{}.commits;
  int records = 1'000'000;
  int rows = 100'000;
  std::string folder;
  std::string peers;
  int samples = 20'000;
  int messages = 1'000'000;
  int runs = 20;
  int rounds = 200;
  std::string only;
  bool json = false;
};

Command::Command(CLI::App& app) : state_(std::make_unique<State>()) {
  state_->app = app.add_subcommand("bench", "measure ours beside its floor, in one run");
  state_->app->require_subcommand(1);
  state_->path =
      state_->app->add_subcommand("path", "one request against a bare script, a death noticed, a cold start");
  state_->path->add_option("--runs", state_->runs, "measured requests")->check(CLI::Range(3, 1000));
  state_->path->add_option("--only", state_->only, "one row instead of all")
      ->check(CLI::IsMember({"cold_start", "request_overhead_64x64", "request_overhead_256x256", "cache_sharing",
                             "readoption", "death_noticed"}));
  state_->path->add_flag("--json", state_->json, "print one object");
  state_->codec = state_->app->add_subcommand("codec", "one event read and written, by hand, and by Boost.JSON");
  state_->codec->add_option("--rounds", state_->rounds, "samples of 2000 calls each")->check(CLI::Range(3, 100'000));
  state_->codec->add_flag("--json", state_->json, "print one object");
  state_->propagation = state_->app->add_subcommand(
      "propagation", "an event from a worker through the orchestrator to another, volatile and durable");
  state_->propagation->add_option("--samples", state_->samples, "latencies in each row")
      ->check(CLI::Range(100, 1'000'000));
  state_->propagation->add_option("--messages", state_->messages, "deliveries in each throughput row")
      ->check(CLI::Range(10'000, 100'000'000));
  state_->propagation->add_option("--only", state_->only, "one row instead of all")
      ->check(CLI::IsMember(std::vector<std::string>(propagation_rows.begin(), propagation_rows.end())));
  state_->propagation->add_flag("--json", state_->json, "print one object");
  state_->transactions = state_->app->add_subcommand(
      "transactions", "durable transactions over three participants; a start that reads a long journal; a snapshot");
  state_->transactions->add_option("--commits", state_->commits, "transactions in each row of commits")
      ->capture_default_str()
      ->check(CLI::Range(1000, 10'000'000));
  state_->transactions->add_option("--records", state_->records, "of the journal that is recovered")
      ->check(CLI::Range(1000, 10'000'000));
  state_->transactions->add_option("--rows", state_->rows, "changed rows of the snapshot")
      ->check(CLI::Range(1000, 10'000'000));
  state_->transactions->add_option("--folder", state_->folder, "on the disk to measure (default: temporary files)")
      ->check(CLI::ExistingDirectory);
  state_->transactions
      ->add_option("--peers", state_->peers, "folder with the programs of peers (default: where they are installed)")
      ->check(CLI::ExistingDirectory);
  state_->transactions->add_option("--only", state_->only, "one row instead of all")
      ->check(CLI::IsMember(std::vector<std::string>(transactions_rows.begin(), transactions_rows.end())));
  state_->transactions->add_flag("--json", state_->json, "print one object");
}
Command::~Command() = default;

std::optional<int> Command::run() {
  if (!state_->app->parsed()) return std::nullopt;
  const Result<Report> report =
      state_->codec->parsed()         ? codec(state_->rounds)
      : state_->propagation->parsed() ? propagation(state_->samples, state_->messages, state_->only)
      : state_->transactions->parsed()
          ? transactions({state_->commits, state_->records, state_->rows, state_->only, state_->folder, state_->peers})
          : path(state_->runs, state_->only);
  if (!report) {
    std::cerr << "lockstep bench: " << report.error().message << "\n";
    return 1;
  }
  std::cout << text_of(*report, state_->json);
  return 0;
}

}  // namespace lockstep::bench
