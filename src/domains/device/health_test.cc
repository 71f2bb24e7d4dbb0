#include "domains/device/health.h"

#include <gtest/gtest.h>

namespace lockstep::device {
namespace {

HealthLevel at(double temperature, HealthLevel before) {
  return judge({.temperature = temperature}, HealthLimits{}, before).level;
}

// §2.1: the specification's example, 72.5 degrees and no errors, is a healthy device.
TEST(DeviceHealth, the_printed_example_is_ok) { EXPECT_EQ(at(72.5, HealthLevel::ok), HealthLevel::ok); }

TEST(DeviceHealth, a_level_rises_at_its_limit) {
  EXPECT_EQ(at(82.9, HealthLevel::ok), HealthLevel::ok);
  EXPECT_EQ(at(83, HealthLevel::ok), HealthLevel::degraded);
  EXPECT_EQ(at(92, HealthLevel::ok), HealthLevel::critical);
}

TEST(DeviceHealth, a_level_falls_only_when_the_reading_is_clearly_below) {
  EXPECT_EQ(at(87.1, HealthLevel::critical), HealthLevel::critical);
  EXPECT_EQ(at(87, HealthLevel::critical), HealthLevel::degraded);
  EXPECT_EQ(at(78.1, HealthLevel::degraded), HealthLevel::degraded);
  EXPECT_EQ(at(78, HealthLevel::degraded), HealthLevel::ok);
}

TEST(DeviceHealth, errors_and_throttling_count_and_the_worst_wins) {
  EXPECT_EQ(judge({.errors = 10}, {}, HealthLevel::ok).level, HealthLevel::degraded);
  const Judgement worst = judge({.temperature = 84, .errors = 100}, {}, HealthLevel::ok);
  EXPECT_EQ(worst.level, HealthLevel::critical);
  EXPECT_EQ(worst.reason, "100 errors in 10 minutes, the limit of critical is 100");
  EXPECT_EQ(judge({.throttled = true}, {}, HealthLevel::ok).level, HealthLevel::degraded);
}

// A reading that the device does not give is no reason for anything.
TEST(DeviceHealth, an_absent_reading_is_not_judged) {
  EXPECT_EQ(judge({}, {}, HealthLevel::critical).level, HealthLevel::ok);
}

}  // namespace
}  // namespace lockstep::device
