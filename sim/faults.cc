// Faults that come from outside, at a time of their own.

#include <algorithm>

#include "base/text.h"
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
  if (partitions_.chance(300'000)) at(partitions_.between(0, options_.duration), [this] { partition(); });
}

/// A cable, a switch: shorter than a silence, or longer than silence and freeze together (6 s and 30 s).
void World::partition() {
  const Nanos length = seconds(partitions_.between(5, 60));
  const bool all = partitions_.chance(400'000);
  std::vector<Process*> present;
  for (auto& [pid, process] : processes_) {
    if (process->alive) present.push_back(process.get());
  }
  const auto which = static_cast<std::size_t>(partitions_.between(0, 999));
  if (present.empty() || !meets(all ? "partition_all" : "partition_one")) return;
  if (!all) present = {present[which % present.size()]};
  for (Process* each : present) cut_off(*each, now_ + length);
}

void World::cut_off(Process& process, Nanos until) {
  trace(process.worker_id.str(), cat("is cut off for ", (until - now_) / seconds(1), " s"));
  process.cut_off_until = std::max(process.cut_off_until, until);
  process.to_worker_at = std::max(process.to_worker_at, until);
  process.to_orchestrator_at = std::max(process.to_orchestrator_at, until);
  disturbed_until_ = std::max(disturbed_until_, until + seconds(2));
}

}  // namespace lockstep::sim
