#pragma once

// Processing domain messages, §2.4. A session here is a user's processing session, not a worker's link.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "events/described.h"
#include "events/words.h"

namespace lockstep {

struct SessionResources {
  AllocationPriority priority = AllocationPriority::normal;
  SizeText max_memory;
  std::vector<DeviceId> gpu_allocation;
};
BOOST_DESCRIBE_STRUCT(SessionResources, (), (priority, max_memory, gpu_allocation))

struct TimeoutSettings {
  DurationText operation_timeout;
  DurationText session_timeout;
};
BOOST_DESCRIBE_STRUCT(TimeoutSettings, (), (operation_timeout, session_timeout))

/// orchestrator -> worker
struct ProcessingSessionCreated {
  static constexpr std::string_view event_type = "processing_session_created";
  std::string session_id;
  std::string workflow_template;
  SessionResources resource_allocation;
  std::uint32_t expected_operations = 0;
  TimeoutSettings timeout_settings;
  static constexpr json::Rule rules[] = {{.member = "workflow_template", .words = "sdxl_generation_pipeline"}};
};
BOOST_DESCRIBE_STRUCT(ProcessingSessionCreated, (),
                      (session_id, workflow_template, resource_allocation, expected_operations, timeout_settings))

/// pause_operations   no new step until resume_operations
/// cancel_operations  the session ends
enum class SessionCommand { pause_operations, resume_operations, cancel_operations };
BOOST_DESCRIBE_ENUM(SessionCommand, pause_operations, resume_operations, cancel_operations)

/// orchestrator -> worker. resume_condition tells people what a pause waits for.
struct SessionControlCommand {
  static constexpr std::string_view event_type = "session_control_command";
  std::string session_id;
  SessionCommand command = SessionCommand::pause_operations;
  std::string reason;
  std::optional<std::string> resume_condition;
  static constexpr json::Rule rules[] = {
      {.member = "reason", .words = "memory_pressure_detected"},
      {.member = "resume_condition", .words = "memory_usage_below_80_percent"},
  };
};
BOOST_DESCRIBE_STRUCT(SessionControlCommand, (), (session_id, command, reason, resume_condition))

struct SessionProgress {
  std::uint32_t operations_completed = 0;
  std::uint32_t operations_remaining = 0;
  Timestamp estimated_completion;
};
BOOST_DESCRIBE_STRUCT(SessionProgress, (), (operations_completed, operations_remaining, estimated_completion))

struct SessionUsage {
  SizeText memory_used;
  Percent gpu_utilization;
};
BOOST_DESCRIBE_STRUCT(SessionUsage, (), (memory_used, gpu_utilization))

/// worker -> orchestrator
struct SessionProgressUpdate {
  static constexpr std::string_view event_type = "session_progress_update";
  std::string session_id;
  SessionProgress progress_metrics;
  std::string current_operation;
  SessionUsage resource_usage;
  static constexpr json::Rule rules[] = {{.member = "current_operation", .words = "inference_execution"}};
};
BOOST_DESCRIBE_STRUCT(SessionProgressUpdate, (), (session_id, progress_metrics, current_operation, resource_usage))

/// What a session needs from other domains before its operations can go on; either may be absent.
struct CoordinationRequest {
  std::optional<ModelId> requires_model_loading;
  std::optional<SizeText> requires_memory_allocation;
  AllocationPriority coordination_priority = AllocationPriority::normal;
};
BOOST_DESCRIBE_STRUCT(CoordinationRequest, (),
                      (requires_model_loading, requires_memory_allocation, coordination_priority))

/// worker -> orchestrator. dependent_operations of the session start only after it was granted. Without a request_id it
/// is named by what it is about, see coordination_id().
struct CrossDomainCoordination {
  static constexpr std::string_view event_type = "cross_domain_coordination";
  std::string session_id;
  CoordinationRequest coordination_request;
  std::vector<std::string> dependent_operations;
  std::optional<std::string> request_id;
  static constexpr json::Rule rules[] = {
      {.member = "dependent_operations", .words = "inference_refinement, postprocessing"}};
};
BOOST_DESCRIBE_STRUCT(CrossDomainCoordination, (), (session_id, coordination_request, dependent_operations, request_id))

/// Its request_id, or "<session_id>/<operation>+<operation>...", or the session alone when nothing depends on it.
std::string coordination_id(const CrossDomainCoordination& message);

/// What can be told from the message alone: a session, something that is required, sizes above zero, names within their
/// limits. invalid_argument names the field, the value and the limit.
Status check(const CrossDomainCoordination& message);

}  // namespace lockstep
