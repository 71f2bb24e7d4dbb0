// §2.1 steps 4 to 6, §2.7, §2.8: what is decided reaches those whom it concerns, in order, whole, and is confirmed; one
// that does not answer is told again, and delays nobody else.

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

class Design_2_8_delivery : public testing::Test {
 protected:
  Design_2_8_delivery() : stage(settings_of(3)) {
    stage.ready();
    stage.applies = false;
  }

  void set(const std::string& path, const std::string& body) {
    stage.input(in::Set{++replies, path, false, body});
    ASSERT_EQ(stage.all<out::Reply>().back().status, 200) << stage.all<out::Reply>().back().body;
  }
  void route() { set("routing", R"({"routing_table":{"inference_primary":"gpu_0","inference_secondary":"gpu_1"}})"); }
  void heat(const std::string& worker, const DeviceId& device, double temperature) {
    DeviceHealthUpdate update;
    update.device_id = device;
    update.health_metrics.temperature = temperature;
    stage.say(worker, FrameType::device_health_update, update);
  }
  void fill(const std::string& worker, const DeviceId& device, double share) {
    VramUsageUpdate update;
    update.device_id = device;
    update.vram_metrics = {1000_MiB, Bytes{static_cast<std::uint64_t>(share * 1000) << 20},
                           Bytes{static_cast<std::uint64_t>((1 - share) * 1000) << 20}, Ratio{0}};
    stage.say(worker, FrameType::vram_usage_update, update);
  }
  static std::string policy(const std::string& version) {
    return cat(R"({"event_type":"safety_policy_update","policy_version":")", version,
               R"(","safety_thresholds":{"content_safety_minimum":0.95,"quality_minimum":7.0,)",
               R"("technical_compliance":"strict"},"enforcement_actions":{"below_safety_threshold":"reject",)",
               R"("below_quality_threshold":"flag_for_review"}})");
  }
  /// "w0:device_routing_update ..." of what was told so far.
  std::string told() const {
    std::string out;
    for (const Told& each : stage.told()) {
      out += cat(out.empty() ? "" : " ", each.worker_id.str(), ":", each.event.type);
    }
    return out;
  }
  /// The worker applies the newest of what it was told of this type.
  void apply(const std::string& worker, const std::string& type) {
    std::vector<Told> told = stage.told(type);
    std::erase_if(told, [&](const Told& each) { return each.worker_id != WorkerId(worker); });
    ASSERT_FALSE(told.empty()) << worker << " was not told of " << type;
    stage.applied(told.back());
  }
  void fire(const std::string& timer) { stage.input(in::TimerFired{timer}); }
  Nanos deadline(const std::string& timer) const {
    Nanos when = 0;
    for (const out::ArmTimer& each : stage.all<out::ArmTimer>()) {
      if (each.name == timer) when = each.deadline;
    }
    return when;
  }

  Stage stage;
  ReplyId replies = 1000;
};

// §2.7: Device Health Critical is P0 and concerns all domains of every other worker.
TEST_F(Design_2_8_delivery, a_critical_device_is_told_to_all_others_at_once) {
  heat("w0", DeviceId("gpu_0"), 96);
  const auto told = stage.told("device_health_update");
  ASSERT_EQ(told.size(), 2u);
  for (const Told& each : told) {
    EXPECT_EQ(each.lane, Urgency::p0_critical);
    EXPECT_EQ(each.body<DeviceHealthUpdate>().device_id, DeviceId("gpu_0"));
    EXPECT_NE(each.worker_id, WorkerId("w0"));
  }
  // Its recovery is told to those who know of the danger.
  heat("w0", DeviceId("gpu_0"), 50);
  EXPECT_EQ(stage.told("device_health_update").size(), 4u);
  EXPECT_EQ(stage.told("device_health_update").back().lane, Urgency::p1_high);
}

// §2.1 step 4: only those whom it concerns. The routes say who shares work with whom.
TEST_F(Design_2_8_delivery, memory_pressure_is_told_to_those_that_share_the_work) {
  set("routing", R"({"routing_table":{"inference_primary":"gpu_0","inference_secondary":"gpu_1",
                                      "postprocessing":"gpu_2"}})");
  for (const char* worker : {"w0", "w1", "w2"}) apply(worker, "device_routing_update");
  fill("w0", DeviceId("gpu_0"), 0.93);
  const auto told = stage.told("vram_usage_update");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].worker_id, WorkerId("w1")) << "w2 does other work";
  EXPECT_EQ(told[0].lane, Urgency::p1_high);
}

// Routing by subscription: a worker that wants to hear of postprocessing only hears nothing of other devices' memory.
TEST_F(Design_2_8_delivery, a_worker_hears_of_the_domains_it_subscribes_to) {
  Hello hello{WorkerId("guest"), "test", 4000};
  hello.secret = "sesame";
  hello.device = OfferedDevice{"cpu", 1_GiB};
  hello.subscriptions = std::vector<std::string>{"postprocessing"};
  stage.dial(7, hello);
  stage.say("guest", FrameType::ready, Ready{});
  fill("w0", DeviceId("gpu_0"), 0.93);
  EXPECT_EQ(told(), "w1:vram_usage_update w2:vram_usage_update");
  heat("w0", DeviceId("gpu_0"), 96);
  EXPECT_EQ(stage.told("device_health_update").size(), 3u) << "what is critical concerns every domain";
}

// §2.8: routes are part of the first stage, memory policies of the second; each waits for the worker's own device only.
TEST_F(Design_2_8_delivery, a_later_stage_waits_for_the_one_before) {
  route();
  set("memory/policy", R"({"vram_reservation_limit":"8GB"})");
  EXPECT_EQ(told(), "w0:device_routing_update w1:device_routing_update w2:device_routing_update");
  apply("w1", "device_routing_update");
  EXPECT_EQ(stage.told("memory_policy_update").size(), 1u);
  EXPECT_EQ(stage.told().back().worker_id, WorkerId("w1"));
  apply("w0", "device_routing_update");
  apply("w2", "device_routing_update");
  EXPECT_EQ(stage.told("memory_policy_update").size(), 3u);
}

// A fact about one device waits for everybody who must know the stage before; a late one leaves the set.
TEST_F(Design_2_8_delivery, a_late_target_is_told_again_and_holds_up_nobody) {
  heat("w0", DeviceId("gpu_0"), 96);
  fill("w0", DeviceId("gpu_0"), 0.93);
  apply("w1", "device_health_update");
  EXPECT_EQ(stage.told("vram_usage_update").size(), 0u) << "w2 has not applied the alert";
  EXPECT_EQ(deadline("deliver:w2"), stage.now + seconds(2));
  stage.now += seconds(2);
  fire("deliver:w2");
  EXPECT_EQ(stage.told("vram_usage_update").size(), 2u);
  EXPECT_EQ(stage.told("device_health_update").size(), 3u) << "and w2 is told once more";
  EXPECT_EQ(stage.machine.live().counters.redelivered[0], 1u);
  EXPECT_EQ(deadline("deliver:w2"), stage.now + seconds(4));
}

// Six times in all, then it is left alone; it is told everything when it comes back.
TEST_F(Design_2_8_delivery, repetitions_end_and_a_silent_end_is_shown) {
  route();
  for (int i = 0; i < 7; ++i) {
    stage.now = deadline("deliver:w0");
    fire("deliver:w0");
  }
  std::size_t to_w0 = 0;
  for (const Told& each : stage.told()) to_w0 += each.worker_id == WorkerId("w0") ? 1 : 0;
  EXPECT_EQ(to_w0, 6u);
  bool shown = false;
  for (const out::Publish& each : stage.all<out::Publish>()) shown |= each.events[0].type == "state_unconfirmed";
  EXPECT_TRUE(shown);
  EXPECT_LT(deadline("deliver:w0"), stage.now + 1);
}

// All changes of one decision arrive in one frame: the routes of three devices, or the policy beside them, never half.
TEST_F(Design_2_8_delivery, what_one_decision_changes_arrives_in_one_frame) {
  stage.applies = true;
  stage.generate(1);
  stage.fill_segments();
  const auto frames = stage.sent(FrameType::state_changes);
  ASSERT_FALSE(frames.empty());
  const StateChanges changes = frames.back().body<StateChanges>();
  ASSERT_EQ(changes.events.size(), 2u);
  EXPECT_EQ(changes.events[0].type, "system_memory_allocated");
  EXPECT_EQ(changes.events[1].type, "model_cache_update");
  EXPECT_EQ(changes.events[0].rev, changes.events[1].rev);
}

// §2.8 second chain: no load is prepared before the worker knows the memory that it comes from.
TEST_F(Design_2_8_delivery, a_load_waits_until_the_memory_is_known) {
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 0u);
  apply("w0", "system_memory_allocated");
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 0u) << "the cache's content is part of that decision";
  apply("w0", "model_cache_update");
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
}

// A worker that never answers is not waited for: its own loads begin after the first deadline.
TEST_F(Design_2_8_delivery, a_load_on_a_late_worker_begins_all_the_same) {
  stage.generate(1);
  stage.fill_segments();
  ASSERT_EQ(stage.sent(FrameType::transaction_prepare).size(), 0u);
  stage.now += seconds(2);
  for (const char* worker : {"w0", "w1", "w2"}) fire(cat("deliver:", worker));
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
}

// A command that is more urgent than what it waits for lends it its urgency.
TEST_F(Design_2_8_delivery, what_holds_up_something_urgent_is_lifted) {
  stage.generate(1);
  stage.fill_segments();
  ASSERT_EQ(stage.told("model_cache_update").size(), 3u);
  EXPECT_EQ(stage.told("model_cache_update")[0].lane, Urgency::p2_normal);
  set("memory/policy", R"({"vram_reservation_limit":"8GB"})");  // allocation, stage 1, as the memory itself
  route();
  stage.input(in::CommandWorkflow{{++replies, "workflows/none/run", "{}"}});
  EXPECT_EQ(stage.told("model_cache_update").size(), 3u) << "nothing more urgent waits for it yet";
  stage.input(in::SetSafetyPolicy{{++replies, "policies/safety", policy("v9")}});
  const auto lifted = stage.told("system_memory_allocated");
  ASSERT_EQ(lifted.size(), 6u) << "once more to each";
  EXPECT_EQ(lifted.back().lane, Urgency::p1_high);
  EXPECT_EQ(stage.told("safety_policy_update").size(), 0u);
}

// §2.6: no postprocessing begins on a worker before it has applied the safety policy.
TEST_F(Design_2_8_delivery, postprocessing_waits_for_the_safety_policy) {
  stage.applies = true;
  stage.generate(1);
  stage.until_inferring();
  stage.applies = false;
  stage.input(in::SetSafetyPolicy{{++replies, "policies/safety", policy("v9")}});
  stage.inference_done("w0", 100);
  for (const Sent& each : stage.sent(FrameType::postprocessing_request)) {
    EXPECT_NE(each.effect.worker_id, WorkerId("w0"));
  }
}

// Design §6: list at rev, then watch. After a cut the worker is told what it has not confirmed, and nothing else.
TEST_F(Design_2_8_delivery, after_a_restart_of_the_orchestrator_only_the_unconfirmed_is_told) {
  route();
  apply("w0", "device_routing_update");
  set("memory/policy", R"({"vram_reservation_limit":"8GB"})");
  Stage again(settings_of(3), stage.journal);
  again.applies = false;
  again.start();
  again.scan();
  Hello hello{WorkerId("w0"), "test", 4000};
  hello.rejoin = Rejoin{"cluster", "token of w0", Epoch{1}, {}, {}, {}};
  again.dial(9, hello, stage.incarnation("w0"));
  EXPECT_EQ(again.refusal(), "");
  again.say("w0", FrameType::ready, Ready{});
  const auto told = again.told();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].event.type, "memory_policy_update");
  EXPECT_FALSE(told[0].snapshot) << "what it has applied stays";
}

// §2.1 step 5: the confirmation is itself an event, and both values can be read.
TEST_F(Design_2_8_delivery, both_values_are_readable_and_the_confirmation_is_an_event) {
  route();
  const auto row = [&]() -> const Delivery& {
    return stage.tables().propagation.deliveries.at("w0/device_routing_update/");
  };
  EXPECT_EQ(row().confirmed_rev, Rev{});
  apply("w0", "device_routing_update");
  EXPECT_EQ(row().confirmed_rev, row().intended_rev);
  EXPECT_EQ(row().confirmed.text, row().intended.text);
  const auto published = stage.all<out::Publish>().back();
  EXPECT_EQ(published.events[0].type, "state_confirmed");
  stage.input(in::View{++replies, "propagation/w0"});
  EXPECT_NE(stage.all<out::Reply>().back().body.find(R"("outcome":"applied")"), std::string::npos);
}

TEST_F(Design_2_8_delivery, an_answer_about_what_was_never_told_ends_the_worker) {
  stage.say("w0", FrameType::state_applied,
            StateApplied{1, {{"device_routing_update", "", 1, AppliedOutcome::applied, "", std::nullopt}}});
  EXPECT_EQ(stage.all<out::KillWorker>().size(), 1u);
}

}  // namespace
}  // namespace lockstep::design
