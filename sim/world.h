#pragma once

// The simulated world: one orchestrator, its workers, their processes, links, disk and clock in one thread, from one
// seed. The machines are the real ones (src/orchestrator, src/worker, src/runtime); only what carries their effects
// out is simulated. Same seed, same trace hash. docs/simulator.md.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/units.h"

namespace lockstep::sim {

/// A fault by its name, and which of its kind in this seed, from 1.
using Occurrence = std::pair<std::string, std::uint64_t>;

/// Where one life ends, in a world that runs a script: at the `number`-th of its points, from 1, after the crash
/// before.
///
/// where  orchestrator: its process, before an effect; power, kept, lost: its machine, at the end of a call that
///        changes the disk, and of what was not synced some, all or nothing is left; worker_0, worker_1: that process,
///        before an effect; cut, delayed: nobody ends, but the link breaks with that message of either side, or the
///        message comes late
struct Crash {
  std::string where;
  std::uint64_t number = 0;
  friend bool operator==(const Crash&, const Crash&) = default;
};

/// safety    the oracles look after every event; the run ends when its time is over, faults and all
/// liveness  faults stop, the world heals, and L1, L2, L5 and L6 must hold; what is judged after every event is not
enum class Mode { both, safety, liveness };

struct Options {
  std::uint64_t seed = 1;
  Mode mode = Mode::both;
  Nanos duration = seconds(60);  // with faults; then the world heals and must come to rest
  Nanos rest_limit = seconds(3600);
  int operations_min = 50;
  std::uint64_t transactions_min = 200;
  bool faults = true;
  std::set<std::string> only = {};                          // the faults that may happen; empty: all
  std::optional<std::set<Occurrence>> just = std::nullopt;  // of what was drawn, this happens and nothing else
  bool trace = false;                                       // print every event to stderr
  std::string script = {};                                  // a name of sim/script.h instead of clients and chance
  std::vector<Crash> crashes = {};                          // of a script, one after the other
};

struct Report {
  std::uint64_t seed = 0;
  std::uint64_t trace_hash = 0;
  double simulated_s = 0;
  std::uint64_t operations = 0;  // requests and cancellations sent by clients
  std::uint64_t completed = 0;   // requests that ended with images or a verdict
  std::uint64_t failed = 0;      // that ended with a reason
  std::uint64_t commits = 0;
  std::uint64_t transactions = 0;  // atomic changes of two domains or more: committed, or aborted by two-phase commit
  std::uint64_t aborted = 0;       // of these
  std::uint64_t spanning = 0;      // of these, commits of two domains or more
  std::uint64_t loads = 0;         // by two-phase commit, that were decided
  std::uint64_t images = 0;        // attempts at an image, each a saga of its own
  std::uint64_t rollbacks = 0;     // sagas that took delivered outputs back
  std::uint64_t snapshots = 0;     // of the journal
  std::uint64_t rejoins = 0;       // workers that came back over a new link
  std::uint64_t segments_adopted = 0;
  std::map<std::string, std::uint64_t> faults;  // every name of sim/faults.h, also those that were not met
  std::vector<Occurrence> met;                  // that were allowed to happen, in order
  std::vector<std::string> violations;
  std::size_t crashed = 0;                       // of a script's crashes
  std::map<std::string, std::uint64_t> points;   // met after the last of them, by where
  std::map<std::string, std::uint64_t> restart;  // of these, until two seconds after the next start
};

/// Runs one seed to its end. Stops at the first violation.
Report run(const Options& options);

}  // namespace lockstep::sim
