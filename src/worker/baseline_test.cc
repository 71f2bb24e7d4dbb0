#include "worker/baseline.h"

#include <gtest/gtest.h>

namespace lockstep::worker {
namespace {

Baseline around(double mean, double swing, int readings) {
  Baseline baseline;
  for (int i = 0; i < readings; ++i) baseline.add(mean + (i % 2 == 0 ? swing : -swing));
  return baseline;
}

// §1.1 performance baseline establishment
TEST(Baseline, few_readings_are_no_baseline) {
  EXPECT_FALSE(around(50, 5, 29).deviation(500).has_value());
  EXPECT_TRUE(around(50, 5, 30).deviation(500).has_value());
}

TEST(Baseline, it_knows_mean_and_spread) {
  const Baseline baseline = around(50, 5, 200);
  EXPECT_NEAR(baseline.mean(), 50, 0.1);
  EXPECT_NEAR(baseline.spread(), 5, 0.2);
  EXPECT_NEAR(*baseline.deviation(60), 2, 0.1);
  EXPECT_NEAR(*baseline.deviation(40), -2, 0.1);
}

TEST(Baseline, a_flicker_of_what_hardly_varies_is_no_departure) {
  const Baseline baseline = around(40, 0, 100);
  EXPECT_LT(*baseline.deviation(41), Baseline::departs_at);
  EXPECT_GT(*baseline.deviation(60), Baseline::departs_at);
}

TEST(Baseline, one_outlier_moves_little_and_a_lasting_change_becomes_normal) {
  Baseline baseline = around(50, 5, 100);
  baseline.add(5000);
  EXPECT_NEAR(baseline.mean(), 50, 1);
  for (int i = 0; i < 500; ++i) baseline.add(100);
  EXPECT_NEAR(baseline.mean(), 100, 2);
}

TEST(Baseline, a_quantity_that_is_always_zero_has_no_deviation) {
  EXPECT_FALSE(around(0, 0, 50).deviation(1).has_value());
}

// §1.1 deviation detection
TEST(Baselines, what_departs_is_named_until_it_is_normal_again) {
  Baselines baselines;
  for (int i = 0; i < 50; ++i) {
    baselines.add("temperature", i % 2 == 0 ? 60.0 : 62.0);
    baselines.add("power_draw", 300);
  }
  EXPECT_TRUE(baselines.departing().empty());
  baselines.add("temperature", 95);
  ASSERT_EQ(baselines.departing().size(), 1u);
  const Deviation departs = baselines.departing()[0];
  EXPECT_EQ(departs.metric, "temperature");
  EXPECT_EQ(departs.value, 95);
  EXPECT_NEAR(departs.usual, 61, 0.5);
  EXPECT_GT(departs.deviations, 4);
  baselines.add("temperature", 61);
  EXPECT_TRUE(baselines.departing().empty());
}

TEST(Baselines, their_number_is_bounded) {
  Baselines baselines;
  for (int metric = 0; metric < 1000; ++metric) {
    for (int i = 0; i < 31; ++i) baselines.add(std::to_string(metric), 1);
    baselines.add(std::to_string(metric), 100);
  }
  EXPECT_EQ(baselines.departing().size(), 256u);
}

}  // namespace
}  // namespace lockstep::worker
