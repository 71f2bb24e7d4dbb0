#include "domains/memory/history.h"

#include <gtest/gtest.h>

namespace lockstep::memory {
namespace {

constexpr std::int64_t minute = 60'000;

TEST(UsageHistory, a_minute_has_the_mean_and_the_most_of_its_samples) {
  UsageHistory history;
  history.note("system_ram", {100 * minute}, 10_MiB, 0.5, PressureLevel::low);
  history.note("system_ram", {100 * minute + 59'999}, 30_MiB, 0.9, PressureLevel::high);
  history.note("system_ram", {101 * minute}, 50_MiB, 0.7, PressureLevel::low);
  history.note("gpu_0", {101 * minute}, 1_MiB, std::nullopt, PressureLevel::low);
  const UsageReport report = history.report();
  ASSERT_EQ(report.pools.size(), 2u);
  EXPECT_EQ(report.pools[0].pool, "gpu_0");
  EXPECT_FALSE(report.pools[0].hour.used_share_max.has_value());
  EXPECT_FALSE(report.pools[0].minutes[0].used_share_mean.has_value());
  const PoolUse& ram = report.pools[1];
  ASSERT_EQ(ram.minutes.size(), 2u);
  EXPECT_EQ(ram.minutes[0].from.text, Timestamp::of({100 * minute}).text);
  EXPECT_EQ(ram.minutes[0].samples, 2u);
  EXPECT_EQ(ram.minutes[0].held_mean, 20_MiB);
  EXPECT_EQ(ram.minutes[0].held_max, 30_MiB);
  EXPECT_DOUBLE_EQ(ram.minutes[0].used_share_mean->value, 0.7);
  EXPECT_DOUBLE_EQ(ram.hour.used_share_max->value, 0.9);
  EXPECT_EQ(ram.hour.held_mean, 30_MiB);  // of samples, not of minutes
  EXPECT_EQ(ram.hour.pressed, (std::map<std::string, std::uint32_t>{{"high", 1}}));
}

TEST(UsageHistory, an_hour_and_a_day_end_with_the_newest_minute_and_older_ones_are_forgotten) {
  UsageHistory history;
  for (std::int64_t at = 0; at < 2000; ++at) {
    history.note("p", {at * minute}, Bytes{static_cast<std::uint64_t>(at)}, std::nullopt, PressureLevel::low);
  }
  const PoolUse pool = history.report().pools.at(0);
  EXPECT_EQ(pool.minutes.size(), 60u);
  EXPECT_EQ(pool.hour.minutes, 60u);
  EXPECT_EQ(pool.hour.held_max, Bytes{1999});
  EXPECT_EQ(pool.hour.held_p95, Bytes{1996});  // the 57th of 1940 to 1999
  EXPECT_EQ(pool.day.minutes, 1440u);
  EXPECT_EQ(history.size(), 1440u);
  EXPECT_EQ(pool.day.held_mean, Bytes{(560 + 1999) / 2});
}

TEST(UsageHistory, a_clock_that_was_set_back_loses_nothing) {
  UsageHistory history;
  history.note("p", {100 * minute}, 1_MiB, std::nullopt, PressureLevel::low);
  history.note("p", {40 * minute}, 3_MiB, std::nullopt, PressureLevel::low);
  const PoolUse pool = history.report().pools.at(0);
  ASSERT_EQ(pool.minutes.size(), 1u);
  EXPECT_EQ(pool.minutes[0].held_mean, 2_MiB);
  EXPECT_EQ(pool.minutes[0].samples, 2u);
}

}  // namespace
}  // namespace lockstep::memory
