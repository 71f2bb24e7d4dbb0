#pragma once

// How many commands may be on their way to one device (§1.1 command queue throttling): a window of unanswered ones and
// a bucket of tokens, so that a burst of changes cannot flood a worker that is slow to apply them.

#include <algorithm>
#include <cstddef>

#include "base/units.h"

namespace lockstep::device {

struct CommandLimits {
  std::size_t unanswered_max = 4;
  double burst = 8;       // tokens of a full bucket
  double per_second = 4;  // tokens that come back
};

/// The bucket after `passed`, from what was in it.
constexpr double refilled(double tokens, Nanos passed, const CommandLimits& limits) {
  return std::min(limits.burst, tokens + limits.per_second * static_cast<double>(passed) / 1e9);
}

constexpr bool may_send(std::size_t unanswered, double tokens, const CommandLimits& limits) {
  return unanswered < limits.unanswered_max && tokens >= 1;
}

}  // namespace lockstep::device
