#pragma once

// Of a seed that fails, the fewest faults that still make it fail: delta debugging over what was met.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/world.h"

namespace lockstep::sim {

struct Shrunk {
  std::vector<Occurrence> kept;  // in the order of the first run
  std::string what;              // how the run with just these fails
  int runs = 0;
};

/// What is wrong with a run; empty when nothing is.
using Judge = std::function<std::string(const Report&)>;

std::string first_violation(const Report& report);

/// Two failures are the same when their sentences differ in numbers only. Nothing when the seed does not fail.
/// A run without a fault may go another way from there on: what is left is small, not always the smallest.
std::optional<Shrunk> shrink(Options options, const Judge& judge);

}  // namespace lockstep::sim
