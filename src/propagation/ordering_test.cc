#include "propagation/ordering.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

using Ids = std::vector<Ordering::ChangeId>;

class OrderingTest : public testing::Test {
 protected:
  Ids add(Ordering::ChangeId id, int stage, std::set<WorkerId> targets, const std::string& key = "gpu_0",
          Chain chain = Chain::health) {
    return ordering.add({id, chain, key, stage, std::move(targets)}, now);
  }
  WorkerId w0{"w0"};
  WorkerId w1{"w1"};
  Nanos now = seconds(100);
  Ordering ordering{seconds(5)};
};

// §2.8: device health -> memory status -> model availability -> processing readiness.
TEST_F(OrderingTest, a_stage_waits_until_the_one_before_is_applied_by_all) {
  EXPECT_EQ(add(1, 0, {w0, w1}), Ids{1});
  EXPECT_EQ(add(2, 1, {w0}), Ids{});
  EXPECT_EQ(add(3, 2, {w0, w1}), Ids{});
  EXPECT_EQ(add(4, 3, {w1}), Ids{});
  EXPECT_EQ(ordering.applied(1, w0, now), Ids{}) << "one of two";
  EXPECT_EQ(ordering.applied(1, w1, now), Ids{2});
  EXPECT_EQ(ordering.applied(2, w0, now), Ids{3});
  EXPECT_EQ(ordering.applied(3, w1, now), Ids{});
  EXPECT_EQ(ordering.applied(3, w0, now), Ids{4});
  EXPECT_EQ(ordering.applied(4, w1, now), Ids{});
  EXPECT_EQ(ordering.waiting(), 0u);
  EXPECT_EQ(ordering.next_deadline(), std::nullopt);
}

TEST_F(OrderingTest, other_things_and_the_other_chain_do_not_wait) {
  EXPECT_EQ(add(1, 0, {w0}), Ids{1});
  EXPECT_EQ(add(2, 1, {w1}, "gpu_1"), Ids{2});
  EXPECT_EQ(add(3, 1, {w0}, "gpu_0", Chain::allocation), Ids{3});
  EXPECT_EQ(add(4, 0, {w0}), Ids{4}) << "the same stage is parallel";
  EXPECT_EQ(add(5, 1, {w0}), Ids{});
  EXPECT_EQ(ordering.applied(1, w0, now), Ids{});
  EXPECT_EQ(ordering.applied(4, w0, now), Ids{5});
}

TEST_F(OrderingTest, a_later_change_of_an_earlier_stage_holds_up_nothing_older) {
  EXPECT_EQ(add(1, 0, {w0}), Ids{1});
  EXPECT_EQ(add(2, 2, {w0}), Ids{});
  EXPECT_EQ(add(3, 1, {w0}), Ids{});
  EXPECT_EQ(ordering.applied(1, w0, now), (Ids{2, 3}));
}

TEST_F(OrderingTest, a_dead_target_leaves_the_set) {
  add(1, 0, {w0, w1});
  add(2, 1, {w1});
  add(3, 2, {w0});
  EXPECT_EQ(ordering.applied(1, w0, now), Ids{});
  EXPECT_EQ(ordering.gone(w1, now), (Ids{2, 3})) << "nobody is left to apply the second";
}

TEST_F(OrderingTest, a_late_target_leaves_the_set_at_its_deadline) {
  add(1, 0, {w0, w1});
  add(2, 1, {w0});
  EXPECT_EQ(ordering.next_deadline(), now + seconds(5));
  EXPECT_EQ(ordering.late(now + seconds(5) - 1), Ids{});
  EXPECT_EQ(ordering.late(now + seconds(5)), Ids{2});
  EXPECT_EQ(ordering.next_deadline(), now + seconds(10)) << "the second has its own time, from its release";
  EXPECT_EQ(ordering.applied(1, w1, now), Ids{}) << "an answer that comes too late changes nothing";
}

TEST(OrderingTable, both_chains_have_their_four_stages_and_samples_have_none) {
  std::map<Chain, std::map<int, std::string_view>> names;
  for (const StageRow& row : ordering_table()) {
    const auto [place, added] = names[row.chain].emplace(row.stage, row.name);
    EXPECT_EQ(place->second, row.name);
  }
  using Stages = std::map<int, std::string_view>;
  EXPECT_EQ(names[Chain::health], (Stages{{0, "Device Health"},
                                          {1, "Memory Status"},
                                          {2, "Model Availability"},
                                          {3, "Processing Readiness"}}));
  EXPECT_EQ(names[Chain::allocation], (Stages{{0, "Memory Allocation"},
                                              {1, "Model Loading"},
                                              {2, "Inference Readiness"},
                                              {3, "Postprocessing Preparation"}}));
  EXPECT_EQ(stage_of(Chain::health, FrameType::device_health_update, Condition::health_critical), 0);
  EXPECT_EQ(stage_of(Chain::health, FrameType::device_health_update, Condition::always), std::nullopt);
  EXPECT_EQ(stage_of(Chain::health, FrameType::vram_usage_update, Condition::pressure_high), 1);
  EXPECT_EQ(stage_of(Chain::allocation, FrameType::inference_progress, Condition::always), std::nullopt);
}

}  // namespace
}  // namespace lockstep
