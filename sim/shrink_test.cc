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
  EXPECT_GE(shrunk->kept.size(), 2u);
  EXPECT_LT(shrunk->kept.size(), run(seed(42)).met.size() / 4) << "most of it has nothing to do with the failure";
  Options again = seed(42);
  again.just.emplace(shrunk->kept.begin(), shrunk->kept.end());
  const Report report = run(again);
  EXPECT_EQ(judge(report), "both happened");
  EXPECT_EQ(std::set<Occurrence>(report.met.begin(), report.met.end()),
            std::set<Occurrence>(shrunk->kept.begin(), shrunk->kept.end()));
  for (const auto& one : shrunk->kept) {  // and none of it can be spared
    std::set<Occurrence> rest(shrunk->kept.begin(), shrunk->kept.end());
    rest.erase(one);
    Options without = seed(42);
    without.just.emplace(std::move(rest));
    EXPECT_EQ(judge(run(without)), "") << one.first;
  }
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
