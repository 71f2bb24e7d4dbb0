// Faults that come from outside, at a time of their own.

#include "sim/simulation.h"

namespace lockstep::sim {

void World::plan_faults() {
  plan_disk_faults();
  plan_clocks();
  for (std::int64_t i = manners_.between(0, 6); i > 0; --i) {
    at(manners_.between(0, options_.duration), [this] { stranger_dials(); });
  }
  const auto times = [&](std::int64_t max) { return crashes_.between(0, max); };
  for (std::int64_t i = times(4); i > 0; --i) {
    at(crashes_.between(0, options_.duration), [this] {
      if (loop_ && permits("orchestrator_crash")) crash_orchestrator("by signal");
    });
  }
  for (std::int64_t i = times(6); i > 0; --i) {
    at(crashes_.between(0, options_.duration), [this] {
      for (auto& [pid, process] : processes_) {
        if (!process->alive || crashes_.chance(500'000)) continue;
        if (!meets("worker_killed")) return;
        return end_process(*process, "signal 9 (Killed)");
      }
    });
  }
}

}  // namespace lockstep::sim
