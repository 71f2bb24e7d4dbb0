#include "cli/cli.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/content.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/generate.h"
#include "cli/govern.h"
#include "cli/models.h"
#include "cli/sessions.h"
#include "cli/show.h"
#include "cli/transactions.h"
#include "cli/workers.h"
#include "events/json_read.h"
#include "http/client.h"

namespace lockstep::cli {

namespace {

/// Ids go into a target; what is no plain name is no id.
Status check_id(const std::string& id) {
  if (is_plain_name(id)) return {};
  return fail(ErrorCode::not_found, cat("there is no request ", shortened(harmless(id))));
}

}  // namespace

ExitCode tell(const Error& error) {
  std::fputs(cat("lockstep: ", harmless(error.message), "\n").c_str(), stderr);
  return exit_code_of(error.code);
}

struct Client::State {
  // One for each sub-command: the environment fills those that were not chosen too, over what was written.
  std::map<const CLI::App*, std::string> urls;
  bool json = false;
  std::string id;
  std::string file;
  GenerateOptions generate;
  EventsOptions events_options;
  LogOptions log_options;
  ModelOptions model_options;

  CLI::App* status_command = nullptr;
  CLI::App* generate_command = nullptr;
  CLI::App* check_command = nullptr;
  CLI::App* models_list_command = nullptr;
  CLI::App* models_show_command = nullptr;
  CLI::App* models_add_command = nullptr;
  CLI::App* models_remove_command = nullptr;
  CLI::App* models_verify_command = nullptr;
  CLI::App* models_load_command = nullptr;
  CLI::App* models_unload_command = nullptr;
  CLI::App* models_queue_command = nullptr;
  CLI::App* models_config_command = nullptr;
  CLI::App* requests_command = nullptr;
  CLI::App* cancel_command = nullptr;
  CLI::App* events_command = nullptr;
  CLI::App* workers_list_command = nullptr;
  CLI::App* workers_show_command = nullptr;
  CLI::App* workers_restart_command = nullptr;
  CLI::App* workers_logs_command = nullptr;
  std::vector<std::string> assignments;  // KEY=VALUE
  bool whole = false;
  CLI::App* devices_list_command = nullptr;
  CLI::App* devices_show_command = nullptr;
  CLI::App* devices_set_command = nullptr;
  CLI::App* devices_calibrate_command = nullptr;
  CLI::App* routing_show_command = nullptr;
  CLI::App* routing_set_command = nullptr;
  CLI::App* memory_show_command = nullptr;
  CLI::App* memory_history_command = nullptr;
  CLI::App* propagation_command = nullptr;
  CLI::App* policy_show_command = nullptr;
  CLI::App* policy_set_command = nullptr;
  SessionOptions session_options;
  std::map<std::string, CLI::App*> sessions_commands;  // by their word
  CLI::App* tx_list_command = nullptr;
  CLI::App* tx_show_command = nullptr;
  CLI::App* tx_resolve_command = nullptr;
  bool tx_open = false;
  bool tx_commit = false;
  bool tx_abort = false;
  bool tx_retry = false;
  bool tx_accept = false;
  std::string tx_reason;
  OutputOptions output_options;
  std::vector<std::string> parameters;
  std::map<std::string, CLI::App*> content_commands;  // by their words, as "workflows run"

  CLI::App* add(CLI::App& parent, const std::string& name, const std::string& about) {
    CLI::App* command = parent.add_subcommand(name, about);
    std::string& url = urls.emplace(command, "http://127.0.0.1:7420").first->second;
    command->add_option("--url", url, "the server")->envname("LOCKSTEP_URL")->capture_default_str();
    command->add_flag("--json", json, "print JSON for programs instead of text for people");
    return command;
  }
  void add_all(CLI::App& app);
  void add_models(CLI::App& models);
  std::optional<ExitCode> execute_models(const http::Address& address);
  void add_governed(CLI::App& app);
  std::optional<ExitCode> governed(const http::Address& address);
  void add_sessions(CLI::App& app);
  void add_transactions(CLI::App& app);
  std::optional<ExitCode> transactions(const http::Address& address);
  void add_content(CLI::App& app);
  ExitCode content(const http::Address& address, const std::string& words);
  ExitCode sessions(const http::Address& address, const std::string& word);
  ExitCode execute(const http::Address& address);
  template <class View>
  ExitCode show(const http::Address& address, const std::string& target);
  ExitCode check(const http::Address& address);
  ExitCode cancel(const http::Address& address);
};

void Client::State::add_all(CLI::App& app) {
  status_command = add(app, "status", "show workers, devices, models and the queue");

  generate_command = add(app, "generate", "make images from a prompt");
  GenerateBody& body = generate.body;
  generate_command->add_option("PROMPT", body.prompt, "what to show")->required();
  generate_command->add_option("-o,--output", generate.file,
                               "file to write; with -n, a number goes before its extension");
  generate_command->add_option("--seed", body.seed, "the same seed, prompt and size give the same image");
  generate_command->add_option("-n", body.n, "how many images; image i has the seed plus i");
  generate_command->add_option("--size", body.size, "WIDTHxHEIGHT before upscaling, each divisible by 8");
  generate_command->add_option("--steps", body.steps, "denoising steps");
  generate_command->add_option("--guidance-scale", body.guidance_scale, "how closely to follow the prompt");
  generate_command->add_option("--negative-prompt", body.negative_prompt, "what not to show");
  generate_command->add_option("--model", body.model, "which model (default: the server's first)");
  generate_command->add_option("--format", body.output_format,
                               "png, jpeg or webp (default: by the extension of the file, else png)");
  generate_command->add_option("--quality", body.output_quality,
                               "lossless (png, webp), high, medium or low (jpeg, webp)");
  generate_command->add_option(
      "--batch", body.batch_size,
      "how many of the images may be made at once (1); faster on a GPU, and not equal in every "
      "bit to an image that is made by itself");
  generate_command->add_option_function<std::string>(
      "--vram-limit", [this](const std::string& text) { generate.body.vram_limit = SizeText{text}; },
      "what that may take of a device's memory, its models included, as 12GB");
  generate_command->add_option_function<std::string>(
      "--timeout", [this](const std::string& text) { generate.body.timeout = DurationText{text}; },
      "how long one image may take on a worker, as 60s or 5min (600s)");
  generate_command
      ->add_option_function<std::string>(
          "--on-gate-failure",
          [this](const std::string& word) {
            processing::ErrorHandling handling{};
            if (!boost::describe::enum_from_string(word.c_str(), handling)) throw CLI::ValidationError(word);
            generate.body.error_handling = handling;
          },
          "what becomes of the other images when one is refused: keep_delivered (no further one is made), "
          "cascade_rollback (what was delivered goes too) or finish_others")
      ->check(CLI::IsMember({"keep_delivered", "cascade_rollback", "finish_others"}));
  generate_command->add_option("--session", body.session_id, "the session it belongs to");
  generate_command->add_option("--key", generate.key,
                               "a name for this request: the same command with it again makes no second one");
  generate_command->add_flag("--no-wait", generate.no_wait, "return when the request is accepted");

  check_command = add(app, "check", "ask for a safety verdict of a picture");
  check_command->add_option("FILE", file, "a PNG")->required();

  CLI::App* models = app.add_subcommand("models", "what the server has to offer");
  models->require_subcommand(1);
  models_list_command = add(*models, "list", "list models, their memory and where they are loaded");
  add_models(*models);

  CLI::App* workers = app.add_subcommand("workers", "the worker processes");
  workers->require_subcommand(1);
  workers_list_command = add(*workers, "list", "list workers, what they do, and why one is set aside");
  workers_show_command = add(*workers, "show", "show one worker");
  workers_restart_command = add(*workers, "restart", "start a worker again, one that was set aside too");
  workers_logs_command = add(*workers, "logs", "print what a worker wrote, also after its death");
  for (CLI::App* each : {workers_show_command, workers_restart_command, workers_logs_command}) {
    each->add_option("ID", id, "the worker")->required();
  }
  workers_logs_command->add_option("-n,--lines", log_options.lines, "how many lines from the end")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  workers_logs_command->add_flag("-f,--follow", log_options.follow, "go on until Ctrl-C");

  add_governed(app);
  add_sessions(app);
  add_transactions(app);
  add_content(app);

  requests_command = add(app, "requests", "list requests, or show one");
  requests_command->add_option("ID", id, "the request to show");

  cancel_command = add(app, "cancel", "cancel a request");
  cancel_command->add_option("ID", id, "the request")->required();

  events_command = add(app, "events", "show the newest events, and with --follow what happens until Ctrl-C");
  events_command->add_flag("-f,--follow", events_options.follow,
                           "go on until Ctrl-C, across restarts of the server: every event once");
  CLI::Option* since = events_command->add_option("--since", events_options.since, "events after this rev");
  events_command->add_option("-n,--last", events_options.last, "the newest N events (default: 100)")->excludes(since);
  events_command->add_option("--subject", events_options.subject,
                             "only events about this request, model, worker or device");
  events_command->add_option("--type", events_options.type, "only events whose type begins so, as inference_");
  events_command->add_option("--domain", events_options.domain, "only events of this domain, as memory");
  events_command->add_option("--urgency", events_options.urgency, "only events this urgent or more: p0, p1, p2, p3");
  events_command->add_option("--session", events_options.session, "only events about this processing session");
}

void Client::State::add_models(CLI::App& models) {
  ModelOptions& options = model_options;
  models_show_command = add(models, "show", "show one model: what it is and why, what it needs, its files' digests");
  models_add_command = add(models, "add", "bring a .safetensors file or a folder into the server's models folder");
  models_add_command->add_option("PATH", options.path, "file or folder on the server's machine")->required();
  models_add_command->add_option("--name", options.name, "its name (default: that of the file or folder)");
  CLI::Option* link = models_add_command->add_flag("--link", options.link, "link to it instead of copying");
  models_add_command->add_flag("--copy", options.copy, "copy it (the default)")->excludes(link);
  models_remove_command = add(models, "remove", "delete a model's files from the models folder");
  models_remove_command->add_flag("--force", options.force, "also when it is loaded, or somebody needs it");
  models_verify_command = add(models, "verify", "read every byte again and compare the digests");
  models_verify_command->add_option("ID", options.names, "which models (default: all)");
  models_load_command = add(models, "load", "load a model now, and return when it is loaded");
  models_unload_command = add(models, "unload", "release a model's memory, and return when it is proven free");
  models_queue_command =
      add(models, "queue", "loads and unloads that were asked for and have not ended, in their order");
  models_config_command = add(models, "config", "show or set what requests that say nothing get from a model");
  models_config_command->add_option(
      "--set", assignments, "scheduler=, default_steps=, default_guidance_scale= or max_steps=; may be repeated");
  models_config_command->add_flag("--whole", whole, "what is not named becomes the default again");
  for (CLI::App* each : {models_show_command, models_remove_command, models_load_command, models_unload_command,
                         models_config_command}) {
    each->add_option("ID", options.id, "the model")->required();
  }
  models_load_command->add_option("--worker", options.worker, "on this worker (default: the one with most room)");
  models_load_command
      ->add_option("--priority", options.priority,
                   "which loads are taken first; while memory is short only critical ones")
      ->check(CLI::IsMember({"critical", "high", "normal", "low"}));
  models_unload_command->add_option("--worker", options.worker, "from this worker only (default: from all)");
}

std::optional<ExitCode> Client::State::execute_models(const http::Address& address) {
  model_options.json = json;
  if (models_list_command->parsed()) return show<ModelsView>(address, "/api/v1/models");
  if (models_show_command->parsed()) return show_model(address, model_options);
  if (models_add_command->parsed()) return add_model(address, model_options);
  if (models_remove_command->parsed()) return remove_model(address, model_options);
  if (models_verify_command->parsed()) return verify_models(address, model_options);
  if (models_load_command->parsed()) return load_model(address, model_options);
  if (models_unload_command->parsed()) return unload_model(address, model_options);
  if (models_queue_command->parsed()) return show_load_queue(address, model_options);
  if (models_config_command->parsed()) return configure_model(address, model_options, assignments, whole);
  return std::nullopt;
}

void Client::State::add_governed(CLI::App& app) {
  CLI::App* devices = app.add_subcommand("devices", "the devices and what is set for them");
  devices->require_subcommand(1);
  devices_list_command = add(*devices, "list", "list devices, their health and their memory");
  devices_show_command =
      add(*devices, "show", "show what is intended and confirmed for one device, what it can do, and how it is");
  devices_set_command =
      add(*devices, "set", "set optimization_profile=, power_limit= or memory_allocation_policy= of a device");
  devices_calibrate_command =
      add(*devices, "calibrate", "have a device measured again as soon as its worker is idle, and wait until it is");
  for (CLI::App* each : {devices_show_command, devices_set_command, devices_calibrate_command}) {
    each->add_option("ID", id, "the device")->required();
  }

  CLI::App* routing = app.add_subcommand("routing", "which device does which work");
  routing->require_subcommand(1);
  routing_show_command = add(*routing, "show", "show the routes, and which workers have taken them in");
  routing_set_command = add(*routing, "set", "set routes: inference_primary=gpu_0 inference_secondary=gpu_1");

  CLI::App* memory = app.add_subcommand("memory", "who holds which memory, and the policy for it");
  memory->require_subcommand(1);
  memory_show_command = add(*memory, "show", "show the pools, who holds what in them, and the pressure");
  memory_history_command = add(
      *memory, "history", "show how full each pool was in the last hour and the last day (since the server started)");
  CLI::App* policy = memory->add_subcommand("policy", "limits and quotas");
  policy->require_subcommand(1);
  policy_show_command = add(*policy, "show", "show the policy");
  policy_set_command =
      add(*policy, "set",
          "set max_model_cache_size=, system_reserve=, vram_reservation_limit=, emergency_cleanup_threshold=, ...");

  propagation_command = add(app, "propagation", "what each worker shall know, and what it has confirmed");
  propagation_command->add_option("WORKER", id, "only this worker");

  for (CLI::App* each : {devices_set_command, routing_set_command, policy_set_command}) {
    each->add_flag("--whole", whole, "what is not named becomes the default again");
    each->add_option("KEY=VALUE", assignments, "what to set");
  }
}

std::optional<ExitCode> Client::State::governed(const http::Address& address) {
  if (devices_list_command->parsed()) return list_devices(address, json);
  if (devices_show_command->parsed() || devices_set_command->parsed() || devices_calibrate_command->parsed()) {
    if (!is_plain_name(id)) {
      return tell(fail(ErrorCode::not_found, cat("there is no device ", shortened(harmless(id)))));
    }
    if (devices_show_command->parsed()) return show_device(address, id, json);
    if (devices_calibrate_command->parsed()) return calibrate_device(address, id, json);
    return set_setting(address, cat("devices/", id, "/config"), assignments, "", whole, json);
  }
  if (propagation_command->parsed()) {
    if (!id.empty() && !is_plain_name(id)) {
      return tell(fail(ErrorCode::not_found, cat("there is no worker ", shortened(harmless(id)))));
    }
    return show_propagation(address, id, json);
  }
  if (routing_show_command->parsed()) return show_setting(address, "routing", json);
  if (routing_set_command->parsed()) return set_setting(address, "routing", assignments, "routing_table", whole, json);
  if (memory_show_command->parsed()) return show_setting(address, "memory", json);
  if (memory_history_command->parsed()) return show_memory_history(address, json);
  if (policy_show_command->parsed()) return show_setting(address, "memory/policy", json);
  if (policy_set_command->parsed()) return set_setting(address, "memory/policy", assignments, "", whole, json);
  return std::nullopt;
}

void Client::State::add_transactions(CLI::App& app) {
  CLI::App* group = app.add_subcommand("tx", "transactions: what they did, and what waits for a decision");
  group->require_subcommand(1);
  tx_list_command = add(*group, "list", "list the transactions that are open, and the last that have ended");
  tx_list_command->add_flag("--open", tx_open, "only those that are open");
  tx_show_command = add(*group, "show", "show one, with its documents in order");
  tx_resolve_command = add(*group, "resolve", "decide in the protocol's place; it is written down for ever");
  tx_resolve_command->footer(
      "A load that prepares can be aborted: its worker is told. One that is decided and whose worker does not answer "
      "can\n"
      "be taken as acknowledged (--commit), or be overruled (--abort): the worker is ended then, since it may hold "
      "what\n"
      "was decided.\n"
      "What could not be undone is parked: --retry undoes it once more, for a load by ending its worker; --accept "
      "says\n"
      "that it is gone, or may stay.");
  for (CLI::App* each : {tx_show_command, tx_resolve_command}) {
    each->add_option("ID", id, "the transaction, as `lockstep tx list` shows it")->required();
  }
  CLI::Option* commit = tx_resolve_command->add_flag("--commit", tx_commit, "it is done");
  CLI::Option* abort = tx_resolve_command->add_flag("--abort", tx_abort, "it is not done");
  CLI::Option* retry = tx_resolve_command->add_flag("--retry", tx_retry, "parked: undo it once more");
  CLI::Option* accept = tx_resolve_command->add_flag("--accept", tx_accept, "parked: it is gone, or may stay");
  commit->excludes(abort)->excludes(retry)->excludes(accept);
  abort->excludes(retry)->excludes(accept);
  retry->excludes(accept);
  tx_resolve_command->add_option("--reason", tx_reason, "why, for whoever reads it later")->required();
}

std::optional<ExitCode> Client::State::transactions(const http::Address& address) {
  if (tx_list_command->parsed()) return list_transactions(address, tx_open, json);
  if (tx_show_command->parsed()) return show_transaction(address, id, json);
  if (!tx_resolve_command->parsed()) return std::nullopt;
  for (const auto& [wanted, word] : {std::pair(tx_commit, "commit"), std::pair(tx_abort, "abort"),
                                     std::pair(tx_retry, "retry"), std::pair(tx_accept, "accept")}) {
    if (wanted) return resolve_transaction(address, id, word, tx_reason, json);
  }
  return tell(fail(ErrorCode::invalid_argument, "one of --commit, --abort, --retry and --accept is needed"));
}

void Client::State::add_sessions(CLI::App& app) {
  CLI::App* group = app.add_subcommand("sessions", "requests that belong together, with limits and prerequisites");
  group->require_subcommand(1);
  for (const auto& [word, about] :
       {std::pair("create", "create a session; generate --session adds to it"),
        std::pair("list", "list sessions, what they did and what they wait for"), std::pair("show", "show one session"),
        std::pair("pause", "start no further operation; what runs, finishes"), std::pair("resume", "go on"),
        std::pair("complete", "take no further request; it ends with its last one"),
        std::pair("cancel", "end it and all that is open of it")}) {
    CLI::App* command = add(*group, word, about);
    sessions_commands[word] = command;
    if (std::string_view(word) != "create" && std::string_view(word) != "list") {
      command->add_option("ID", id, "the session")->required();
    }
  }
  SessionOptions& o = session_options;
  CLI::App* create = sessions_commands.at("create");
  create->add_option("--class", o.session_class, "critical, interactive, batch or background");
  create->add_option("--priority", o.priority, "critical, high, normal or low, within the class");
  create->add_option("--max-memory", o.max_memory, "of one operation on its device, as 8GB");
  create->add_option("--device", o.devices, "a device its operations may use; may be repeated (default: all)");
  create->add_option("--operation-timeout", o.operation_timeout, "for one operation, as 30s");
  create->add_option("--session-timeout", o.session_timeout, "from its start, as 300s");
  create->add_option("--expected-operations", o.expected_operations, "it completes when so many are done");
  create->add_option("--depends-on", o.depends_on, "a session that must have completed; may be repeated");
  CLI::App* pause = sessions_commands.at("pause");
  pause->add_option("--reason", o.reason, "for people");
  pause->add_option("--until", o.resume_condition, "go on by itself, as memory_usage_below_80_percent");
}

void Client::State::add_content(CLI::App& app) {
  const auto group = [&](const std::string& name, const std::string& about) {
    CLI::App* made = app.add_subcommand(name, about);
    made->require_subcommand(1);
    return [this, made, name](const std::string& word, const std::string& what) {
      return content_commands[cat(name, " ", word)] = add(*made, word, what);
    };
  };
  const auto workflows = group("workflows", "operations in order, as templates that can be run");
  workflows("list", "list templates");
  workflows("show", "show one template")->add_option("NAME", id, "the template")->required();
  workflows("add", "add a template, or a new version of one")->add_option("FILE", file, "its JSON")->required();
  workflows("remove", "remove a template")->add_option("NAME", id, "the template")->required();
  CLI::App* run = workflows("run", "run a template as a session of its own");
  run->add_option("NAME", id, "the template")->required();
  run->add_option("-p", parameters, "key=value of a generation, as prompt=\"a lighthouse\"; may be repeated");

  const auto outputs = group("outputs", "the images that were made");
  CLI::App* list = outputs("list", "list outputs, the newest first");
  list->add_option("--tag", output_options.tag, "only those with this tag");
  list->add_flag("--review", output_options.review, "only those that a person should look at");
  CLI::App* tag = outputs("tag", "change the tags of an output");
  tag->add_option("SHA256", id, "the output")->required();
  tag->add_option("--add", output_options.add, "a tag; may be repeated");
  tag->add_option("--remove", output_options.remove, "a tag; may be repeated");
  tag->add_flag("--reviewed", output_options.reviewed, "a person has looked at it");

  const auto policy = group("policy", "the safety policy");
  policy("show", "print the policy in force as JSON");
  policy("set", "set it")->add_option("FILE", file, "a safety_policy_update as JSON")->required();
}

ExitCode Client::State::content(const http::Address& address, const std::string& words) {
  if (words == "workflows list") return list_workflows(address, json);
  if (words == "workflows show") return show_workflow(address, id, json);
  if (words == "workflows add") return add_workflow(address, file, json);
  if (words == "workflows remove") return remove_workflow(address, id, json);
  if (words == "workflows run") return cli::run_workflow(address, id, parameters, json);
  if (words == "outputs list") return list_outputs(address, output_options, json);
  if (words == "outputs tag") return tag_output(address, id, output_options, json);
  if (words == "policy set") return set_policy(address, file);
  return show_policy(address);
}

ExitCode Client::State::sessions(const http::Address& address, const std::string& word) {
  if (word == "create") return create_session(address, session_options, json);
  if (word == "list") return list_sessions(address, json);
  if (word == "show") return show_session(address, id, json);
  return command_session(address, id, word, word == "pause" ? session_options : SessionOptions{}, json);
}

template <class View>
ExitCode Client::State::show(const http::Address& address, const std::string& target) {
  return tell_view<View>(http::request(address, "GET", target), 200, json,
                         [](const View& view) { return text_of(view); });
}

ExitCode Client::State::check(const http::Address& address) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return tell(fail(ErrorCode::invalid_argument, cat("cannot read ", file)));
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const auto response = http::request(address, "POST", "/api/v1/checks", bytes, {{"Content-Type", "image/png"}});
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  const auto view = json::from_text<RequestView>(response->body, nullptr, view_limits);
  if (!view) return tell(fail(ErrorCode::internal, cat("the server's answer: ", view.error().message)));
  const SafetyAnalysis* safety = nullptr;
  for (const JobView& job : view->jobs) {
    if (job.results && job.results->safety_analysis) safety = &*job.results->safety_analysis;
  }
  if (safety == nullptr) return tell(fail(ErrorCode::internal, "the server's answer has no verdict"));
  print(json ? response->body + "\n" : cat(file, ": ", *verdict_of(view->jobs.back().results), "\n"));
  return safety->safety_classification == "safe" ? ExitCode::done : ExitCode::blocked;
}

ExitCode Client::State::cancel(const http::Address& address) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  const auto response = http::request(address, "POST", cat("/api/v1/requests/", id, "/cancel"));
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  print(json ? response->body + "\n" : cat(id, " is cancelled\n"));
  return ExitCode::done;
}

ExitCode Client::State::execute(const http::Address& address) {
  if (status_command->parsed()) return show<StatusView>(address, "/api/v1/status");
  if (const auto done = execute_models(address)) return *done;
  if (check_command->parsed()) return check(address);
  if (cancel_command->parsed()) return cancel(address);
  if (workers_list_command->parsed()) return list_workers(address, json);
  if (workers_show_command->parsed()) return show_worker(address, id, json);
  if (workers_restart_command->parsed()) return restart_worker(address, id, json);
  if (workers_logs_command->parsed()) return worker_logs(address, id, log_options);
  if (const auto code = governed(address)) return *code;
  if (const auto code = transactions(address)) return *code;
  for (const auto& [word, command] : sessions_commands) {
    if (command->parsed()) return sessions(address, word);
  }
  for (const auto& [words, command] : content_commands) {
    if (command->parsed()) return content(address, words);
  }
  if (events_command->parsed()) {
    events_options.json = json;
    return cli::events(address, events_options);
  }
  if (generate_command->parsed()) {
    generate.json = json;
    return cli::generate(address, generate);
  }
  if (id.empty()) return show<RequestsView>(address, "/api/v1/requests");
  if (const Status good = check_id(id); !good) return tell(good.error());
  return show<RequestView>(address, cat("/api/v1/requests/", id));
}

Client::Client(CLI::App& app) : state_(std::make_unique<State>()) { state_->add_all(app); }
Client::~Client() = default;

std::optional<int> Client::run() {
  State& s = *state_;
  const auto chosen = std::ranges::find_if(s.urls, [](const auto& each) { return each.first->parsed(); });
  if (chosen == s.urls.end()) return std::nullopt;
  const auto address = http::address_from_url(chosen->second);
  return static_cast<int>(address ? s.execute(*address) : tell(address.error()));
}

}  // namespace lockstep::cli
