#pragma once

// When to stop starting a worker that never becomes ready (§3.7): a machine that imports a broken package every thirty
// seconds helps nobody, and its log hides the first reason. A pure rule over times that are given.
//
//   closed  --deaths_max deaths before ready, within window-->  open: set aside, with the reason
//   open    --trial_after-->  half open: one start is tried;  ready -> closed,  death -> open again
//   open    --a person asks-->  closed

#include <cstdint>
#include <deque>

#include "base/units.h"

namespace lockstep {

struct BreakerPolicy {
  std::uint32_t deaths_max = 5;
  // Five deaths by the start deadline of 120 s, the slowest way to fail, still fall into one window.
  Nanos window = seconds(600);
  Nanos trial_after = seconds(600);  // 0: only a person starts it again
};

/// The history of one worker's starts. Volatile on purpose: a restart of the orchestrator is a person's act too, and
/// what failed may be mended then. Times are on the monotonic clock and do not fall.
class Breaker {
 public:
  /// The worker died before it was ready. True when this opens the breaker, or opens it again after a trial.
  bool died(Nanos now, const BreakerPolicy& policy) {
    deaths_.push_back(now);
    while (deaths_.front() < now - policy.window) deaths_.pop_front();
    if (!open_ && deaths_.size() < policy.deaths_max) return false;
    while (deaths_.size() > policy.deaths_max) deaths_.pop_front();
    open_ = true;
    opened_at_ = now;
    return true;
  }
  /// It became ready, or a person asked for another start: the past is forgotten.
  void reset() { *this = {}; }

  bool open() const { return open_; }
  /// Whether an open breaker lets one start through now.
  bool trial_due(Nanos now, const BreakerPolicy& policy) const {
    return open_ && policy.trial_after > 0 && now >= opened_at_ + policy.trial_after;
  }
  Nanos opened_at() const { return opened_at_; }
  /// Deaths before ready inside the window, at most deaths_max.
  std::size_t deaths() const { return deaths_.size(); }

 private:
  bool open_ = false;
  Nanos opened_at_ = 0;
  std::deque<Nanos> deaths_;
};

}  // namespace lockstep
