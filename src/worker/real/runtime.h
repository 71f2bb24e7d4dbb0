#pragma once

// The worker runtime: a thread of its own that speaks the protocol and never waits for a handler or an interpreter.
// A handler's thread asks for the next task, reports progress and answers it; everything here is safe from any thread.
//
//   auto runtime = Runtime::from_environment();   // started by lockstep serve: the inherited link
//   auto runtime = Runtime::dial({...});          // started by anybody: it looks for the orchestrator
//   runtime->handlers_ready();
//   while (auto task = runtime->next_task(-1)) { ... task->done(json, fds); }

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "env/real/fd.h"
#include "env/real/tls_context.h"
#include "events/device_events.h"
#include "worker/told.h"

namespace lockstep::worker {

class Runtime;

/// A worker that nobody spawned.
///
/// address    the path of the orchestrator's worker socket (workers.sock in its data directory), or tls://host:port
/// secret     for a path: what stands in worker.secret there
/// tls        for tls://: our certificate, whose name is worker_id, its key, and the authority of the orchestrator's
/// device     "cpu" or "cuda"
/// memory     how much of the device lockstep may use
/// patience   how long it looks for an orchestrator, at the start and after each loss, before the process ends
struct DialOptions {
  std::string address;
  std::string worker_id;
  std::string secret;
  real::TlsFiles tls;
  std::string device = "cpu";
  Bytes memory;
  Nanos patience = seconds(30);
};

/// One task for a handler. It is answered exactly once, by done() or failed(); a second answer is dropped, and a task
/// that is destroyed unanswered has failed.
class Task {
 public:
  ~Task();
  const std::string& kind() const { return kind_; }
  const std::string& body() const { return body_; }
  /// The descriptors that came with it; once, then they are the caller's. Over a network they may still be on their
  /// way: this waits. data_loss when they did not arrive whole.
  Result<std::vector<real::Fd>> take_descriptors();
  /// Polled by the handler at each step and each copied chunk.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  /// Newest wins: a report that was not sent yet is overwritten.
  void progress(std::string report);
  /// One image of a batch, by its request_id: handed over while the task goes on. The runtime forgets one that was
  /// cancelled, and one that comes a second time.
  void part(std::string request_id, std::string report, std::vector<real::Fd> descriptors);
  void done(std::string report, std::vector<real::Fd> descriptors);
  void failed(std::string code, std::string message);

 private:
  friend class Runtime;
  struct Shared;
  Task() = default;
  std::uint64_t id_ = 0;
  std::string kind_;
  std::string body_;
  std::vector<real::Fd> descriptors_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> answered_{false};
  std::shared_ptr<Shared> shared_;
  std::mutex progress_mutex_;
  std::optional<std::string> progress_;  // not sent yet
};

class Runtime {
 public:
  /// Uses LOCKSTEP_LINK_FD, LOCKSTEP_WORKER and LOCKSTEP_INCARNATION; invalid_argument when one is missing.
  static Result<std::unique_ptr<Runtime>> from_environment();
  /// invalid_argument for an option that cannot be right; whether the orchestrator lets it in shows in the log.
  static Result<std::unique_ptr<Runtime>> dial(DialOptions options);
  ~Runtime();

  void handlers_ready();
  /// Waits up to `timeout_ms` (-1: for ever); nullptr on timeout. The process ends by itself when the link ends.
  std::shared_ptr<Task> next_task(int timeout_ms);
  /// What the framework's allocator says, where mappings do not tell (cuda). Any thread.
  void set_allocator(AllocatorStatistics statistics);
  /// Asks for memory that the orchestrator manages (§2.2): a memory_allocation_request as JSON. It is asked again after
  /// a lost link until its final answer has come. invalid_argument with the place for another body.
  Status ask_memory(const std::string& body);
  /// Asks other domains for what operations of a session need (§2.4): a cross_domain_coordination as JSON. As with
  /// ask_memory. Returns the id to ask request_answer() for.
  Result<std::string> coordinate(const std::string& body);
  /// A reservation_update as JSON: renews a granted reservation, or gives it back.
  Status update_reservation(const std::string& body);
  /// The newest request_answer to the request of this type ("memory_allocation_request", "cross_domain_coordination")
  /// and id, as JSON; nothing before the first has come. Waits for the runtime's thread.
  std::optional<std::string> request_answer(const std::string& request_type, const std::string& request_id);
  /// What this worker was told of what others decide (§2.1 to 2.6), as it is now. Waits for the runtime's thread.
  Told state();

 private:
  friend class Task;
  struct State;
  explicit Runtime(std::shared_ptr<State> state);
  template <class First>
  static std::unique_ptr<Runtime> started(std::shared_ptr<State> state, First first);
  std::shared_ptr<State> state_;
};

}  // namespace lockstep::worker
