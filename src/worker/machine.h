#pragma once

// A worker as a pure machine, the participant's side of everything: it answers prepares, holds promises, hands tasks
// to handlers and turns their reports into messages. runtime/loop.h drives it; nothing of it is durable.

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "env/frame.h"
#include "events/device_events.h"
#include "events/link_messages.h"
#include "runtime/plan.h"
#include "transactions/participant.h"

namespace lockstep::worker {

using HandleId = std::uint64_t;  // a descriptor the environment keeps for the machine
using TaskId = std::uint64_t;

namespace in {
/// Open link, first thing.
struct Started {};
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
struct TaskProgress {
  TaskId task;
  std::string report;  // JSON, worker/reports.h
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
struct Telemetry {
  HealthMetrics health;
  Bytes used;  // of the budget, by what this process has mapped or allocated
  Ratio fragmentation;
};
}  // namespace in

struct Input {
  Nanos now = 0;
  WallTime wall;
  std::variant<in::Started, in::FrameArrived, in::LinkClosed, in::TimerFired, in::HandlersReady, in::TaskProgress,
               in::TaskDone, in::TaskFailed, in::Telemetry>
      what;
};

namespace out {
struct Send {
  Frame frame;
  std::vector<HandleId> handles;  // given up with the frame
};
/// kind "load", "release", "inference", "postprocess"; `handles` become the handler's.
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
/// The process ends, at once: nothing of it is durable and its memory goes back with it.
struct Exit {
  int status;
  std::string reason;
};
}  // namespace out

struct Effect {
  std::variant<out::Send, out::StartTask, out::CancelTask, out::DropHandle, out::ArmTimer, out::SampleTelemetry,
               out::Exit>
      what;
};

struct Identity {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid = 0;
  std::string version;
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

 private:
  struct Task {
    std::string kind;
    std::string subject;
    std::uint32_t attempt;
    ModelId model_id;    // load, release
    std::string run_id;  // inference, postprocess
  };
  struct Turn;

  void started(Turn& turn);
  void frame(Turn& turn, const in::FrameArrived& input);
  Status dispatch(Turn& turn, const Frame& frame, const Envelope& envelope, std::vector<HandleId>& handles);
  void timer(Turn& turn, const in::TimerFired& input);
  void progress(Turn& turn, const in::TaskProgress& input);
  void done(Turn& turn, const in::TaskDone& input);
  void failed(Turn& turn, const in::TaskFailed& input);
  void telemetry(Turn& turn, const in::Telemetry& input);
  void leave(Turn& turn, int status, std::string reason);
  template <class Body>
  void start(Turn& turn, Task task, const Body& body, std::vector<HandleId>& handles);
  template <class Body>
  void send(Turn& turn, FrameType type, const Body& body, std::uint32_t attempt = 0, std::string subject = {},
            std::vector<HandleId> handles = {}, Urgency urgency = Urgency::p2_normal);
  void send_failure(Turn& turn, const Task& task, std::string code, std::string message);

  Identity identity_;
  Epoch epoch_;  // 0 until the welcome
  DeviceId device_id_;
  Participant participant_{Bytes{}};
  std::map<TaskId, Task> tasks_;
  TaskId tasks_made_ = 0;
  std::uint64_t sequence_in_ = 0;
  std::uint64_t sequence_out_ = 0;
  std::uint64_t handler_progress_ = 0;
  std::uint64_t handler_failures_ = 0;
  Nanos heartbeat_ = 0;
  Nanos acknowledged_ = 0;  // when the last acknowledged heartbeat was seen
  bool handlers_ready_ = false;
  bool ended_ = false;
};

/// Without an acknowledgement for so long the worker fences itself: no new work, no claim to be the owner (§3.7).
inline constexpr Nanos self_fence = seconds(20);

}  // namespace lockstep::worker
