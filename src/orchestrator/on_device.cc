#include "orchestrator/on_device.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/device/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_calibration.h"
#include "orchestrator/set.h"

namespace lockstep {

namespace {

constexpr std::string_view config_suffix = "/config";
constexpr std::string_view devices_prefix = "devices/";
constexpr double unknown_seconds = 1e6;  // a busy device that told nothing: later than an idle one

struct HealthChanged {
  DeviceId device_id;
  device::HealthLevel level = device::HealthLevel::ok;
  device::HealthLevel before = device::HealthLevel::ok;
  std::string reason;
  Urgency urgency = Urgency::p1_high;
};
BOOST_DESCRIBE_STRUCT(HealthChanged, (), (device_id, level, before, reason, urgency))

struct RoutingView {
  Rev rev;
  std::uint64_t revision = 0;
  Ordered<DeviceId> routing_table;
  std::map<std::string, std::uint64_t> confirmed_by;
};
BOOST_DESCRIBE_STRUCT(RoutingView, (), (rev, revision, routing_table, confirmed_by))

/// Absent when the device does not tell. A limit on its power is how it shall work; heat and faults are not.
std::optional<bool> slows_itself_down(const DeviceHealthUpdate& update) {
  if (!update.diagnostics || !update.diagnostics->throttle_reasons) return std::nullopt;
  return std::ranges::any_of(*update.diagnostics->throttle_reasons,
                             [](const std::string& reason) { return reason != "power_cap"; });
}

const WorkerRecord* worker_of(const Turn& turn, const DeviceId& device) {
  const device::Device* row = turn.tables.device.devices.find(device.str());
  if (row == nullptr) return nullptr;
  const WorkerRecord* worker = turn.tables.liveness.workers.find(row->worker_id.str());
  return worker != nullptr && worker->device_id == device ? worker : nullptr;
}

void tell_config(Turn& turn, const WorkerRecord& worker, const device::Config& config) {
  DeviceConfigUpdate message;
  message.device_id = config.device_id;
  message.changes = config.intended;
  message.propagation_priority = AllocationPriority::high;
  message.temperature_critical = config.health.temperature_critical;
  tell(turn, worker, FrameType::device_config_update, message);
}

void tell_routing(Turn& turn, const WorkerRecord& worker, const device::Routing& routing) {
  tell(turn, worker, FrameType::device_routing_update, DeviceRoutingUpdate{routing.routing_table, true});
}

bool hears(const Turn& turn, const WorkerRecord& worker) {
  const auto live = turn.live.workers.find(worker.worker_id);
  return worker.state == WorkerState::ready && live != turn.live.workers.end() && live->second.link_open;
}

void set_config(Turn& turn, const in::Set& input, const DeviceId& id) {
  const device::Device* device = turn.tables.device.devices.find(id.str());
  if (device == nullptr) {
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no device ", shortened(id.str()))));
  }
  const auto body = read_set<device::ConfigBody>(input);
  if (!body) return reply_error(turn, input.reply, body.error());
  const device::Config before = turn.tables.device.config_of(id);
  const auto after = device::changed(before, *body, input.whole);
  if (!after) return reply_error(turn, input.reply, after.error());
  turn.change.put(turn.tables.device.configs, id.str(), *after);
  turn.change.event("device_config_changed", id.str(), *after);
  const WorkerRecord* worker = worker_of(turn, id);
  const bool concerns_worker =
      after->revision != before.revision || after->health.temperature_critical != before.health.temperature_critical;
  if (concerns_worker && worker != nullptr && worker->state == WorkerState::ready) {
    tell_config(turn, *worker, *after);
  }
  turn.effect(out::Reply{input.reply, 200, json::to_text(*after)});
}

void set_routing(Turn& turn, const in::Set& input) {
  const auto body = read_set<device::RoutingBody>(input);
  if (!body) return reply_error(turn, input.reply, body.error());
  if (const Status good = device::check_roles(body->routing_table); !good) {
    return reply_error(turn, input.reply, good.error());
  }
  for (const auto& [role, id] : body->routing_table.items) {
    if (turn.tables.device.devices.contains(id.str())) continue;
    return reply_error(turn, input.reply,
                       fail(ErrorCode::not_found, cat(role, " names ", shortened(id.str()), ", which is no device"),
                            cat("/routing_table/", role)));
  }
  const device::Routing* known = turn.tables.device.routes();
  device::Routing routing = known == nullptr ? device::Routing{} : *known;
  ++routing.revision;
  if (!input.whole) {
    for (const auto& [role, id] : body->routing_table.items) {
      std::erase_if(routing.routing_table.items, [&](const auto& each) { return each.first == role; });
      routing.routing_table.items.emplace_back(role, id);
    }
  } else {
    routing.routing_table = body->routing_table;
  }
  turn.change.put(turn.tables.device.routing, "routing", routing);
  turn.change.event(std::string(DeviceRoutingUpdate::event_type), "routing",
                    DeviceRoutingUpdate{routing.routing_table, true});
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (entry.row.state == WorkerState::ready) tell_routing(turn, entry.row, routing);
  }
  turn.effect(out::Reply{
      input.reply, 200,
      json::to_text(RoutingView{turn.live.rev.next(), routing.revision, routing.routing_table, routing.confirmed_by})});
}

/// What an image asks of its device, in the words of device::Access.
struct Use {
  std::string_view work;
  std::string session_class;
};

std::string_view work_of(const processing::Request& request, const processing::Job& job) {
  if (request.kind == processing::RequestKind::check) return "check";
  return job.stage == processing::JobStage::queued ? "inference" : "postprocessing";
}

Use use_of(const Turn& turn, const processing::Request& request, const processing::Job& job) {
  return {work_of(request, job), json::enum_name(processing::class_of(turn.tables.processing, request))};
}

/// A check is routed as postprocessing: it is the same work without an image before it.
std::string_view route_name(std::string_view work) { return work == "check" ? "postprocessing" : work; }

/// "" when the device may be used so, whatever the routes say.
std::string refused_because(const Turn& turn, const DeviceId& device, const Use& use) {
  const device::Config config = turn.tables.device.config_of(device);
  const std::string access = device::refused_because(config, use.work, use.session_class);
  if (!access.empty()) return access;
  const device::Health* health = turn.tables.device.health.find(device.str());
  if (health != nullptr && health->level == device::HealthLevel::critical &&
      config.health.on_critical == device::OnCritical::stop) {
    return cat(device.str(), " is stopped: ", health->reason);
  }
  return "";
}

bool is_loaded(const Turn& turn, const std::vector<ModelId>& models, const WorkerId& worker) {
  return std::ranges::all_of(models, [&](const ModelId& id) {
    const model::Residency* held = model::residency(turn.tables.model, id, worker);
    return held != nullptr && held->state == model::ResidencyState::loaded;
  });
}

/// Seconds of one load, as measured since the start; 0 when none was.
double load_seconds(const Turn& turn) {
  const Histogram& loads = turn.live.counters.load_seconds;
  return loads.count() == 0 ? 0 : static_cast<double>(loads.sum()) / static_cast<double>(loads.count()) / 1e9;
}

/// The device as its route sees it: whether it can be used, and when it could begin.
device::RouteTarget target(const Turn& turn, const std::optional<DeviceId>& id, const Use& use,
                           const std::vector<ModelId>& needed, const WaitSeconds& waiting) {
  device::RouteTarget out;
  if (!id) return out;
  const WorkerRecord* worker = worker_of(turn, *id);
  if (worker == nullptr || !hears(turn, *worker)) return out;
  const WorkerLive& live = turn.live.workers.at(worker->worker_id);
  if (live.silent || live.kill_sent || !refused_because(turn, *id, use).empty()) return out;
  out.usable = true;
  out.healthy = turn.tables.device.level_of(*id) == device::HealthLevel::ok;
  if (!live.task.empty()) {
    const auto samples = turn.live.samples.find(*id);
    const Nanos until = samples == turn.live.samples.end() ? 0 : samples->second.busy_until;
    out.starts_in = until <= turn.now ? unknown_seconds : static_cast<double>(until - turn.now) / 1e9;
  }
  if (const auto earlier = waiting.find(*id); earlier != waiting.end()) out.starts_in += earlier->second;
  if (!is_loaded(turn, needed, worker->worker_id)) out.starts_in += load_seconds(turn);
  return out;
}

void tell_health_to(Turn& turn, const WorkerRecord& worker, DeviceHealthUpdate update, device::HealthLevel level) {
  const bool critical = level == device::HealthLevel::critical;
  update.propagation_urgency = critical ? AllocationPriority::critical : AllocationPriority::high;
  if (!subscribes(worker, urgency_row(FrameType::device_health_update, Condition::health_critical).receivers)) return;
  tell(turn, worker, update, update.device_id, critical ? Urgency::p0_critical : Urgency::p1_high);
}

/// Critical concerns every domain of every worker; another level those that share its work, and whoever was told
/// before.
void tell_health(Turn& turn, const WorkerRecord& worker, const DeviceHealthUpdate& update, device::HealthLevel level,
                 bool changed) {
  const bool critical = level == device::HealthLevel::critical;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    const WorkerRecord& other = entry.row;
    if (other.worker_id == worker.worker_id || other.state != WorkerState::ready) continue;
    const bool told = turn.tables.propagation.deliveries.contains(
        delivery_key(other.worker_id, DeviceHealthUpdate::event_type, worker.device_id.str()));
    const bool matters = changed && (critical || is_concerned(turn, other, worker.device_id));
    if (told || matters) tell_health_to(turn, other, update, level);
  }
}

double work_seconds(const Turn& turn, const processing::Request& request, const DeviceId& device) {
  const auto samples = turn.live.samples.find(device);
  const double step = samples == turn.live.samples.end() ? 0 : samples->second.step_seconds;
  return step * request.inference.inference_parameters.steps;
}

}  // namespace

bool is_concerned(const Turn& turn, const WorkerRecord& worker, const DeviceId& device) {
  for (const std::string_view work : {"inference", "postprocessing"}) {
    const device::Route route = device::route_of(turn.tables.device.routes(), work);
    const auto named = [&](const DeviceId& id) { return route.primary == id || route.secondary == id; };
    if (route.any() || (named(device) && named(worker.device_id))) return true;
  }
  return false;
}

void health_sampled(Turn& turn, const WorkerRecord& worker, const DeviceHealthUpdate& update, bool first) {
  const device::Device* row = turn.tables.device.devices.find(worker.device_id.str());
  if (row == nullptr || update.device_id != worker.device_id) return;
  DeviceSamples& samples = turn.live.samples[worker.device_id];
  const std::uint64_t errors = update.health_metrics.error_count;
  if (samples.window_began == 0 || turn.now - samples.window_began > device::error_window ||
      errors < samples.errors_mark) {
    samples.window_began = turn.now;
    samples.errors_mark = errors;
  }
  const device::Config config = turn.tables.device.config_of(worker.device_id);
  const device::HealthLevel before = turn.tables.device.level_of(worker.device_id);
  const device::Judgement now = device::judge({.temperature = update.health_metrics.temperature,
                                               .errors = errors - samples.errors_mark,
                                               .throttled = slows_itself_down(update)},
                                              config.health, before);
  if (now.level != before || first) tell_health(turn, worker, update, now.level, now.level != before);
  if (now.level == before) return;
  const device::Health health{worker.device_id, now.level, now.reason, turn.wall};
  turn.change.put(turn.tables.device.health, worker.device_id.str(), health);
  const bool critical = now.level == device::HealthLevel::critical;
  turn.change.event("device_health_changed", worker.device_id.str(),
                    HealthChanged{worker.device_id, now.level, before, now.reason,
                                  critical ? Urgency::p0_critical : Urgency::p1_high});
  turn.warn(
      cat(worker.device_id.str(), " is ", json::enum_name(now.level), now.reason.empty() ? "" : cat(": ", now.reason)));
  const bool stops = critical && config.health.on_critical == device::OnCritical::stop;
  if (stops && row->availability == device::Availability::online) {
    turn.change.put(turn.tables.device.devices, worker.device_id.str(),
                    device::after(*row, device::DeviceEvent::health_critical, now.reason));
  } else if (!critical && row->availability == device::Availability::error) {
    turn.change.put(turn.tables.device.devices, worker.device_id.str(),
                    device::after(*row, device::DeviceEvent::health_recovered, ""));
  }
}

Status capabilities_reported(Turn& turn, const WorkerRecord& worker, const DeviceCapabilityDiscovered& report,
                             const std::string& op_id) {
  if (report.device_id != worker.device_id) {
    return fail(ErrorCode::not_owner, cat("it reports on ", shortened(report.device_id.str())), "/device_id");
  }
  const device::Capabilities* known = turn.tables.device.capabilities.find(worker.device_id.str());
  device::Capabilities fresh{
      worker.device_id,        report.device_name.value_or(""), report.driver_version.value_or(""),
      report.new_capabilities, report.capability_scores,        known == nullptr ? std::nullopt : known->calibrated_at};
  if (is_calibrating(turn, worker, op_id)) {
    fresh.calibrated_at = turn.wall;
    calibration_done(turn, worker, known, fresh);
  }
  if (known != nullptr && json::to_text(*known) == json::to_text(fresh)) return {};
  turn.change.put(turn.tables.device.capabilities, worker.device_id.str(), fresh);
  turn.change.event(std::string(DeviceCapabilityDiscovered::event_type), worker.device_id.str(), report);
  return {};
}

void tell_device_facts(Turn& turn, const WorkerRecord& worker) {
  if (const auto* config = turn.tables.device.configs.find(worker.device_id.str())) tell_config(turn, worker, *config);
  if (const auto* routing = turn.tables.device.routes()) tell_routing(turn, worker, *routing);
  for (const auto& [id, live] : turn.live.workers) {
    if (id == worker.worker_id || !live.health) continue;
    const device::HealthLevel level = turn.tables.device.level_of(live.health->device_id);
    const bool matters = level == device::HealthLevel::critical || is_concerned(turn, worker, live.health->device_id);
    if (level != device::HealthLevel::ok && matters) tell_health_to(turn, worker, *live.health, level);
  }
}

void device_lost(Turn& turn, const WorkerRecord& worker) {
  turn.live.samples.erase(worker.device_id);
  const std::string& id = worker.device_id.str();
  if (turn.tables.device.health.contains(id)) turn.change.erase(turn.tables.device.health, id);
  const device::Config* config = turn.tables.device.configs.find(id);
  if (config != nullptr && config->confirmed_revision > 0) {
    turn.change.put(turn.tables.device.configs, id, device::unconfirmed(*config));
  }
  const device::Routing* routing = turn.tables.device.routes();
  if (routing != nullptr && routing->confirmed_by.contains(worker.worker_id.str())) {
    device::Routing without = *routing;
    without.confirmed_by.erase(worker.worker_id.str());
    turn.change.put(turn.tables.device.routing, "routing", without);
  }
}

void device_change_confirmed(Turn& turn, const WorkerRecord& worker, const AppliedResult& answer) {
  const std::string& id = worker.device_id.str();
  const device::Config* config = turn.tables.device.configs.find(id);
  if (answer.type == DeviceConfigUpdate::event_type && config != nullptr) {
    const device::Config after =
        device::confirmed(*config, config->revision, answer.settings.value_or(std::vector<RejectedSetting>{}));
    if (json::to_text(after) == json::to_text(*config)) return;
    turn.change.put(turn.tables.device.configs, id, after);
    turn.change.event("device_config_confirmed", id, after);
  }
  const device::Routing* routing = turn.tables.device.routes();
  const bool applied = answer.outcome == AppliedOutcome::applied;  // a refusal is an answer, and confirms nothing
  if (answer.type == DeviceRoutingUpdate::event_type && routing != nullptr && applied) {
    device::Routing after = *routing;
    std::uint64_t& by_worker = after.confirmed_by[worker.worker_id.str()];
    if (by_worker >= routing->revision) return;
    by_worker = routing->revision;
    turn.change.put(turn.tables.device.routing, "routing", after);
    turn.change.event("device_routing_confirmed", worker.worker_id.str(), after);
  }
}

bool set_device(Turn& turn, const in::Set& input) {
  if (input.path == "routing") {
    set_routing(turn, input);
    return true;
  }
  if (!input.path.starts_with(devices_prefix) || !input.path.ends_with(config_suffix)) return false;
  const std::size_t length = input.path.size() - devices_prefix.size() - config_suffix.size();
  set_config(turn, input, DeviceId(input.path.substr(devices_prefix.size(), length)));
  return true;
}

std::optional<std::string> device_view_text(const Turn& turn, const std::string& path) {
  if (path == "routing") {
    const device::Routing* known = turn.tables.device.routes();
    const device::Routing routing = known == nullptr ? device::Routing{} : *known;
    return json::to_text(RoutingView{turn.live.rev, routing.revision, routing.routing_table, routing.confirmed_by});
  }
  if (!path.starts_with(devices_prefix) || !path.ends_with(config_suffix)) return std::nullopt;
  const DeviceId id(path.substr(devices_prefix.size(), path.size() - devices_prefix.size() - config_suffix.size()));
  if (!turn.tables.device.devices.contains(id.str())) return std::nullopt;
  return json::to_text(turn.tables.device.config_of(id));
}

void step_measured(Turn& turn, const WorkerRecord& worker, const ExecutionMetrics& steps) {
  DeviceSamples& samples = turn.live.samples[worker.device_id];
  samples.step_seconds = steps.step_time_avg;
  const std::uint32_t left = steps.total_steps - std::min(steps.current_step, steps.total_steps);
  samples.busy_until = turn.now + static_cast<Nanos>(left * steps.step_time_avg * 1e9);
}

void keep_allowed(const Turn& turn, const processing::Request& request, const processing::Job& job,
                  const std::vector<ModelId>& needed, WaitSeconds& waiting, std::vector<WorkerRecord>& workers) {
  const Use use = use_of(turn, request, job);
  const FrameType start = use.work == "inference" ? FrameType::inference_request : FrameType::postprocessing_request;
  std::erase_if(workers, [&](const WorkerRecord& worker) {
    return !refused_because(turn, worker.device_id, use).empty() || !may_begin(turn, worker, start);
  });
  const device::Route route = device::route_of(turn.tables.device.routes(), route_name(use.work));
  if (route.any()) {
    // Without a route every device may; a healthy one is better.
    std::ranges::stable_partition(workers, [&](const WorkerRecord& worker) {
      return turn.tables.device.level_of(worker.device_id) == device::HealthLevel::ok;
    });
    return;
  }
  const auto chosen = [&]() -> std::optional<DeviceId> {
    switch (device::choose(target(turn, route.primary, use, needed, waiting),
                           target(turn, route.secondary, use, needed, waiting))) {
      case device::Choice::primary: return route.primary;
      case device::Choice::secondary: return route.secondary;
      case device::Choice::nobody: return std::nullopt;
    }
    return std::nullopt;
  }();
  std::erase_if(workers, [&](const WorkerRecord& worker) { return !chosen || worker.device_id != *chosen; });
  if (workers.empty() && chosen) waiting[*chosen] += work_seconds(turn, request, *chosen);
}

std::string no_device_because(const Turn& turn, const processing::Request& request, const processing::Job& job) {
  const Use use = use_of(turn, request, job);
  const device::Route route = device::route_of(turn.tables.device.routes(), route_name(use.work));
  std::string why;
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    const DeviceId& id = entry.row.device_id;
    if (!route.any() && route.primary != id && route.secondary != id) continue;
    const WorkerRecord* worker = worker_of(turn, id);
    const std::string refused = refused_because(turn, id, use);
    if (refused.empty() && (route.any() || (worker != nullptr && hears(turn, *worker)))) return "";
    why += cat(why.empty() ? "" : "; ", refused.empty() ? cat(id.str(), " is not online") : refused);
  }
  if (why.empty() && !route.any()) why = cat("the routes of ", use.work, " name no device that is there");
  return why;
}

}  // namespace lockstep
