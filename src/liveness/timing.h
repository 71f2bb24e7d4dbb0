#pragma once

// Every interval of liveness in one place, with its reason (§3.7, design §6).

#include <algorithm>
#include <cstdint>

#include "base/units.h"

namespace lockstep {

struct LivenessTiming {
  Nanos heartbeat = seconds(2);            // from the worker's C++ thread, so a busy interpreter does not stop it
  Nanos silence = seconds(6);              // three missed heartbeats: nothing new is sent there
  Nanos freeze = seconds(30);              // §3.7; then a local worker is killed, which is the proof that it is gone
  Nanos start_deadline = seconds(120);     // imports of a cold disk included
  Nanos progress_deadline = seconds(120);  // a task that reports nothing for so long is hung
  Nanos rejoin = seconds(10);              // a local worker without its link is back by then, or it is ended
  Nanos rejoin_remote = seconds(36);       // silence + freeze: by then a remote worker has fenced itself (§3.7)
  Nanos cancel_grace = seconds(20);        // a cancelled task that does not stop by then loses its process
  Nanos drain_limit = seconds(30);         // after SIGTERM
};

/// How long to wait before the next incarnation: at once the first time, then 0.5 s doubling to 30 s.
constexpr Nanos restart_backoff(std::uint32_t deaths_in_a_row) {
  if (deaths_in_a_row <= 1) return 0;
  const std::uint32_t doublings = std::min<std::uint32_t>(deaths_in_a_row - 2, 6);
  return std::min(milliseconds(500) << doublings, seconds(30));
}

}  // namespace lockstep
