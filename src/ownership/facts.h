#pragma once

// Who owns what, by name (§1.1-1.6). A fact is something that one side knows and the other only hears of; an event
// tells the other side about facts of its sender; a critical sync point of the specification is where the two meet.
// The rows are in table.h. docs/ownership.md is printed from them.

#include <boost/describe.hpp>

namespace lockstep::ownership {

/// In the order of the specification. The last group is of the link itself (§3.5, §3.7).
enum class Fact {
  device_registry,
  device_availability,
  device_capabilities,
  device_policies,
  device_health,
  device_telemetry,
  ram_ledger,
  ram_pressure,
  memory_quotas,
  vram_ledger,
  vram_usage,
  vram_pressure,
  resource_demands,
  model_metadata,
  model_cache,
  model_placement,
  model_residency,
  model_runtime,
  sessions,
  workflows,
  operations,
  progress,
  requests,
  inference_capabilities,
  execution_context,
  results,
  pipelines,
  safety_policy,
  safety,
  quality,
  outputs,
  worker_lives,
  worker_presence,
  transactions,
  votes,
};
BOOST_DESCRIBE_ENUM(Fact, device_registry, device_availability, device_capabilities, device_policies, device_health,
                    device_telemetry, ram_ledger, ram_pressure, memory_quotas, vram_ledger, vram_usage, vram_pressure,
                    resource_demands, model_metadata, model_cache, model_placement, model_residency, model_runtime,
                    sessions, workflows, operations, progress, requests, inference_capabilities, execution_context,
                    results, pipelines, safety_policy, safety, quality, outputs, worker_lives, worker_presence,
                    transactions, votes)

/// The 24 critical sync points, four for each of §1.1-1.6, in the specification's words and order.
enum class SyncPoint {
  device_discovery_updates,
  capability_updates,
  configuration_changes,
  health_alerts,
  memory_pressure_alerts,
  system_memory_updates,
  allocation_requests,
  usage_reports,
  model_discovery_updates,
  loading_requests,
  loading_status,
  usage_metrics,
  session_creation,
  progress_updates,
  resource_requests,
  processing_completion_status,
  inference_requests,
  execution_status,
  result_delivery,
  performance_metrics,
  postprocessing_requests,
  safety_results,
  quality_metrics,
  postprocessing_completion_status,
};
BOOST_DESCRIBE_ENUM(SyncPoint, device_discovery_updates, capability_updates, configuration_changes, health_alerts,
                    memory_pressure_alerts, system_memory_updates, allocation_requests, usage_reports,
                    model_discovery_updates, loading_requests, loading_status, usage_metrics, session_creation,
                    progress_updates, resource_requests, processing_completion_status, inference_requests,
                    execution_status, result_delivery, performance_metrics, postprocessing_requests, safety_results,
                    quality_metrics, postprocessing_completion_status)

/// Who may read a fact beside its owner.
///
/// other_side  only over the link       people    orchestrator and people, by API and streams; never a worker
/// everyone    the other side and people
enum class Readers { other_side, people, everyone };
BOOST_DESCRIBE_ENUM(Readers, other_side, people, everyone)

}  // namespace lockstep::ownership
