#include "server/config.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <toml++/toml.h>

#include "base/text.h"
#include "domains/inference/rules.h"
#include "domains/postprocessing/rules.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

/// Reads one table key by key; what nobody asked for is an unknown key.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string where, std::string file)
      : table_(table), where_(std::move(where)), file_(std::move(file)) {}

  template <class T>
  Status number(const char* key, T& out, std::int64_t min, std::int64_t max) {
    const toml::node* node = look(key);
    if (node == nullptr) return {};
    const auto value = node->value<std::int64_t>();
    if (!node->is_integer() || !value || *value < min || *value > max) {
      return wrong(key, *node, cat("a whole number from ", min, " to ", max));
    }
    out = static_cast<T>(*value);
    return {};
  }
  Status text(const char* key, std::string& out) {
    const toml::node* node = look(key);
    if (node == nullptr) return {};
    if (!node->is_string()) return wrong(key, *node, "a text");
    out = *node->value<std::string>();
    return {};
  }
  Status size(const char* key, Bytes& out) {
    std::string words;
    LOCKSTEP_TRY_STATUS(text(key, words));
    if (words.empty()) return {};
    const auto bytes = bytes_from_text(words);
    if (!bytes) return wrong(key, *table_.get(key), bytes.error().message);
    out = *bytes;
    return {};
  }
  Status duration(const char* key, Nanos& out) {
    std::string words;
    LOCKSTEP_TRY_STATUS(text(key, words));
    if (words.empty()) return {};
    const auto nanos = duration_from_text(words);
    if (!nanos) return wrong(key, *table_.get(key), nanos.error().message);
    out = *nanos;
    return {};
  }
  Status texts(const char* key, std::vector<std::string>& out) {
    const toml::node* node = look(key);
    if (node == nullptr) return {};
    const toml::array* array = node->as_array();
    if (array == nullptr) return wrong(key, *node, "a list of texts");
    out.clear();
    for (const toml::node& each : *array) {
      if (!each.is_string()) return wrong(key, each, "a list of texts");
      out.push_back(*each.value<std::string>());
    }
    return {};
  }
  void known(const char* key) { asked_.insert(key); }
  Status no_others() const {
    for (const auto& [key, node] : table_) {
      if (!asked_.contains(std::string(key.str()))) {
        return fail(ErrorCode::invalid_argument,
                    cat(file_, ":", node.source().begin.line, ": unknown key ", where_, key.str()));
      }
    }
    return {};
  }
  Error wrong(const char* key, const toml::node& node, const std::string& expected) const {
    return fail(ErrorCode::invalid_argument,
                cat(file_, ":", node.source().begin.line, ": ", where_, key, ": expected ", expected));
  }

 private:
  const toml::node* look(const char* key) {
    asked_.insert(key);
    return table_.get(key);
  }
  const toml::table& table_;
  std::string where_;
  std::string file_;
  std::set<std::string> asked_;
};

WorkerSettings worker_settings(std::size_t index, device::Kind kind, Bytes budget) {
  const std::string device = kind == device::Kind::cpu ? cat("cpu_", index) : cat("gpu_", index);
  return {WorkerId(cat("worker_", index)), DeviceId(device), kind, budget, static_cast<std::uint32_t>(index)};
}

Status read_workers(const toml::array& array, const std::string& file, std::vector<WorkerSettings>& out) {
  out.clear();
  std::set<std::string> names;
  for (const toml::node& node : array) {
    const toml::table* table = node.as_table();
    if (table == nullptr) return fail(ErrorCode::invalid_argument, cat(file, ": worker must be [[worker]] tables"));
    TableReader reader(*table, "worker.", file);
    std::string kind = "cpu";
    LOCKSTEP_TRY_STATUS(reader.text("kind", kind));
    if (kind != "cpu" && kind != "cuda") return reader.wrong("kind", *table->get("kind"), "\"cpu\" or \"cuda\"");
    WorkerSettings worker = worker_settings(out.size(), kind == "cpu" ? device::Kind::cpu : device::Kind::cuda, 4_GiB);
    std::string name = worker.worker_id.str();
    std::string device = worker.device_id.str();
    LOCKSTEP_TRY_STATUS(reader.text("name", name));
    LOCKSTEP_TRY_STATUS(reader.text("device", device));
    LOCKSTEP_TRY_STATUS(reader.size("memory", worker.memory_budget));
    LOCKSTEP_TRY_STATUS(reader.number("gpu", worker.gpu, 0, 1023));
    LOCKSTEP_TRY_STATUS(reader.no_others());
    if (!is_plain_name(name)) return reader.wrong("name", node, "letters, digits, '.', '_' and '-'");
    if (!is_plain_name(device)) return reader.wrong("device", node, "letters, digits, '.', '_' and '-'");
    if (!names.insert(name).second || !names.insert(cat("device ", device)).second) {
      return reader.wrong("name", node, cat("a name and a device of its own; ", name, " or ", device, " is taken"));
    }
    worker.worker_id = WorkerId(name);
    worker.device_id = DeviceId(device);
    out.push_back(worker);
  }
  return {};
}

}  // namespace

std::string home_folder() {
  const auto holds = [](const fs::path& folder) { return fs::exists(folder / "python" / "lockstep"); };
  if (const char* home = std::getenv("LOCKSTEP_HOME"); home != nullptr && holds(home)) return home;
  std::error_code error;
  for (fs::path at = fs::read_symlink("/proc/self/exe", error).parent_path(); !at.empty(); at = at.parent_path()) {
    if (holds(at)) return at.string();
    if (at == at.root_path()) break;
  }
  return "";
}

Config default_config() {
  Config config;
  config.core.version = LOCKSTEP_VERSION;
  for (std::size_t i = 0; i < 2; ++i) config.core.workers.push_back(worker_settings(i, device::Kind::cpu, 4_GiB));
  const std::string home = home_folder();
  const std::string venv = cat(home, "/.venv/bin/python");
  config.worker_command = {!home.empty() && fs::exists(venv) ? venv : "python3", "-m", "lockstep.diffusers"};
  if (!home.empty()) {
    const char* const path = std::getenv("PYTHONPATH");
    config.worker_environment.push_back(path == nullptr ? cat("PYTHONPATH=", home, "/python")
                                                        : cat("PYTHONPATH=", home, "/python:", path));
  }
  for (const char* each : {"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1",
                           "DIFFUSERS_DISABLE_REMOTE_CODE=1", "TOKENIZERS_PARALLELISM=false", "PYTHONUNBUFFERED=1"}) {
    config.worker_environment.emplace_back(each);
  }
  return config;
}

Result<Config> read_config(const std::string& path) {
  Config config = default_config();
  toml::table root;
  try {
    root = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    std::error_code missing;
    if (!fs::exists(path, missing)) return fail(ErrorCode::not_found, cat("there is no configuration file ", path));
    return fail(ErrorCode::invalid_argument,
                cat(path, ":", error.source().begin.line, ": ", std::string(error.description())));
  }
  TableReader top(root, "", path);
  LOCKSTEP_TRY_STATUS(top.text("data_dir", config.data_dir));
  LOCKSTEP_TRY_STATUS(top.text("models_dir", config.models_dir));
  LOCKSTEP_TRY_STATUS(top.text("log_level", config.log_level));
  for (const char* section : {"http", "cache", "storage", "workers", "limits", "timing", "breaker", "logs", "worker"}) {
    top.known(section);
  }
  LOCKSTEP_TRY_STATUS(top.no_others());

  for (const char* name : {"http", "cache", "storage", "workers", "limits", "timing", "breaker", "logs"}) {
    const toml::node* node = root.get(name);
    if (node != nullptr && !node->is_table()) return top.wrong(name, *node, cat("a table, as in [", name, "]"));
  }
  const std::array levels{"trace", "debug", "info", "warning", "error", "critical", "off"};
  if (std::ranges::find(levels, config.log_level, [](const char* each) { return std::string(each); }) == levels.end()) {
    return top.wrong("log_level", *root.get("log_level"), "trace, debug, info, warning, error, critical or off");
  }
  const auto section = [&](const char* name) -> const toml::table& {
    static const toml::table empty;
    const toml::table* table = root[name].as_table();
    return table == nullptr ? empty : *table;
  };
  TableReader http(section("http"), "http.", path);
  LOCKSTEP_TRY_STATUS(http.text("address", config.http.address));
  LOCKSTEP_TRY_STATUS(http.number("port", config.http.port, 0, 65535));
  LOCKSTEP_TRY_STATUS(http.number("history_events", config.http.history.events_max, 0, 1'000'000));
  Bytes history_bytes{config.http.history.bytes_max};
  LOCKSTEP_TRY_STATUS(http.size("history_bytes", history_bytes));
  config.http.history.bytes_max = history_bytes.value;
  LOCKSTEP_TRY_STATUS(http.number("streams_max", config.http.streams_max, 1, 100'000));
  LOCKSTEP_TRY_STATUS(http.number("connections_max", config.http.connections_max, 1, 200'000));
  LOCKSTEP_TRY_STATUS(http.no_others());

  TableReader cache(section("cache"), "cache.", path);
  LOCKSTEP_TRY_STATUS(cache.size("limit", config.core.cache_limit));
  LOCKSTEP_TRY_STATUS(cache.number("fill_threads", config.pool_threads, 1, 64));
  std::string dtype = "as-is";
  LOCKSTEP_TRY_STATUS(cache.text("dtype", dtype));
  constexpr std::array<std::pair<std::string_view, model::CacheDtype>, 4> dtypes{{{"as-is", model::CacheDtype::as_is},
                                                                                  {"fp16", model::CacheDtype::fp16},
                                                                                  {"bf16", model::CacheDtype::bf16},
                                                                                  {"fp32", model::CacheDtype::fp32}}};
  const auto* const named = std::ranges::find(dtypes, dtype, [](const auto& each) { return each.first; });
  if (named == dtypes.end()) {
    return fail(ErrorCode::invalid_argument,
                cat(path, ": cache.dtype is \"", shortened(dtype), "\"; it must be as-is, fp16, bf16 or fp32"));
  }
  config.cache_dtype = named->second;
  LOCKSTEP_TRY_STATUS(cache.no_others());

  TableReader storage(section("storage"), "storage.", path);
  LOCKSTEP_TRY_STATUS(storage.size("low_water", config.core.disk_low_water));
  LOCKSTEP_TRY_STATUS(storage.size("reserve", config.disk_reserve));
  LOCKSTEP_TRY_STATUS(storage.no_others());

  TableReader workers(section("workers"), "workers.", path);
  LOCKSTEP_TRY_STATUS(workers.texts("command", config.worker_command));
  std::vector<std::string> environment;
  LOCKSTEP_TRY_STATUS(workers.texts("environment", environment));
  config.worker_environment.insert(config.worker_environment.end(), environment.begin(), environment.end());
  LOCKSTEP_TRY_STATUS(workers.duration("reconnect", config.reconnect));
  LOCKSTEP_TRY_STATUS(workers.text("listen", config.worker_listen));
  LOCKSTEP_TRY_STATUS(workers.text("certificate", config.worker_tls.certificate));
  LOCKSTEP_TRY_STATUS(workers.text("key", config.worker_tls.key));
  LOCKSTEP_TRY_STATUS(workers.text("client_authority", config.worker_tls.authority));
  LOCKSTEP_TRY_STATUS(workers.no_others());
  if (config.worker_command.empty()) {
    return fail(ErrorCode::invalid_argument, cat(path, ": workers.command is empty; it must name a program"));
  }
  const real::TlsFiles& tls = config.worker_tls;
  if (!config.worker_listen.empty() && (tls.certificate.empty() || tls.key.empty() || tls.authority.empty())) {
    return fail(ErrorCode::invalid_argument,
                cat(path,
                    ": workers.listen needs workers.certificate, workers.key and workers.client_authority: workers "
                    "of other machines come in over TLS only"));
  }

  TableReader limits(section("limits"), "limits.", path);
  AcceptSettings& accept = config.core.accept;
  LOCKSTEP_TRY_STATUS(limits.number("open_jobs", accept.open_jobs_max, 1, 1'000'000));
  LOCKSTEP_TRY_STATUS(limits.number("steps", accept.limits.steps_max, 1, 10'000));
  LOCKSTEP_TRY_STATUS(limits.number("side", accept.limits.side_max, 64, 65'536));
  LOCKSTEP_TRY_STATUS(limits.number("pixels", accept.limits.pixels_max, 4096, 1'000'000'000));
  LOCKSTEP_TRY_STATUS(limits.number("default_steps", accept.default_steps, 1, 10'000));
  LOCKSTEP_TRY_STATUS(limits.number("default_side", accept.default_side, 64, 65'536));
  LOCKSTEP_TRY_STATUS(limits.text("strictness", accept.strictness));
  LOCKSTEP_TRY_STATUS(limits.no_others());
  // A default that its own limit refuses would only show at the first request.
  InferenceParameters defaults;
  defaults.prompt = "x";
  defaults.steps = accept.default_steps;
  defaults.width = defaults.height = accept.default_side;
  if (const Status status = inference::validate(defaults, 1, accept.limits); !status) {
    return fail(ErrorCode::invalid_argument, cat(path, ": limits: the defaults are refused: ", status.error().message));
  }
  const PipelineOperation check{"safety_check", ModelId("x"), std::nullopt, accept.strictness};
  if (const Status status = postprocessing::validate({check}); !status) {
    return fail(ErrorCode::invalid_argument, cat(path, ": limits.", status.error().message));
  }

  TableReader timing(section("timing"), "timing.", path);
  LOCKSTEP_TRY_STATUS(timing.duration("prepare", config.core.prepare_deadline));
  LOCKSTEP_TRY_STATUS(timing.duration("start", config.core.timing.start_deadline));
  LOCKSTEP_TRY_STATUS(timing.duration("progress", config.core.timing.progress_deadline));
  LOCKSTEP_TRY_STATUS(timing.duration("drain", config.core.timing.drain_limit));
  LOCKSTEP_TRY_STATUS(timing.no_others());

  TableReader breaker(section("breaker"), "breaker.", path);
  LOCKSTEP_TRY_STATUS(breaker.number("deaths", config.core.breaker.deaths_max, 1, 1000));
  LOCKSTEP_TRY_STATUS(breaker.duration("window", config.core.breaker.window));
  LOCKSTEP_TRY_STATUS(breaker.duration("trial", config.core.breaker.trial_after));
  LOCKSTEP_TRY_STATUS(breaker.no_others());

  TableReader logs(section("logs"), "logs.", path);
  LOCKSTEP_TRY_STATUS(logs.size("worker_limit", config.worker_log_limit));
  LOCKSTEP_TRY_STATUS(logs.no_others());
  if (config.worker_log_limit < 64_KiB) {
    return fail(ErrorCode::invalid_argument,
                cat(path, ": logs.worker_limit is ", to_text(config.worker_log_limit), "; it must be 64KB or more"));
  }

  if (const toml::node* node = root.get("worker")) {
    const toml::array* array = node->as_array();
    if (array == nullptr) return fail(ErrorCode::invalid_argument, cat(path, ": worker must be [[worker]] tables"));
    LOCKSTEP_TRY_STATUS(read_workers(*array, path, config.core.workers));
  }
  return config;
}

}  // namespace lockstep::server
