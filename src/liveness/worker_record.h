#pragma once

// Which worker processes there are, and in which life (§3.7, design §6). A restarted process is a new incarnation and
// a new participant; an old one is never accepted again.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/transition_table.h"
#include "state/table.h"

namespace lockstep {

/// spawning  registered, the process may exist        online   said hello over its own link
/// ready     its handlers are there                   ending   told to end, or being killed
/// gone      proven dead: what it held is free
enum class WorkerState { spawning, online, ready, ending, gone };
BOOST_DESCRIBE_ENUM(WorkerState, spawning, online, ready, ending, gone)

enum class WorkerEvent { hello, rejoined, handlers_ready, told_to_end, proven_gone, registered };
BOOST_DESCRIBE_ENUM(WorkerEvent, hello, rejoined, handlers_ready, told_to_end, proven_gone, registered)

inline constexpr auto worker_lifecycle = transition_table<WorkerState, WorkerEvent>({
    {WorkerState::gone, WorkerEvent::registered, WorkerState::spawning},
    {WorkerState::spawning, WorkerEvent::hello, WorkerState::online},
    {WorkerState::online, WorkerEvent::handlers_ready, WorkerState::ready},
    // The same life over a new link, after a cut or a restart of the orchestrator.
    {WorkerState::spawning, WorkerEvent::rejoined, WorkerState::online},
    {WorkerState::online, WorkerEvent::rejoined, WorkerState::online},
    {WorkerState::ready, WorkerEvent::rejoined, WorkerState::online},
    {WorkerState::spawning, WorkerEvent::told_to_end, WorkerState::ending},
    {WorkerState::online, WorkerEvent::told_to_end, WorkerState::ending},
    {WorkerState::ready, WorkerEvent::told_to_end, WorkerState::ending},
    {WorkerState::ending, WorkerEvent::told_to_end, WorkerState::ending},
    {WorkerState::spawning, WorkerEvent::proven_gone, WorkerState::gone},
    {WorkerState::online, WorkerEvent::proven_gone, WorkerState::gone},
    {WorkerState::ready, WorkerEvent::proven_gone, WorkerState::gone},
    {WorkerState::ending, WorkerEvent::proven_gone, WorkerState::gone},
});
static_assert(worker_lifecycle.deterministic());

/// spawned  our process: it inherited its link, and dials the path when that ended
/// path     dialed the path socket: a process of this host that somebody else runs
/// tls      dialed over the network: its end can be seen in its silence only
enum class Origin { spawned, path, tls };
BOOST_DESCRIBE_ENUM(Origin, spawned, path, tls)

/// pid and start_ticks identify the process on this host (the ticks tell a reused pid apart); 0 until it was spawned,
/// and for a remote one. token_sha256 is of the secret that lets this incarnation come back over a new link.
/// subscriptions: the domains of which it hears what concerns other devices; absent: of all.
struct WorkerRecord {
  WorkerId worker_id;
  DeviceId device_id;
  Incarnation incarnation;
  WorkerState state = WorkerState::gone;
  std::int64_t pid = 0;
  std::uint64_t start_ticks = 0;
  std::uint32_t deaths_in_a_row = 0;  // without a ready in between
  std::string last_end;               // why the previous incarnation ended
  Origin origin = Origin::spawned;
  std::string token_sha256;
  std::optional<std::vector<std::string>> subscriptions;
  /// Before workers dialed in there was one way to begin, and none to come back.
  static constexpr std::string_view row_defaults = R"("origin":"spawned","token_sha256":"")";
};
BOOST_DESCRIBE_STRUCT(WorkerRecord, (),
                      (worker_id, device_id, incarnation, state, pid, start_ticks, deaths_in_a_row, last_end, origin,
                       token_sha256, subscriptions))

struct LivenessTables {
  Table<WorkerRecord> workers{"liveness.workers"};

  template <class F>
  void for_each_table(F&& f) {
    f(workers);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(workers);
  }
};

}  // namespace lockstep
