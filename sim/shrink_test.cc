#include "sim/shrink.h"

#include <gtest/gtest.h>

namespace lockstep::sim {
namespace {

Options seed(std::uint64_t number) {
  Options options;
  options.seed = number;
  return options;
}

TEST(Shrink, what_a_failure_does_not_need_is_left_out_and_the_rest_replays) {
  const Judge judge = [](const Report& report) {
    return report.faults.at("worker_killed") > 0 && report.faults.at("asked_again") > 0 ? "both happened" : "";
  };
  const auto shrunk = shrink(seed(42), judge);
  ASSERT_TRUE(shrunk.has_value());
  ASSERT_EQ(shrunk->kept.size(), 2u);
  EXPECT_NE(shrunk->kept[0].first, shrunk->kept[1].first);
  Options again = seed(42);
  again.just.emplace(shrunk->kept.begin(), shrunk->kept.end());
  const Report report = run(again);
  EXPECT_EQ(judge(report), "both happened");
  EXPECT_EQ(report.met, shrunk->kept);
  EXPECT_EQ(report.faults.at("orchestrator_crash"), 0u);
}

TEST(Shrink, all_that_was_met_gives_the_same_run_again) {
  const Report first = run(seed(7));
  Options again = seed(7);
  again.just.emplace(first.met.begin(), first.met.end());
  EXPECT_EQ(run(again).trace_hash, first.trace_hash);
}

TEST(Shrink, a_seed_that_does_not_fail_has_nothing_to_shrink) {
  EXPECT_FALSE(shrink(seed(42), first_violation).has_value());
}

}  // namespace
}  // namespace lockstep::sim
