#pragma once

// A worker as a pure machine, the participant's side of everything: it answers prepares, holds promises, hands tasks
// to handlers and turns their reports into messages. Links come and go: what it holds, and answers that could not be
// sent, outlive a link and are told to the next one. runtime/loop.h drives it; nothing of it is durable.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "env/frame.h"
#include "events/device_events.h"
#include "events/envelope.h"
#include "events/inference_events.h"
#include "events/link_messages.h"
#include "events/memory_events.h"
#include "events/postprocessing_events.h"
#include "events/processing_events.h"
#include "propagation/facts.h"
#include "runtime/plan.h"
#include "transactions/participant.h"
#include "worker/baseline.h"
#include "worker/reports.h"
#include "worker/session_work.h"
#include "worker/told.h"

namespace lockstep::worker {

using HandleId = std::uint64_t;  // a descriptor the environment keeps for the machine
using TaskId = std::uint64_t;
/// Type and id: a memory_allocation_request and a cross_domain_coordination may have one id, and are two requests.
using RequestName = std::pair<std::string, std::string>;

namespace in {
/// The first thing for a worker that has no link yet.
struct DialNow {};
/// A link is open: inherited, or dialed.
struct LinkOpened {};
struct DialFailed {
  std::string reason;
};
struct FrameArrived {
  Frame frame;
  std::vector<HandleId> handles;
};
struct LinkClosed {
  std::string reason;
};
struct TimerFired {
  std::string name;
};
struct HandlersReady {};
/// What the device can do was found, after the worker's start.
struct CapabilitiesFound {
  DeviceCapabilityDiscovered found;
};
struct TaskProgress {
  TaskId task;
  std::string report;  // JSON, worker/reports.h
};
/// An image of a batch: the inference of this request id is done, and the task goes on.
struct TaskPart {
  TaskId task;
  std::string request_id;
  std::string report;
  std::vector<HandleId> handles;
};
struct TaskDone {
  TaskId task;
  std::string report;
  std::vector<HandleId> handles;
};
struct TaskFailed {
  TaskId task;
  std::string code;
  std::string message;
};
/// diagnostics: without deviations, which the machine knows.
struct Telemetry {
  HealthMetrics health;
  Bytes used;  // of the budget, by what this process has mapped or allocated
  Ratio fragmentation;
  DeviceDiagnostics diagnostics;
};
/// The program in this worker asks for memory that others manage (§2.2); request_answers() has the answer.
struct AskMemory {
  MemoryAllocationRequest request;
};
/// It asks other domains for what operations of a session need (§2.4); request_answers() has the answer, by
/// coordination_id().
struct Coordinate {
  CrossDomainCoordination request;
};
struct UpdateReservation {
  ReservationUpdate update;
};
/// The answer to a Calibrate: what was measured, or why nothing was.
struct Calibrated {
  TaskId task;
  Result<DeviceCapabilityDiscovered> found;
};
/// The answer to the SetPowerLimit of this number. refused: why it is not set; empty when it is.
struct PowerLimitSet {
  std::uint64_t number;
  std::string refused;
};
}  // namespace in

struct Input {
  Nanos now = 0;
  WallTime wall;
  std::variant<in::DialNow, in::LinkOpened, in::DialFailed, in::FrameArrived, in::LinkClosed, in::TimerFired,
               in::HandlersReady, in::CapabilitiesFound, in::TaskProgress, in::TaskPart, in::TaskDone, in::TaskFailed,
               in::Telemetry, in::AskMemory, in::Coordinate, in::UpdateReservation, in::PowerLimitSet, in::Calibrated>
      what;
};

namespace out {
struct Send {
  Frame frame;                        // not numbered: that is done as it leaves its lane
  std::vector<HandleId> handles;      // given up with the frame
  std::vector<HeldSegment> segments;  // kept descriptors whose duplicates ride behind the handles
  Passage passage;
};
/// Opens a link to the orchestrator's address; LinkOpened or DialFailed follows.
struct Dial {};
/// Nothing more is said or heard over the present link.
struct DropLink {};
/// Keeps a duplicate of a segment's descriptor.
struct KeepSegment {
  HandleId handle;
  ModelId model_id;
  std::string component;
};
struct ForgetSegments {
  ModelId model_id;
};
/// kind "load", "release", "inference", "inference_batch", "postprocess"; `handles` become the handler's.
struct StartTask {
  TaskId task;
  std::string kind;
  std::string body;  // JSON, worker/reports.h
  std::vector<HandleId> handles;
};
struct CancelTask {
  TaskId task;
};
struct DropHandle {
  HandleId handle;
};
struct ArmTimer {
  std::string name;
  Nanos deadline;
};
struct SampleTelemetry {};
/// Measures the device again, beside nothing else; Calibrated follows, at some time.
struct Calibrate {
  TaskId task;
};
/// Asks the driver; PowerLimitSet follows, at some time. Without watts: the driver's own limit again.
struct SetPowerLimit {
  std::uint64_t number;
  std::optional<std::uint32_t> watts;
};
/// The process ends, at once: nothing of it is durable and its memory goes back with it.
struct Exit {
  int status;
  std::string reason;
};
}  // namespace out

struct Effect {
  std::variant<out::Send, out::Dial, out::DropLink, out::KeepSegment, out::ForgetSegments, out::StartTask,
               out::CancelTask, out::DropHandle, out::ArmTimer, out::SampleTelemetry, out::SetPowerLimit,
               out::Calibrate, out::Exit>
      what;
};

/// incarnation      0 for a worker that dials: its first welcome says which it is
/// reconnect_limit  how long it looks for an orchestrator before it ends; 0: it ends with its link
struct Identity {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid = 0;
  std::string version;
  Nanos reconnect_limit = 0;
  std::optional<std::string> secret;
  std::optional<OfferedDevice> device;
  std::optional<DeviceCapabilityDiscovered> capabilities;  // told after each welcome; device_id is filled in
  std::optional<std::vector<std::string>> subscriptions;   // domains whose facts of other devices it hears; absent: all
  std::string schema_digest;                               // events/packed.h, of what it reads packed; empty: JSON only
};

class Machine {
 public:
  using Input = worker::Input;
  using Effect = worker::Effect;

  explicit Machine(Identity identity);

  Plan<Effect> step(const Input& input);
  Plan<Effect> settle(const Input&) { return {}; }  // every input is one decision
  void apply(const Commit& commit);                 // never: a worker has no durable state

  /// Bytes promised and held; the simulator compares them with the orchestrator's ledger.
  Bytes used() const { return participant_.used(); }
  const std::map<ModelId, LoadPlan>& holdings() const { return participant_.holdings(); }
  bool ended() const { return ended_; }
  bool knows_capabilities() const { return identity_.capabilities.has_value(); }
  std::uint64_t writes_refused() const { return writes_refused_; }
  /// What is set for its device and its memory, as it was applied.
  const DeviceChanges& settings() const { return state_.settings; }
  const MemoryPolicyChanges& memory_policy() const { return state_.memory_policy; }
  const Ordered<DeviceId>& routing() const { return state_.routing; }
  /// What the cache in RAM holds, as it was told last.
  const std::set<ModelId>& cached_models() const { return state_.cached_models; }
  /// All of what it was told and has applied, for its handlers.
  Told told() const;
  /// The newest rev of each change that was applied, by "<type>/<subject>".
  std::map<std::string, std::uint64_t> applied_revs() const;
  Bytes budget() const { return participant_.budget(); }
  /// Transactions that it would know again.
  std::size_t transactions_remembered() const { return participant_.remembered(); }
  /// What the orchestrator answered to requests of this worker; the 256 that came last.
  const std::map<RequestName, RequestAnswer>& request_answers() const { return request_answers_; }

 private:
  struct Task {
    std::string kind;
    Operation operation;
    ModelId model_id;                              // load, release, inference
    std::string run_id;                            // inference, postprocess
    std::vector<ModelId> models = {};              // postprocess: of its operations, in order
    std::map<std::string, Operation> images = {};  // inference_batch: those that are not answered, by run id
    std::size_t size = 1;                          // images that it began with
    Nanos began = 0;
  };
  /// Images that are to be one task. It begins when its order and all of them are here, whichever comes first.
  struct Batch {
    std::optional<InferenceOrchestration> order;
    ModelId model_id;
    std::map<std::string, Operation> images;  // by run id
    std::vector<InferenceTask> bodies;
  };
  /// How a loaded model has done since it was loaded.
  struct ModelRuntime {
    std::uint64_t inferences = 0;
    double inference_seconds = 0;  // of all of them
    bool warm = false;             // it did its work once here: what is made at the first use is there
    std::string optimization_level = "none";
  };
  /// The answer of a task, kept while there is no link to send it over.
  struct Answer {
    FrameType type;
    RawJson body;
    Operation operation;
    Placed placed;
    std::vector<HandleId> handles;
    ModelId model_id;  // load, release
  };
  struct Turn;
  /// What it was told and has applied; a snapshot replaces all of it.
  struct State {
    DeviceChanges settings;
    std::optional<double> temperature_critical;  // by the device's policy
    MemoryPolicyChanges memory_policy;
    Ordered<DeviceId> routing;
    std::optional<SystemMemoryAllocated> system_memory;
    std::set<ModelId> cached_models;
    std::optional<ModelCacheUpdate> cache_told;  // the newest: how full it is, beside the models
    std::optional<SafetyPolicyUpdate> safety_policy;
    std::map<DeviceId, Peer> peers;
    std::map<std::pair<std::string, std::string>, AppliedResult> applied;  // by type and subject
  };

  void link_opened(Turn& turn);
  void link_closed(Turn& turn, const std::string& reason);
  void dial_failed(Turn& turn, const std::string& reason);
  void welcome(Turn& turn, const FrameHeader& header, const Welcome& welcome);
  std::vector<Holding> inventory() const;
  void frame(Turn& turn, const in::FrameArrived& input);
  Status dispatch(Turn& turn, const Frame& frame, const Envelope& envelope, std::vector<HandleId>& handles);
  void timer(Turn& turn, const in::TimerFired& input);
  void progress(Turn& turn, const in::TaskProgress& input);
  void part(Turn& turn, const in::TaskPart& input);
  void done(Turn& turn, const in::TaskDone& input);
  void failed(Turn& turn, const in::TaskFailed& input);
  void telemetry(Turn& turn, const in::Telemetry& input);
  void begin_if_whole(Turn& turn, const std::string& batch_id);
  /// The picture of one inference; an error when the report is not one.
  Status image_done(Turn& turn, const Task& task, const std::string& report, std::vector<HandleId>& handles);
  void cancel(Turn& turn, const std::string& op_id);
  void tell_runtime(Turn& turn, const ModelId& model);
  void tell_capabilities(Turn& turn);
  void calibrate(Turn& turn, const DeviceCalibrate& order, Task task, bool fenced);
  void calibrated(Turn& turn, const in::Calibrated& input);
  template <class Request>
  void ask(Turn& turn, const std::string& id, const Request& request);
  void hear_answer(RequestAnswer answer);
  /// What the settings make of the budget that the welcome gave.
  void apply_budget();
  /// Applies the changes, all of them or, when one cannot be read, none; and answers each.
  Status change_state(Turn& turn, const StateChanges& changes, const Operation& operation);
  AppliedResult apply(Turn& turn, const StateEvent& event);
  void configure(Turn& turn, const DeviceConfigUpdate& update);
  /// What the driver said; the answers that waited for it leave.
  void power_limit_set(Turn& turn, const in::PowerLimitSet& input);
  void session_command(Turn& turn, const SessionControlCommand& message);
  /// What this worker did for the session, if it was told of it.
  void report_session(Turn& turn, const Task& task);
  void report_session(Turn& turn, const std::string& session);
  /// The model's bytes are free again.
  void forget(Turn& turn, const ModelId& model);
  void leave(Turn& turn, int status, std::string reason);
  template <class Body>
  void start(Turn& turn, Task task, const Body& body, std::vector<HandleId>& handles);
  /// Nothing, without a link that was welcomed: what is said there is about the moment.
  template <class Body>
  void send(Turn& turn, FrameType type, const Body& body, Operation operation = {});
  template <class Body>
  void transmit(Turn& turn, FrameType type, const Body& body, Operation operation, const Placed& placed,
                std::vector<HandleId> handles, std::vector<HeldSegment> segments);
  /// The answer of a task: now, or after the next welcome.
  template <class Body>
  void answer(Turn& turn, const Task& task, FrameType type, const Body& body, std::vector<HandleId> handles = {});
  void answer_failure(Turn& turn, const Task& task, std::string code, std::string message);

  Identity identity_;
  Epoch epoch_;  // 0 until the first welcome
  std::string cluster_id_;
  std::string token_;
  bool link_open_ = false;
  bool welcomed_ = false;   // over the present link
  Form form_ = Form::json;  // of what may cross packed over it
  bool keep_segments_ = false;
  Nanos dial_until_ = 0;  // 0 while there is a link
  Nanos dial_wait_ = 0;
  DeviceId device_id_;
  Bytes memory_budget_;  // of the welcome
  State state_;
  std::uint64_t power_orders_ = 0;                                // given to the driver
  bool power_awaited_ = false;                                    // it has not answered the last one
  std::optional<std::uint32_t> power_limit_;                      // that this process has set, and the driver has
  std::vector<std::pair<StateApplied, Operation>> held_answers_;  // tell of it, so they wait
  std::uint64_t beats_ = 0;
  Participant participant_{Bytes{}};
  std::map<TaskId, Task> tasks_;
  std::map<std::string, Batch> batches_;                  // not whole yet, by id
  std::vector<Answer> answers_;                           // in order, not sent yet
  std::map<ModelId, std::vector<HeldSegment>> segments_;  // kept
  std::map<ModelId, ModelRuntime> loaded_;
  Baselines baselines_;
  // Without a final answer; asked again after a welcome.
  std::map<RequestName, std::variant<MemoryAllocationRequest, CrossDomainCoordination>> asked_;
  std::map<RequestName, RequestAnswer> request_answers_;
  std::vector<RequestName> answers_heard_;  // the names of request_answers_, in the order in which they came
  SessionWork sessions_;
  Percent utilization_;                          // by the newest sample
  PressureLevel pressure_ = PressureLevel::low;  // that it told last: a level falls only clearly below its limit
  std::uint64_t messages_made_ = 0;
  TaskId tasks_made_ = 0;
  std::array<std::uint64_t, 4> sequence_in_{};  // of the last frame in each lane
  std::uint64_t handler_progress_ = 0;
  std::uint64_t writes_refused_ = 0;  // frames that tell of a fact of ours, or have no effect here
  std::uint64_t handler_failures_ = 0;
  Nanos heartbeat_ = 0;
  Nanos acknowledged_ = 0;  // when the last acknowledged heartbeat was seen
  bool handlers_ready_ = false;
  bool ended_ = false;
};

/// Between tries to reach an orchestrator: a local one is back within a second of its start.
inline constexpr Nanos dial_wait_first = milliseconds(50);
inline constexpr Nanos dial_wait_max = seconds(1);

/// Without an acknowledgement for so long the worker fences itself: no new work, no claim to be the owner (§3.7).
inline constexpr Nanos self_fence = seconds(20);

}  // namespace lockstep::worker
