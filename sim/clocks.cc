// Clocks that run fast or slow, walls that jump, processes that exist and do nothing.

#include <utility>

#include "base/text.h"
#include "sim/simulation.h"

namespace lockstep::sim {

namespace {

// The worker fences itself 20 s after it was heard last, the orchestrator acts after 36 s: a ratio of 1.8 is tolerated
// (reference/consistency §3.4).
constexpr std::int64_t slowest = 1000 * 10 / 18 + 1;
constexpr std::int64_t fastest = 1800;

}  // namespace

void World::draw_clocks() {
  std::vector<WorkerId> nodes{guest};
  for (const auto& each : settings_.workers) nodes.push_back(each.worker_id);
  for (const WorkerId& each : nodes) {
    Clock& clock = node_clocks_[each];
    const std::int64_t rate = clocks_.chance(500'000) ? clocks_.between(slowest, 1000) : clocks_.between(1000, fastest);
    if (hits(clocks_, 600'000) && meets("clock_skew")) clock.rate = rate;
  }
}

void World::plan_clocks() {
  const auto some = [&](std::int64_t max, auto what) {
    for (std::int64_t i = clocks_.between(0, max); i > 0; --i) at(clocks_.between(0, options_.duration), what);
  };
  some(3, [this] { jump(); });
  some(3, [this] { pause_worker(); });
  some(1, [this] { pause_orchestrator(); });
}

Clock World::clock_of(const WorkerId& node) const {
  const auto place = node_clocks_.find(node);
  return place == node_clocks_.end() ? Clock{} : place->second;
}

/// A person or a time server sets a clock by up to an hour, forward or back.
void World::jump() {
  const Nanos by = clocks_.between(-seconds(3600), seconds(3600));
  const auto which = clocks_.between(0, 3);
  if (!meets("wall_jump")) return;
  if (which == 0 || processes_.empty()) {
    wall_ahead_ += by;
    return;
  }
  for (auto& [pid, process] : processes_) process->clock.wall_ahead += by;
  for (auto& [node, clock] : node_clocks_) clock.wall_ahead += by;
}

/// The process is stopped, or its whole machine: then its clock stands still too. Nobody is told.
void World::pause_worker() {
  const bool suspended = clocks_.chance(500'000);
  const Nanos length = milliseconds(clocks_.between(500, clocks_.chance(300'000) ? 60'000 : 8'000));
  const auto which = clocks_.between(0, 2);
  std::int64_t at_which = 0;
  for (auto& [pid, process] : processes_) {
    if (!process->alive || process->paused || !process->runs || at_which++ != which) continue;
    if (meets(suspended ? "worker_suspended" : "worker_paused")) pause(*process, length, suspended);
    return;
  }
}

void World::pause(Process& process, Nanos length, bool suspended) {
  trace(process.worker_id.str(), cat("stands still for ", length / 1'000'000, " ms"));
  process.paused = true;
  process.stalls_until = std::max(process.stalls_until, now_ + length);
  after(length, [this, pid = process.pid, suspended, length] {
    Process* awake = living(pid);
    if (awake == nullptr) return;
    if (suspended) awake->clock.stood_still += length;
    awake->paused = false;
    trace(awake->worker_id.str(), "goes on");
    for (auto& each : std::exchange(awake->when_awake, {})) each();
  });
}

void World::pause_orchestrator() {
  const Nanos length = milliseconds(clocks_.between(500, clocks_.chance(300'000) ? 40'000 : 6'000));
  if (!loop_ || paused_ || !meets("orchestrator_paused")) return;
  trace("orchestrator", cat("stands still for ", length / 1'000'000, " ms"));
  paused_ = true;
  disturbed_until_ = std::max(disturbed_until_, now_ + length);
  late_for_ = std::max(late_for_, length + seconds(2));
  after(length, [this, life = life_] {
    if (life != life_) return;
    paused_ = false;
    trace("orchestrator", "goes on");
    for (auto& each : std::exchange(when_awake_, {})) {
      if (life != life_) return;  // what ended it ends the rest too
      each();
      if (life == life_)
        check_invariants();  // each is an event of its own, and who was late may be late no more after it
    }
    if (life == life_) flush();
  });
}

void World::when_awake(std::function<void()> what) {
  if (!paused_) return what();
  when_awake_.push_back(std::move(what));
}

}  // namespace lockstep::sim
