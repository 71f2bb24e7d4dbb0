#include "propagation/ordering.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

class OrderingTest : public testing::Test {
 protected:
  void intend(const std::string& worker, const std::string& type, std::uint64_t rev, const std::string& about = "gpu_0",
              const std::string& subject = "") {
    Delivery row;
    row.worker_id = WorkerId(worker);
    row.type = type;
    row.subject = subject;
    row.about = DeviceId(about);
    row.intended_rev = Rev{rev};
    store(row);
  }
  void confirm(const std::string& worker, const std::string& type) {
    Delivery row = tables.deliveries.at(cat(worker, "/", type, "/"));
    row.confirmed_by = Incarnation{1};
    row.confirmed_rev = row.intended_rev;
    store(row);
  }
  void store(const Delivery& row) {
    const FactChange change{"propagation.deliveries", delivery_key(row.worker_id, row.type, row.subject),
                            RawJson{json::to_text(row)}};
    ASSERT_TRUE(tables.deliveries.apply(change, row.intended_rev).has_value());
  }
  /// The targets that keep the change back, and what they have not applied.
  std::string held(const std::string& type, std::uint64_t rev, const std::string& about = "gpu_0") const {
    std::string out;
    for (const Delivery* row : held_by(tables, type, DeviceId(about), Rev{rev}, [&](const Delivery& each) {
           return is_pending(each, Incarnation{1}) && !late.contains(each.worker_id);
         })) {
      out += cat(out.empty() ? "" : " ", row->worker_id.str(), ":", row->type);
    }
    return out;
  }

  PropagationTables tables;
  std::set<WorkerId> late;
};

// §2.8: what stands in one stage does not wait for each other; a change does not wait for a later decision.
TEST_F(OrderingTest, one_stage_and_an_earlier_decision_do_not_wait) {
  intend("w0", "device_health_update", 5);
  EXPECT_EQ(held("device_routing_update", 6), "");
  EXPECT_EQ(held("vram_usage_update", 4), "");
  EXPECT_EQ(held("vram_usage_update", 5), "") << "of one decision, in one frame";
  EXPECT_EQ(held("vram_usage_update", 6), "w0:device_health_update");
}

// §2.8: device health -> memory status -> model availability -> processing readiness.
TEST_F(OrderingTest, a_stage_waits_until_the_one_before_is_applied_by_all) {
  intend("w0", "device_health_update", 1);
  intend("w1", "device_health_update", 1);
  EXPECT_EQ(held("vram_usage_update", 2), "w0:device_health_update w1:device_health_update");
  confirm("w0", "device_health_update");
  EXPECT_EQ(held("vram_usage_update", 2), "w1:device_health_update") << "one of two";
  confirm("w1", "device_health_update");
  EXPECT_EQ(held("vram_usage_update", 2), "");
  intend("w0", "vram_usage_update", 2);
  EXPECT_EQ(held("model_cache_update", 3), "w0:vram_usage_update");
  confirm("w0", "vram_usage_update");
  intend("w1", "model_cache_update", 3);
  EXPECT_EQ(held("session_control_command", 4), "w1:model_cache_update");
  EXPECT_EQ(held("inference_request", 4), "w1:model_cache_update");
}

// §2.8: memory allocation -> model loading -> inference readiness -> postprocessing preparation.
TEST_F(OrderingTest, a_load_waits_for_the_memory_and_postprocessing_for_its_policy) {
  intend("w0", "system_memory_allocated", 1);
  for (const char* later : {"model_load_request", "inference_request", "safety_policy_update"}) {
    EXPECT_EQ(held(later, 2), "w0:system_memory_allocated") << later;
  }
  confirm("w0", "system_memory_allocated");
  intend("w0", "safety_policy_update", 2);
  EXPECT_EQ(held("postprocessing_request", 3), "w0:safety_policy_update");
  EXPECT_EQ(held("inference_request", 3), "") << "it comes earlier in the chain";
}

TEST_F(OrderingTest, other_devices_and_what_has_no_stage_do_not_wait) {
  intend("w0", "device_health_update", 1);
  EXPECT_EQ(held("vram_usage_update", 2, "gpu_1"), "");
  EXPECT_EQ(held("device_config_update", 2), "");
  EXPECT_EQ(held("inference_progress", 2), "");
}

TEST_F(OrderingTest, a_late_target_leaves_the_set) {
  intend("w0", "device_health_update", 1);
  intend("w1", "device_health_update", 1);
  late = {WorkerId("w1")};
  EXPECT_EQ(held("vram_usage_update", 2), "w0:device_health_update");
  late = {WorkerId("w0"), WorkerId("w1")};
  EXPECT_EQ(held("vram_usage_update", 2), "");
}

TEST_F(OrderingTest, a_later_change_of_an_earlier_stage_holds_up_nothing_older) {
  intend("w0", "device_health_update", 5);
  EXPECT_EQ(held("vram_usage_update", 4), "");
  EXPECT_EQ(held("vram_usage_update", 5), "") << "of one decision: they travel together";
  EXPECT_EQ(held("vram_usage_update", 6), "w0:device_health_update");
}

TEST_F(OrderingTest, each_message_has_one_stage_in_a_chain_at_most) {
  std::set<std::pair<Chain, FrameType>> seen;
  for (const StageRow& row : ordering_table()) EXPECT_TRUE(seen.emplace(row.chain, row.type).second);
  EXPECT_EQ(stage_of(Chain::health, "model_cache_update"), 2);
  EXPECT_EQ(stage_of(Chain::health, "model_load_request"), std::nullopt);
}

}  // namespace
}  // namespace lockstep
