#pragma once

// How long things took, in buckets with fixed bounds. Plain numbers: whoever observes brings the time.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"

namespace lockstep {

/// For work on images and models: 5 ms to 30 minutes.
inline constexpr std::array<Nanos, 16> work_bounds{
    milliseconds(5), milliseconds(10), milliseconds(25), milliseconds(50), milliseconds(100), milliseconds(250),
    seconds(1) / 2,  seconds(1),       seconds(5) / 2,   seconds(5),       seconds(10),       seconds(30),
    seconds(60),     seconds(300),     seconds(600),     seconds(1800)};
/// For a write that is synced: 50 us to 1 s.
inline constexpr std::array<Nanos, 13> sync_bounds{
    50'000,          100'000,          250'000,          500'000,          milliseconds(1),   2'500'000,
    milliseconds(5), milliseconds(10), milliseconds(25), milliseconds(50), milliseconds(100), milliseconds(250),
    seconds(1)};

/// Invariant: bounds rise; counts() has one more entry than bounds(), for what is above all of them.
class Histogram {
 public:
  explicit Histogram(std::span<const Nanos> bounds = work_bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}

  void observe(Nanos took) {
    std::size_t at = 0;
    while (at < bounds_.size() && took > bounds_[at]) ++at;
    ++counts_[at];
    ++count_;
    sum_ += took;
  }
  std::span<const Nanos> bounds() const { return bounds_; }
  const std::vector<std::uint64_t>& counts() const { return counts_; }
  std::uint64_t count() const { return count_; }
  Nanos sum() const { return sum_; }

 private:
  std::span<const Nanos> bounds_;
  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  Nanos sum_ = 0;
};

}  // namespace lockstep
