#pragma once

// A worker's part of the sessions it was told of: which operations it did, how many may follow, whether they are
// paused (§1.4, §2.4). The orchestrator decides what starts; here is counted what was done.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/units.h"
#include "events/processing_events.h"

namespace lockstep::worker {

class SessionWork {
 public:
  /// A session that is told again, over a new link, goes on counting.
  void created(const ProcessingSessionCreated& message, WallTime now);
  /// False when the session is unknown here; cancel_operations forgets it.
  bool command(const SessionControlCommand& message);
  /// What runs now; empty: nothing.
  void running(const std::string& session, std::string operation);
  void done(const std::string& session, std::uint32_t operations);
  /// The session's progress as this worker knows it; absent for an unknown one.
  std::optional<SessionProgressUpdate> report(const std::string& session, WallTime now, Bytes memory_used,
                                              Percent utilization) const;

 private:
  struct Work {
    std::uint32_t expected = 0;  // of all workers together; 0: nobody knows
    std::uint32_t done = 0;
    bool paused = false;
    std::string running;
    WallTime since;
  };
  std::map<std::string, Work> sessions_;
};

}  // namespace lockstep::worker
