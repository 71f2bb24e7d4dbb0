#pragma once

// How full each pool was, minute by minute, for a day: what a person needs to size a cache or a device. In memory only:
// a restart begins anew. §1.2 "Memory usage reporting and analytics".

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "events/memory_events.h"

namespace lockstep::memory {

/// held        bytes with an owner in the ledger
/// used_share  of the pool, by what the machine or the worker reports; absent where nobody reports
struct UsedMinute {
  Timestamp from;
  std::uint32_t samples = 0;
  Bytes held_mean;
  Bytes held_max;
  std::optional<Ratio> used_share_mean;
  std::optional<Ratio> used_share_max;
};
BOOST_DESCRIBE_STRUCT(UsedMinute, (), (from, samples, held_mean, held_max, used_share_mean, used_share_max))

/// Of the minutes in a span. held_p95: 95 of 100 minutes had no more at their fullest.
/// pressed  minutes that touched each level of pressure above low: {"moderate": 12, "high": 1}
struct UsedSpan {
  std::uint32_t minutes = 0;
  Bytes held_mean;
  Bytes held_p95;
  Bytes held_max;
  std::optional<Ratio> used_share_max;
  std::map<std::string, std::uint32_t> pressed;
};
BOOST_DESCRIBE_STRUCT(UsedSpan, (), (minutes, held_mean, held_p95, held_max, used_share_max, pressed))

struct PoolUse {
  std::string pool;
  UsedSpan hour;
  UsedSpan day;
  std::vector<UsedMinute> minutes;  // of the hour, oldest first
};
BOOST_DESCRIBE_STRUCT(PoolUse, (), (pool, hour, day, minutes))

struct UsageReport {
  std::vector<PoolUse> pools;
};
BOOST_DESCRIBE_STRUCT(UsageReport, (), (pools))

class UsageHistory {
 public:
  /// A clock that was set back adds to the newest minute.
  void note(const std::string& pool, WallTime now, Bytes held, std::optional<double> used_share, PressureLevel level);
  /// Spans end with the newest minute of each pool.
  UsageReport report() const;
  /// Minutes that are kept, of all pools.
  std::size_t size() const;

 private:
  struct Minute {
    std::int64_t number = 0;  // since 1970
    std::uint32_t samples = 0;
    std::uint32_t shares = 0;  // samples with one
    double held_sum = 0;
    Bytes held_max;
    double share_sum = 0;
    double share_max = 0;
    PressureLevel level = PressureLevel::low;
  };
  static UsedSpan span(const std::deque<Minute>& minutes, std::int64_t length);

  std::map<std::string, std::deque<Minute>> pools_;
};

/// Minutes that are kept of a pool.
inline constexpr std::int64_t usage_minutes = 24 * 60;

}  // namespace lockstep::memory
