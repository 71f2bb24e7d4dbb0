#include "domains/memory/history.h"

#include <algorithm>

#include "events/json_write.h"

namespace lockstep::memory {

void UsageHistory::note(const std::string& pool, WallTime now, Bytes held, std::optional<double> used_share,
                        PressureLevel level) {
  std::deque<Minute>& minutes = pools_[pool];
  const std::int64_t number = now.ms / 60'000;
  if (minutes.empty() || number > minutes.back().number) minutes.push_back({.number = number});
  Minute& minute = minutes.back();
  ++minute.samples;
  minute.held_sum += static_cast<double>(held.value);
  minute.held_max = std::max(minute.held_max, held);
  minute.level = std::max(minute.level, level);
  if (used_share) {
    ++minute.shares;
    minute.share_sum += *used_share;
    minute.share_max = std::max(minute.share_max, *used_share);
  }
  while (minutes.front().number <= minutes.back().number - usage_minutes) minutes.pop_front();
}

std::size_t UsageHistory::size() const {
  std::size_t sum = 0;
  for (const auto& [name, minutes] : pools_) sum += minutes.size();
  return sum;
}

UsedSpan UsageHistory::span(const std::deque<Minute>& minutes, std::int64_t length) {
  UsedSpan out;
  std::vector<Bytes> fullest;
  double sum = 0;
  std::uint64_t samples = 0;
  for (const Minute& each : minutes) {
    if (each.number <= minutes.back().number - length) continue;
    fullest.push_back(each.held_max);
    sum += each.held_sum;
    samples += each.samples;
    if (each.shares > 0)
      out.used_share_max = Ratio{std::max(out.used_share_max.value_or(Ratio{0}).value, each.share_max)};
    if (each.level != PressureLevel::low) ++out.pressed[std::string(json::enum_name(each.level))];
  }
  if (fullest.empty()) return out;
  out.minutes = static_cast<std::uint32_t>(fullest.size());
  out.held_mean = Bytes{static_cast<std::uint64_t>(sum / static_cast<double>(samples))};
  std::ranges::sort(fullest);
  out.held_p95 = fullest[(fullest.size() * 95 + 99) / 100 - 1];
  out.held_max = fullest.back();
  return out;
}

UsageReport UsageHistory::report() const {
  constexpr std::int64_t hour = 60;
  UsageReport out;
  for (const auto& [name, minutes] : pools_) {
    PoolUse pool{name, span(minutes, hour), span(minutes, usage_minutes), {}};
    for (const Minute& each : minutes) {
      if (each.number <= minutes.back().number - hour) continue;
      UsedMinute& one = pool.minutes.emplace_back();
      one.from = Timestamp::of({each.number * 60'000});
      one.samples = each.samples;
      one.held_mean = Bytes{static_cast<std::uint64_t>(each.held_sum / each.samples)};
      one.held_max = each.held_max;
      if (each.shares == 0) continue;
      one.used_share_mean = Ratio{each.share_sum / each.shares};
      one.used_share_max = Ratio{each.share_max};
    }
    out.pools.push_back(std::move(pool));
  }
  return out;
}

}  // namespace lockstep::memory
