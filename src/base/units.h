#pragma once

// Bytes, shares and times as types. "8GB" on the wire is 8 * 2^30 (design §5); a text form is written back the
// way it came in, so SizeText and DurationText keep their text beside the number.

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lockstep {

struct Bytes {
  std::uint64_t value = 0;

  friend auto operator<=>(const Bytes&, const Bytes&) = default;
  friend Bytes operator+(Bytes a, Bytes b) { return {a.value + b.value}; }
  /// Never below zero: what is over budget has nothing left, not a huge remainder.
  friend Bytes operator-(Bytes a, Bytes b) { return {a.value > b.value ? a.value - b.value : 0}; }
  Bytes& operator+=(Bytes other) {
    value += other.value;
    return *this;
  }
};

constexpr Bytes operator""_KiB(unsigned long long n) { return {n << 10}; }
constexpr Bytes operator""_MiB(unsigned long long n) { return {n << 20}; }
constexpr Bytes operator""_GiB(unsigned long long n) { return {n << 30}; }

/// "8.2GB", "512MB", "16KB", "12B": the largest unit that leaves at least 1, one decimal, none when whole.
std::string to_text(Bytes bytes);
/// "8GB", "6.2GB", "512MB", "12B", "4096"; invalid_argument names the text otherwise.
Result<Bytes> bytes_from_text(std::string_view text);

struct Ratio {  // 0 to 1
  double value = 0;
  friend auto operator<=>(const Ratio&, const Ratio&) = default;
};
struct Percent {  // 0 to 100
  double value = 0;
  friend auto operator<=>(const Percent&, const Percent&) = default;
};

struct SizeText {
  std::string text = "0B";
  static SizeText of(Bytes bytes) { return {to_text(bytes)}; }
  Result<Bytes> bytes() const { return bytes_from_text(text); }
  friend bool operator==(const SizeText&, const SizeText&) = default;
};

/// Durations on one node's monotonic clock, in nanoseconds. Deadlines are points on the same scale.
using Nanos = std::int64_t;
constexpr Nanos milliseconds(std::int64_t n) { return n * 1'000'000; }
constexpr Nanos seconds(std::int64_t n) { return n * 1'000'000'000; }

/// "30s", "5min", "250ms", "2h".
Result<Nanos> duration_from_text(std::string_view text);

struct DurationText {
  std::string text = "0s";
  Result<Nanos> nanos() const { return duration_from_text(text); }
  friend bool operator==(const DurationText&, const DurationText&) = default;
};

/// Milliseconds since 1970 on the wall clock: for people and records, never for deadlines.
struct WallTime {
  std::int64_t ms = 0;
  friend auto operator<=>(const WallTime&, const WallTime&) = default;
};

/// RFC 3339 in UTC with milliseconds: "2025-07-12T10:30:45.123Z".
std::string to_rfc3339(WallTime time);
/// Accepts a whole second or up to nine decimals, and "Z" or "+hh:mm".
Result<WallTime> wall_from_rfc3339(std::string_view text);

/// A timestamp as the specification writes it; keeps the text it was read from.
struct Timestamp {
  std::string text = "1970-01-01T00:00:00Z";
  static Timestamp of(WallTime time) { return {to_rfc3339(time)}; }
  friend bool operator==(const Timestamp&, const Timestamp&) = default;
};

}  // namespace lockstep
