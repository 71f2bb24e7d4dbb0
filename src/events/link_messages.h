#pragma once

// What crosses a worker link beside the events of §2: joining, liveness, the two-phase commit (§3.5), failure of a
// task, release of a model. The frame header (env/frame.h) carries type, epoch, incarnation and sequence; the body
// is one Envelope (events/envelope.h). docs/formats/wire.md.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/json_write.h"
#include "events/state_messages.h"

namespace lockstep {

/// The number stands in the frame header; a new type goes to the end.
enum class FrameType : std::uint16_t {
  hello = 1,
  welcome = 2,
  ready = 3,
  heartbeat = 4,
  heartbeat_ack = 5,
  transaction_prepare = 6,
  transaction_vote = 7,
  transaction_commit = 8,
  transaction_abort = 9,
  transaction_ack = 10,
  task_cancel = 11,
  task_failed = 12,
  model_release = 13,
  model_released = 14,
  refused = 15,
  state_changes = 16,
  state_applied = 17,
  request_answer = 18,
  reservation_update = 20,
  device_calibrate = 21,
  // the events of §2.1-2.6 that the path uses
  device_health_update = 32,
  vram_usage_update = 33,
  model_load_request = 34,
  model_loading_progress = 35,
  inference_request = 36,
  inference_progress = 37,
  inference_completed = 38,
  postprocessing_request = 39,
  postprocessing_progress = 40,
  postprocessing_completed = 41,
  // the others of §2.1-2.6
  device_config_update = 42,
  device_routing_update = 43,
  device_capability_discovered = 44,
  system_memory_allocated = 45,
  memory_policy_update = 46,
  memory_allocation_request = 47,
  model_cache_update = 48,
  model_runtime_update = 49,
  processing_session_created = 50,
  session_control_command = 51,
  session_progress_update = 52,
  cross_domain_coordination = 53,
  inference_orchestration = 54,
  safety_policy_update = 55,
};
BOOST_DESCRIBE_ENUM(FrameType, hello, welcome, ready, heartbeat, heartbeat_ack, transaction_prepare, transaction_vote,
                    transaction_commit, transaction_abort, transaction_ack, task_cancel, task_failed, model_release,
                    model_released, refused, state_changes, state_applied, request_answer, reservation_update,
                    device_calibrate, device_health_update, vram_usage_update, model_load_request,
                    model_loading_progress, inference_request, inference_progress, inference_completed,
                    postprocessing_request, postprocessing_progress, postprocessing_completed, device_config_update,
                    device_routing_update, device_capability_discovered, system_memory_allocated, memory_policy_update,
                    memory_allocation_request, model_cache_update, model_runtime_update, processing_session_created,
                    session_control_command, session_progress_update, cross_domain_coordination,
                    inference_orchestration, safety_policy_update)

/// promised   voted for, not decided        loading, releasing   a handler works on it, or its answer is on the way
/// committed  decided, no load was begun    loaded               it can be used
enum class HoldingState { promised, committed, loading, loaded, releasing };
BOOST_DESCRIBE_ENUM(HoldingState, promised, committed, loading, loaded, releasing)

/// A model whose bytes the worker counts as used.
struct Holding {
  TransactionId transaction_id;
  ModelId model_id;
  Bytes bytes;
  HoldingState state = HoldingState::promised;
};
BOOST_DESCRIBE_STRUCT(Holding, (), (transaction_id, model_id, bytes, state))

/// A cache segment the worker maps; its descriptor rides with the hello, in the order of the list.
struct HeldSegment {
  ModelId model_id;
  std::string component;
  std::string sha256;  // of the component's files, as the load plan said
};
BOOST_DESCRIBE_STRUCT(HeldSegment, (), (model_id, component, sha256))

/// A task that runs, or whose answer was not sent yet and follows the welcome.
struct HeldTask {
  std::string op_id;
  std::uint32_t attempt = 0;
};
BOOST_DESCRIBE_STRUCT(HeldTask, (), (op_id, attempt))

/// The device of a worker that no configuration names. kind "cpu" or "cuda"; memory_budget is what lockstep may use.
struct OfferedDevice {
  std::string kind = "cpu";
  Bytes memory_budget;
};
BOOST_DESCRIBE_STRUCT(OfferedDevice, (), (kind, memory_budget))

/// What a worker that was here before still has: a new link continues its incarnation.
struct Rejoin {
  std::string cluster_id;
  std::string token;  // of its last welcome
  Epoch last_epoch;
  std::vector<Holding> holdings;
  std::vector<HeldTask> tasks;
  std::vector<HeldSegment> segments;
};
BOOST_DESCRIBE_STRUCT(Rejoin, (), (cluster_id, token, last_epoch, holdings, tasks, segments))

/// worker -> orchestrator, first frame. `secret` and `device` come with the first hello of a worker that dialed.
/// subscriptions: the domains of which it wants to hear what concerns other devices; absent: of all.
/// schema_digest: it reads packed messages of this schema; absent: JSON only.
struct Hello {
  WorkerId worker_id;
  std::string runtime_version;
  std::int64_t pid = 0;
  std::optional<std::string> secret;
  std::optional<OfferedDevice> device;
  std::optional<Rejoin> rejoin;
  std::optional<std::vector<std::string>> subscriptions;
  std::optional<std::string> schema_digest;
  static constexpr json::Rule rules[] = {
      {.member = "subscriptions", .words = "device, memory, model, processing, inference, postprocessing"}};
};
BOOST_DESCRIBE_STRUCT(Hello, (),
                      (worker_id, runtime_version, pid, secret, device, rejoin, subscriptions, schema_digest))

/// orchestrator -> worker. `token` proves the next hello of this incarnation; with `keep_segments` the worker keeps
/// the descriptors of what it maps, and returns them when it rejoins. schema_digest: as in the hello.
struct Welcome {
  DeviceId device_id;
  Bytes memory_budget;
  std::uint64_t heartbeat_ms = 2000;
  std::string cluster_id;
  std::string token;
  bool keep_segments = false;
  std::optional<std::string> schema_digest;
};
BOOST_DESCRIBE_STRUCT(Welcome, (), (device_id, memory_budget, heartbeat_ms, cluster_id, token, keep_segments,
                                  schema_digest))

/// orchestrator -> worker that dialed: it is not let in. With `retry` the same hello may succeed later.
struct Refused {
  std::string reason;
  bool retry = false;
};
BOOST_DESCRIBE_STRUCT(Refused, (), (reason, retry))

/// queued is an interim answer, with an estimate; granted and denied are final, and exactly one of them comes.
enum class RequestOutcome { granted, queued, denied };
BOOST_DESCRIBE_ENUM(RequestOutcome, granted, queued, denied)

/// What the requester may hold now. Without `until` it holds until the requester gives it back or is gone.
struct GrantedReservation {
  AllocationId allocation_id;
  Bytes bytes;
  std::optional<Timestamp> until;
};
BOOST_DESCRIBE_STRUCT(GrantedReservation, (), (allocation_id, bytes, until))

/// orchestrator -> worker: the answer to a request-type event (memory_allocation_request, cross_domain_coordination).
/// request_type is the event's name, request_id its own; "<session_id>/<operation>" for an event that has none.
/// `reason` is there with denied. conflict: the id is taken by another body; the first request is as it was.
struct RequestAnswer {
  std::string request_type;
  std::string request_id;
  RequestOutcome outcome = RequestOutcome::denied;
  std::optional<GrantedReservation> reservation;
  std::optional<Timestamp> estimated_start;
  std::optional<std::string> reason;
  std::optional<bool> conflict;
};
BOOST_DESCRIBE_STRUCT(RequestAnswer, (),
                      (request_type, request_id, outcome, reservation, estimated_start, reason, conflict))

/// worker -> orchestrator: a granted reservation is held for `lasts` from now on; without it, it is given back.
struct ReservationUpdate {
  AllocationId allocation_id;
  std::optional<DurationText> lasts;
};
BOOST_DESCRIBE_STRUCT(ReservationUpdate, (), (allocation_id, lasts))

struct Ready {};  // worker -> orchestrator: the handlers are there
BOOST_DESCRIBE_STRUCT(Ready, (), ())

/// handler_progress rises with every report of a handler: alive is not progressing. writes_refused counts frames of
/// the orchestrator's that told of a fact of the worker's, or that this worker does nothing with; absent: none.
struct Heartbeat {
  std::uint64_t handler_progress = 0;
  std::uint32_t tasks_running = 0;
  std::optional<std::uint64_t> writes_refused;
};
BOOST_DESCRIBE_STRUCT(Heartbeat, (), (handler_progress, tasks_running, writes_refused))

struct ComponentPlan {
  std::string name;
  Bytes bytes;                      // of the segment
  std::string sha256;               // of the component's files
  std::optional<ModelId> model_id;  // whose it is, when not the loaded model's: a single file borrows configuration
};
BOOST_DESCRIBE_STRUCT(ComponentPlan, (), (name, bytes, sha256, model_id))

/// The full redo of the worker's branch: after a yes vote nothing it needs can be missing.
struct LoadPlan {
  ModelId model_id;
  std::string kind;  // "sdxl", "upscaler", "safety_classifier"
  std::string path;  // the folder that the configuration is of; all that a load needs of it comes as a component
  Bytes bytes;       // what it will hold on the device: the weights
  std::vector<ComponentPlan> components;
};
BOOST_DESCRIBE_STRUCT(LoadPlan, (), (model_id, kind, path, bytes, components))

struct TransactionPrepare {
  TransactionId transaction_id;
  LoadPlan load;
};
BOOST_DESCRIBE_STRUCT(TransactionPrepare, (), (transaction_id, load))

enum class Vote { vote_commit, vote_abort };
BOOST_DESCRIBE_ENUM(Vote, vote_commit, vote_abort)

struct TransactionVote {
  TransactionId transaction_id;
  Vote prepare_result = Vote::vote_abort;
  std::string reason;  // empty with vote_commit
};
BOOST_DESCRIBE_STRUCT(TransactionVote, (), (transaction_id, prepare_result, reason))

struct TransactionDecision {  // body of transaction_commit and transaction_abort
  TransactionId transaction_id;
};
BOOST_DESCRIBE_STRUCT(TransactionDecision, (), (transaction_id))

struct TransactionAck {
  TransactionId transaction_id;
};
BOOST_DESCRIBE_STRUCT(TransactionAck, (), (transaction_id))

struct TaskCancel {};
BOOST_DESCRIBE_STRUCT(TaskCancel, (), ())

struct TaskFailed {
  std::string code;  // a name of base/error_table.h
  std::string message;
};
BOOST_DESCRIBE_STRUCT(TaskFailed, (), (code, message))

/// orchestrator -> idle worker: measure the device again, and forget what was usual on it. The answer is a
/// device_capability_discovered, or a task_failed, of the same op_id. §1.1
struct DeviceCalibrate {
  DeviceId device_id;
};
BOOST_DESCRIBE_STRUCT(DeviceCalibrate, (), (device_id))

struct ModelRelease {
  ModelId model_id;
};
BOOST_DESCRIBE_STRUCT(ModelRelease, (), (model_id))

/// bytes_mapped is what the worker still finds of the model in its own mappings: 0 when the release is complete.
struct ModelReleased {
  ModelId model_id;
  Bytes bytes_mapped;
};
BOOST_DESCRIBE_STRUCT(ModelReleased, (), (model_id, bytes_mapped))

}  // namespace lockstep
