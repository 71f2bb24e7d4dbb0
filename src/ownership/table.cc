#include "ownership/table.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::ownership {

namespace {

constexpr Side ours = Side::orchestrator;
constexpr Side theirs = Side::worker;
using enum Fact;
using enum Readers;

constexpr FactRow fact(Fact name, std::string_view section, Side owner, Readers readers,
                       std::array<std::string_view, 4> tables, std::string_view is) {
  return {name, section, owner, readers, tables, people_may_change(name), is};
}

constexpr std::array facts{
    fact(device_registry, "§1.1", ours, everyone, {"device.devices", "device.routing"},
         "which devices there are, and what goes where"),
    fact(device_availability, "§1.1", ours, everyone, {"device.devices"}, "online, offline or error, with the reason"),
    fact(device_capabilities, "§1.1", theirs, everyone, {"device.capabilities"},
         "what the hardware can do, with scores"),
    fact(device_policies, "§1.1", ours, everyone, {"device.configs"}, "use, limits, profiles, retry, calibration"),
    fact(device_health, "§1.1", theirs, everyone, {"device.health"}, "temperature, errors, throttling"),
    fact(device_telemetry, "§1.1", theirs, everyone, {}, "utilization, power, clocks: samples"),
    fact(ram_ledger, "§1.2", ours, everyone, {"memory.segments", "memory.grants"},
         "every byte of system RAM that was granted"),
    fact(ram_pressure, "§1.2", ours, everyone, {"memory.pressure"}, "how short the host is of memory"),
    fact(memory_quotas, "§1.2", ours, everyone, {"memory.policies"}, "limits by kind of operation, strategies"),
    fact(vram_ledger, "§1.2", ours, everyone, {"memory.allocations", "device.reservations", "memory.grants"},
         "every byte of a device that was granted, and who holds it"),
    fact(vram_usage, "§1.2", theirs, everyone, {}, "what allocator and driver say is used"),
    fact(vram_pressure, "§1.2", theirs, everyone, {"memory.pressure"}, "how short the device is of memory"),
    fact(resource_demands, "§1.2", theirs, everyone, {"operations.requests"}, "what a running operation still needs"),
    fact(model_metadata, "§1.3", ours, everyone, {"model.models"}, "which models there are, and what they are"),
    fact(model_cache, "§1.3", ours, everyone, {"memory.segments"}, "which components are in RAM, and their digests"),
    fact(model_placement, "§1.3", ours, everyone, {"model.residencies", "model.usages"},
         "which model shall be on which worker"),
    fact(model_residency, "§1.3", theirs, everyone, {"model.residencies"},
         "which model really is there; kept as the worker last said"),
    fact(model_runtime, "§1.3", theirs, everyone, {}, "warm or cold, latency, memory while it runs"),
    fact(sessions, "§1.4", ours, everyone, {"processing.sessions"}, "what belongs together, with its limits"),
    fact(workflows, "§1.4", ours, everyone, {"processing.jobs", "processing.templates"},
         "templates, steps, their order, and where each is"),
    fact(operations, "§1.4", theirs, everyone, {}, "what a worker is doing, and how it failed"),
    fact(progress, "§1.4", theirs, everyone, {}, "how far an operation is: samples"),
    fact(requests, "§1.5", ours, everyone, {"processing.requests", "processing.jobs", "idempotency.answers"},
         "prompts and parameters, attempts, cancellation"),
    fact(inference_capabilities, "§1.5", ours, everyone, {"inference.tunings"},
         "which kinds of inference which model allows, and with which defaults"),
    fact(execution_context, "§1.5", theirs, everyone, {}, "the running pipeline: step, batch, memory"),
    fact(results, "§1.5", theirs, everyone, {"inference.runs"}, "what an inference made; kept once it was accepted"),
    fact(pipelines, "§1.6", ours, everyone, {"postprocessing.runs"}, "which operations follow, in which order"),
    fact(safety_policy, "§1.6", ours, everyone, {"postprocessing.policies"},
         "what must be checked, and what is refused"),
    fact(safety, "§1.6", theirs, everyone, {"postprocessing.runs"}, "the verdict on one picture"),
    fact(quality, "§1.6", theirs, everyone, {"postprocessing.runs"}, "how good one picture is"),
    fact(outputs, "§1.6", ours, people, {"postprocessing.outputs"}, "finished images, by content"),
    fact(worker_lives, "§3.7", ours, everyone, {"liveness.workers", "orchestrator.identity"},
         "incarnations, epochs, who is let in"),
    fact(worker_presence, "§3.7", theirs, everyone, {}, "that a worker is there, ready, and alive"),
    fact(transactions, "§3.5", ours, everyone,
         {"transactions.decisions", "transactions.overrides", "transactions.sagas", "propagation.deliveries"},
         "what was asked, what was decided, and what workers shall know"),
    fact(votes, "§3.5", theirs, people, {}, "what a worker promises, and what it has carried out"),
};

using enum FrameType;

constexpr std::array events{
    EventRow{hello, theirs, {worker_presence}},
    EventRow{welcome, ours, {worker_lives}},
    EventRow{ready, theirs, {worker_presence}},
    EventRow{heartbeat, theirs, {worker_presence}},
    EventRow{heartbeat_ack, ours, {worker_lives}},
    EventRow{transaction_prepare, ours, {transactions}},
    EventRow{transaction_vote, theirs, {votes}},
    EventRow{transaction_commit, ours, {transactions}},
    EventRow{transaction_abort, ours, {transactions}},
    EventRow{transaction_ack, theirs, {votes}},
    EventRow{task_cancel, ours, {requests}},
    EventRow{task_failed, theirs, {operations}},
    EventRow{model_release, ours, {model_placement}},
    EventRow{model_released, theirs, {model_residency}},
    EventRow{refused, ours, {worker_lives}},
    EventRow{request_answer, ours, {ram_ledger, vram_ledger}},
    EventRow{state_changes, ours, {device_policies, memory_quotas}},  // each event in it is asked by itself as well
    EventRow{state_applied, theirs, {votes}},
    EventRow{reservation_update, theirs, {resource_demands}},
    EventRow{device_calibrate, ours, {device_policies}},
    EventRow{device_health_update, theirs, {device_health, device_telemetry}},
    EventRow{vram_usage_update, theirs, {vram_usage, vram_pressure}},
    EventRow{model_load_request, ours, {model_placement}},
    EventRow{model_loading_progress, theirs, {model_residency}},
    EventRow{inference_request, ours, {requests}},
    EventRow{inference_progress, theirs, {progress, execution_context}},
    EventRow{inference_completed, theirs, {results}},
    EventRow{postprocessing_request, ours, {pipelines}},
    EventRow{postprocessing_progress, theirs, {progress}},
    EventRow{postprocessing_completed, theirs, {safety, quality}},
    EventRow{device_config_update, ours, {device_policies}},
    EventRow{device_routing_update, ours, {device_registry}},
    EventRow{device_capability_discovered, theirs, {device_capabilities}},
    EventRow{system_memory_allocated, ours, {ram_ledger}},
    EventRow{memory_policy_update, ours, {memory_quotas}},
    EventRow{memory_allocation_request, theirs, {resource_demands}},
    EventRow{model_cache_update, ours, {model_cache, model_metadata}},
    EventRow{model_runtime_update, theirs, {model_runtime}},
    EventRow{processing_session_created, ours, {sessions, workflows}},
    EventRow{session_control_command, ours, {sessions}},
    EventRow{session_progress_update, theirs, {progress, operations}},
    EventRow{cross_domain_coordination, theirs, {resource_demands}},
    EventRow{inference_orchestration, ours, {workflows}},
    EventRow{safety_policy_update, ours, {safety_policy}},
};

using enum SyncPoint;

constexpr std::array syncs{
    SyncRow{device_discovery_updates, "§1.1", theirs, {hello, device_capability_discovered}},
    SyncRow{capability_updates, "§1.1", theirs, {device_capability_discovered}},
    SyncRow{configuration_changes, "§1.1", ours, {device_config_update, device_routing_update}},
    SyncRow{health_alerts, "§1.1", theirs, {device_health_update}},
    SyncRow{memory_pressure_alerts, "§1.2", theirs, {vram_usage_update}},
    SyncRow{system_memory_updates, "§1.2", ours, {system_memory_allocated, memory_policy_update}},
    SyncRow{allocation_requests, "§1.2", theirs, {memory_allocation_request}},
    SyncRow{usage_reports, "§1.2", theirs, {vram_usage_update}},
    SyncRow{model_discovery_updates, "§1.3", ours, {model_cache_update}},
    SyncRow{loading_requests, "§1.3", ours, {model_load_request, model_release}},
    SyncRow{loading_status, "§1.3", theirs, {model_loading_progress, model_released}},
    SyncRow{usage_metrics, "§1.3", theirs, {model_runtime_update}},
    SyncRow{session_creation, "§1.4", ours, {processing_session_created, session_control_command}},
    SyncRow{progress_updates, "§1.4", theirs, {session_progress_update}},
    SyncRow{resource_requests, "§1.4", theirs, {cross_domain_coordination}},
    SyncRow{processing_completion_status, "§1.4", theirs, {session_progress_update, task_failed}},
    SyncRow{inference_requests, "§1.5", ours, {inference_request, inference_orchestration}},
    SyncRow{execution_status, "§1.5", theirs, {inference_progress}},
    SyncRow{result_delivery, "§1.5", theirs, {inference_completed}},
    SyncRow{performance_metrics, "§1.5", theirs, {inference_completed}},
    SyncRow{postprocessing_requests, "§1.6", ours, {postprocessing_request, safety_policy_update}},
    SyncRow{safety_results, "§1.6", theirs, {postprocessing_completed}},
    SyncRow{quality_metrics, "§1.6", theirs, {postprocessing_completed}},
    SyncRow{postprocessing_completion_status, "§1.6", theirs, {postprocessing_completed, postprocessing_progress}},
};

// ---- what a defect in the tables would be, found by the compiler ---------------------------------------------------

template <class E>
constexpr std::size_t words = boost::mp11::mp_size<boost::describe::describe_enumerators<E>>::value;

constexpr bool facts_are_in_order() {
  for (std::size_t i = 0; i < facts.size(); ++i) {
    if (facts[i].fact != static_cast<Fact>(i)) return false;
    if (facts[i].people_may_change && facts[i].owner != ours) return false;
  }
  return facts.size() == words<Fact>;
}
static_assert(facts_are_in_order(), "a row for each fact, in order; people change nothing of a worker's");

/// Where each type's row stands, because it is asked for every frame; `events.size()` where there is none.
constexpr auto places = [] {
  std::array<std::uint8_t, 64> out{};
  out.fill(static_cast<std::uint8_t>(events.size()));
  for (std::size_t i = 0; i < events.size(); ++i) {
    out[static_cast<std::size_t>(events[i].type)] = static_cast<std::uint8_t>(i);
  }
  return out;
}();

constexpr const EventRow* find(FrameType type) {
  const auto number = static_cast<std::size_t>(type);
  return number < places.size() && places[number] < events.size() ? &events[places[number]] : nullptr;
}

constexpr bool events_tell_of_their_senders_facts() {
  for (const EventRow& row : events) {
    if (!row.writes[0] || find(row.type) != &row) return false;
    for (const auto& written : row.writes) {
      if (written && facts[static_cast<std::size_t>(*written)].owner != row.sender) return false;
    }
  }
  return events.size() == words<FrameType>;
}
static_assert(events_tell_of_their_senders_facts(), "a row for each frame type; it tells of its sender's facts only");

constexpr bool syncs_are_in_order() {
  for (std::size_t i = 0; i < syncs.size(); ++i) {
    if (syncs[i].point != static_cast<SyncPoint>(i) || !syncs[i].events[0]) return false;
    for (const auto& event : syncs[i].events) {
      if (event && find(*event)->sender != syncs[i].from) return false;
    }
  }
  return syncs.size() == words<SyncPoint>;
}
static_assert(syncs_are_in_order(), "a row for each sync point; its events go its way");

}  // namespace

std::span<const FactRow> fact_table() { return facts; }
std::span<const EventRow> event_table() { return events; }
std::span<const SyncRow> sync_table() { return syncs; }

const FactRow& row_of(Fact fact) {
  const auto place = static_cast<std::size_t>(fact);
  LOCKSTEP_CHECK(place < facts.size());
  return facts[place];
}

const EventRow* row_of(FrameType type) { return find(type); }

Status may_write(Side side, Fact fact) {
  const FactRow& row = row_of(fact);
  if (row.owner == side) return {};
  return fail(ErrorCode::not_owner, cat(json::enum_name(fact), " is the ", name_of(row.owner), "'s, not the ",
                                        name_of(side), "'s (", row.section, ")"));
}

Status may_send(Side side, FrameType type) {
  const EventRow* row = find(type);
  if (row == nullptr) return fail(ErrorCode::invalid_argument, cat("no frame has type ", static_cast<int>(type)));
  for (const auto& written : row->writes) {
    if (written) LOCKSTEP_TRY_STATUS(may_write(side, *written));
  }
  return {};
}

}  // namespace lockstep::ownership
