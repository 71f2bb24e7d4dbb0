#pragma once

// Chance in the simulator: independent streams from one seed, so that a new draw in one leaves the others alone.
// Our own distributions, since the standard library's are not the same everywhere.

#include <cstdint>

namespace lockstep::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {  // SplitMix64
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  /// From min to max, both included.
  std::int64_t between(std::int64_t min, std::int64_t max) {
    return min + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(max - min + 1));
  }
  /// True `per_million` times in a million.
  bool chance(std::uint64_t per_million) { return next() % 1'000'000 < per_million; }
  /// An independent stream.
  Random fork() { return Random(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace lockstep::sim
