// §1.2, §2.2: every byte has an owner; policies, quotas and pressure are facts with effect; what a worker asks for ends
// in exactly one answer.

#include "tests/design/fixture.h"

#include <memory>
#include <regex>

#include "domains/memory/rules.h"

namespace lockstep::design {
namespace {

class Design_2_2_memory : public testing::Test {
 protected:
  Design_2_2_memory() : stage(settings_of(1)) { stage.ready(); }

  out::Reply set(const std::string& body, bool whole = false) {
    stage.input(in::Set{++replies, "memory/policy", whole, body});
    return stage.all<out::Reply>().back();
  }
  std::string view(const std::string& path) {
    stage.input(in::View{++replies, path});
    return stage.all<out::Reply>().back().body;
  }
  void sample(double share) {
    stage.input(in::SystemMemory{1000_MiB, Bytes{static_cast<std::uint64_t>((1 - share) * 1000) << 20}, {}, {}, 0});
  }
  void ask(const std::string& id, Bytes bytes, const std::string& purpose = "inference",
           AllocationPriority priority = AllocationPriority::normal, const std::string& lasts = "5min") {
    stage.say("w0", FrameType::memory_allocation_request,
              MemoryAllocationRequest{id, bytes, purpose, priority, DurationText{lasts}}, 0, id);
  }
  /// Every answer to one request, in order.
  std::vector<RequestAnswer> answers(const std::string& id) const {
    std::vector<RequestAnswer> out;
    for (const Sent& each : stage.sent(FrameType::request_answer)) {
      const auto answer = each.body<RequestAnswer>();
      if (answer.request_id == id) out.push_back(answer);
    }
    return out;
  }
  /// When it may be granted, as the first answer says.
  std::optional<WallTime> estimate(const std::string& id) const {
    const auto all = answers(id);
    if (all.empty() || !all[0].estimated_start) return std::nullopt;
    return wall_from_rfc3339(all[0].estimated_start->text).value();
  }
  RequestOutcome last(const std::string& id) const {
    const auto all = answers(id);
    EXPECT_FALSE(all.empty());
    return all.empty() ? RequestOutcome::denied : all.back().outcome;
  }
  void give_back(const std::string& id) {
    stage.say("w0", FrameType::reservation_update,
              ReservationUpdate{answers(id).back().reservation->allocation_id, std::nullopt});
  }
  Bytes granted() const { return memory::granted_on(stage.tables().memory, DeviceId("gpu_0")); }
  /// An image of a session of its own.
  std::string image_of(std::string_view session_class) {
    stage.input(command_at(++replies, "sessions", cat(R"({"session_class":")", session_class, R"("})")));
    GenerateBody body;
    body.session_id = stage.tables().processing.sessions.entries().rbegin()->first;
    stage.generate_with(++replies, body, false);
    return stage.tables().processing.requests.entries().rbegin()->first;
  }
  void fill_cache() {
    stage.generate(1);
    stage.fill_segments();
  }

  Stage stage;
  ReplyId replies = 1000;
};

// ---- requests ------------------------------------------------------------------------------------------------------

TEST_F(Design_2_2_memory, a_request_that_fits_is_granted_with_its_reservation_in_the_ledger) {
  ask("r1", 600_MiB);
  const auto all = answers("r1");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].outcome, RequestOutcome::granted);
  ASSERT_TRUE(all[0].reservation.has_value());
  EXPECT_EQ(all[0].reservation->bytes, 600_MiB);
  EXPECT_TRUE(all[0].reservation->until.has_value());
  EXPECT_EQ(memory::allocated_on(stage.tables().memory, DeviceId("gpu_0")), 600_MiB);
}

TEST_F(Design_2_2_memory, a_request_that_does_not_fit_yet_is_queued_and_granted_when_memory_is_released) {
  ask("r1", 600_MiB);
  ask("r2", 600_MiB);
  ASSERT_EQ(answers("r2").size(), 1u);
  EXPECT_EQ(last("r2"), RequestOutcome::queued);
  EXPECT_TRUE(answers("r2")[0].estimated_start.has_value());
  EXPECT_EQ(granted(), 600_MiB);
  give_back("r1");
  ASSERT_EQ(answers("r2").size(), 2u);
  EXPECT_EQ(last("r2"), RequestOutcome::granted);
  EXPECT_EQ(granted(), 600_MiB);
}

TEST_F(Design_2_2_memory, a_request_above_the_limit_is_denied_with_the_limits_name) {
  ask("r1", 2_GiB);
  EXPECT_EQ(last("r1"), RequestOutcome::denied);
  EXPECT_NE(answers("r1")[0].reason->find("memory_budget of gpu_0 is 1GB"), std::string::npos);
  set(R"({"vram_reservation_limit":"512MB"})");
  ask("r2", 600_MiB);
  EXPECT_EQ(last("r2"), RequestOutcome::denied);
  EXPECT_NE(answers("r2")[0].reason->find("vram_reservation_limit"), std::string::npos);
  EXPECT_EQ(granted(), Bytes{});
}

TEST_F(Design_2_2_memory, a_quota_holds_for_its_purpose) {
  set(R"({"quotas":{"inference":"256MB"}})");
  ask("r1", 300_MiB);
  EXPECT_EQ(last("r1"), RequestOutcome::denied);
  EXPECT_NE(answers("r1")[0].reason->find("quota of inference"), std::string::npos);
  ask("r2", 300_MiB, "postprocessing");
  EXPECT_EQ(last("r2"), RequestOutcome::granted);
}

TEST_F(Design_2_2_memory, the_same_request_again_gets_the_same_answer_and_nothing_more) {
  ask("r1", 100_MiB);
  const Rev rev = stage.machine.rev();
  ask("r1", 100_MiB);
  ASSERT_EQ(answers("r1").size(), 2u);
  EXPECT_EQ(answers("r1")[0].reservation->allocation_id, answers("r1")[1].reservation->allocation_id);
  EXPECT_EQ(granted(), 100_MiB);
  EXPECT_EQ(stage.machine.rev(), rev);
}

TEST_F(Design_2_2_memory, another_request_under_a_taken_id_is_refused_and_the_first_stays) {
  ask("r1", 100_MiB);
  ask("r1", 200_MiB);
  EXPECT_EQ(answers("r1").back().conflict, true);
  EXPECT_EQ(last("r1"), RequestOutcome::denied);
  EXPECT_EQ(granted(), 100_MiB);
}

// §2.2: what nobody works with gives way, as it does to an image.
TEST_F(Design_2_2_memory, an_idle_model_in_the_way_of_a_queued_request_is_released) {
  fill_cache();
  stage.until_inferring();
  ask("r1", 1000_MiB);
  EXPECT_EQ(last("r1"), RequestOutcome::queued);
  EXPECT_TRUE(stage.sent(FrameType::model_release).empty()) << "an image is made with it";
  stage.finish_image();
  ASSERT_EQ(stage.sent(FrameType::model_release).size(), 1u);
  EXPECT_EQ(last("r1"), RequestOutcome::queued);
  stage.say("w0", FrameType::model_released, ModelReleased{tiny, Bytes{}}, 0, "release:tiny");
  EXPECT_EQ(last("r1"), RequestOutcome::granted);
  EXPECT_EQ(granted(), 1000_MiB);
}

TEST_F(Design_2_2_memory, a_model_stays_where_its_release_would_not_help) {
  fill_cache();
  stage.until_inferring();
  stage.finish_image();
  ask("r1", 800_MiB);
  ask("r2", 300_MiB);  // the grant is in the way, and the model too, but not alone
  EXPECT_EQ(last("r2"), RequestOutcome::queued);
  set(R"({"quotas":{"postprocessing":"50MB"}})");
  ask("r3", 40_MiB, "postprocessing");
  ask("r4", 40_MiB, "postprocessing");
  EXPECT_EQ(last("r4"), RequestOutcome::queued) << "for its quota";
  EXPECT_TRUE(stage.sent(FrameType::model_release).empty());
}

// The estimate is what is left of the grants that have to lapse first, on this device and for so many bytes.
TEST_F(Design_2_2_memory, a_queued_request_is_told_when_there_will_be_room) {
  ask("long", 300_MiB, "inference", AllocationPriority::normal, "10min");
  ask("short", 300_MiB, "postprocessing", AllocationPriority::normal, "5min");
  ask("ram", 1_MiB, "scratch", AllocationPriority::normal, "1s");  // in the system's RAM: another pool
  const std::int64_t granted_at = stage.wall().ms;
  stage.now += seconds(100);
  ask("r1", 600_MiB);
  ask("r2", 900_MiB);
  EXPECT_EQ(estimate("r1"), WallTime{granted_at + 300'000});
  EXPECT_EQ(estimate("r2"), WallTime{granted_at + 600'000});
}

TEST_F(Design_2_2_memory, what_waits_for_a_quota_is_told_when_its_purpose_has_room) {
  ask("long", 200_MiB, "inference", AllocationPriority::normal, "10min");
  ask("short", 300_MiB, "postprocessing", AllocationPriority::normal, "5min");
  set(R"({"quotas":{"inference":"256MB"}})");
  ask("r1", 100_MiB);
  EXPECT_EQ(estimate("r1"), WallTime{stage.wall().ms + 600'000});
}

// Where models fill the device they go when what runs there is done; nothing is told where nobody knows when that is.
TEST_F(Design_2_2_memory, a_request_behind_models_is_told_when_the_image_is_done) {
  fill_cache();
  stage.until_inferring();
  ask("r1", 1000_MiB);
  EXPECT_EQ(last("r1"), RequestOutcome::queued);
  EXPECT_EQ(estimate("r1"), std::nullopt);
  const std::string run = stage.sent(FrameType::inference_request).back().envelope.op_id;
  stage.say("w0", FrameType::inference_progress,
            InferenceProgress{run, {5, 20, 2.0, Timestamp{}}, {SizeText{"0B"}, Percent{0}}}, 1, run);
  ask("r2", 1000_MiB);
  EXPECT_EQ(estimate("r2"), WallTime{stage.wall().ms + 30'000});
}

// Exactly one final answer before the deadline: what is still queued then is denied.
TEST_F(Design_2_2_memory, a_queued_request_is_denied_at_its_deadline_and_never_granted_after_it) {
  ask("r1", 1_GiB);
  ask("r2", 600_MiB);
  stage.now += seconds(60);
  stage.input(in::TimerFired{"request:w0/memory_allocation_request/r2"});
  EXPECT_EQ(last("r2"), RequestOutcome::denied);
  give_back("r1");
  EXPECT_EQ(answers("r2").size(), 2u);
  EXPECT_EQ(granted(), Bytes{});
}

TEST_F(Design_2_2_memory, a_grant_lapses_unless_it_is_renewed) {
  ask("r1", 100_MiB);
  const AllocationId allocation = answers("r1")[0].reservation->allocation_id;
  stage.say("w0", FrameType::reservation_update, ReservationUpdate{allocation, DurationText{"10min"}});
  EXPECT_EQ(stage.tables().memory.grants.at(allocation.str()).lasts, seconds(600));
  stage.input(in::TimerFired{cat("grant:", allocation.str())});
  EXPECT_EQ(granted(), Bytes{});
}

TEST_F(Design_2_2_memory, the_requesters_death_releases_its_grants_and_closes_its_requests) {
  ask("r1", 600_MiB);
  ask("r2", 600_MiB);
  stage.die("w0");
  EXPECT_EQ(granted(), Bytes{});
  EXPECT_EQ(stage.tables().requests.requests.size(), 0u);
}

// A grant is the ledger's: no load is prepared into it.
TEST_F(Design_2_2_memory, a_load_does_not_take_what_was_granted) {
  ask("r1", 900_MiB);
  fill_cache();
  EXPECT_TRUE(stage.sent(FrameType::transaction_prepare).empty());
  give_back("r1");
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
}

// A queued request survives the orchestrator: the next life grants it.
TEST_F(Design_2_2_memory, a_queued_request_survives_a_restart) {
  ask("r1", 600_MiB);
  ask("r2", 600_MiB);
  Stage next(settings_of(1), stage.journal);
  next.start();
  EXPECT_EQ(open_requests(next.tables().requests).size(), 1u);
  const auto timers = next.all<out::ArmTimer>();
  EXPECT_TRUE(std::ranges::any_of(timers, [](const auto& each) { return each.name.starts_with("request:w0/"); }));
  next.input(in::TimerFired{"grant:" + next.tables().memory.grants.entries().begin()->first});
  ASSERT_EQ(next.tables().memory.grants.size(), 1u);
  EXPECT_EQ(next.tables().memory.grants.entries().begin()->second.row.request_id, "r2");
}

// Its limit is of the request and not of a life of the orchestrator: the rest counts on.
TEST_F(Design_2_2_memory, a_deadline_counts_on_after_a_restart_and_a_grants_end_too) {
  ask("r1", 600_MiB);  // for 5 minutes
  ask("r2", 600_MiB);  // to be answered within 60 s
  const auto restarted = [&](Nanos after, std::int64_t wall_set_ms = 0) {
    auto next = std::make_unique<Stage>(settings_of(1), stage.journal);
    next->now = stage.now + after;
    next->wall_offset_ms = wall_set_ms;
    next->start();
    return next;
  };
  const auto left = [&](const Stage& next, std::string_view timer) {
    for (const out::ArmTimer& each : next.all<out::ArmTimer>()) {
      if (each.name.starts_with(timer)) return each.deadline - next.now;
    }
    return Nanos{-1};
  };
  const auto soon = restarted(seconds(20));
  EXPECT_EQ(left(*soon, "request:w0/memory_allocation_request/r2"), seconds(40));
  EXPECT_EQ(left(*soon, "grant:"), seconds(280));
  // A clock that was set back meanwhile makes no limit longer than it was.
  const auto back = restarted(seconds(20), -3'600'000);
  EXPECT_EQ(left(*back, "request:w0/memory_allocation_request/r2"), seconds(60));
  EXPECT_EQ(left(*back, "grant:"), seconds(300));
}

TEST_F(Design_2_2_memory, what_is_past_its_deadline_at_a_start_ends_at_once_with_its_one_answer) {
  ask("r1", 600_MiB, "inference", AllocationPriority::normal, "30s");
  ask("r2", 600_MiB);
  Stage next(settings_of(1), stage.journal);
  next.now = stage.now + seconds(61);
  next.start();
  EXPECT_EQ(next.tables().memory.grants.size(), 0u) << "what was held is free, and what waited for it is too late";
  const OpenRequest& row = next.tables().requests.requests.at("w0/memory_allocation_request/r2");
  EXPECT_EQ(row.answer.outcome, RequestOutcome::denied);
  EXPECT_NE(row.answer.reason.value_or("").find("its limit of 60000 ms has passed"), std::string::npos);
  EXPECT_EQ(next.sent(FrameType::request_answer).size(), 1u);
  const auto timers = next.all<out::ArmTimer>();
  EXPECT_TRUE(std::ranges::none_of(
      timers, [](const auto& each) { return each.name.starts_with("request:") || each.name.starts_with("grant:"); }));
}

TEST_F(Design_2_2_memory, a_renewed_grant_ends_later_in_the_next_life_too) {
  ask("r1", 100_MiB);
  const AllocationId allocation = answers("r1")[0].reservation->allocation_id;
  stage.now += seconds(100);
  stage.say("w0", FrameType::reservation_update, ReservationUpdate{allocation, DurationText{"10min"}});
  EXPECT_EQ(stage.tables().memory.grants.at(allocation.str()).until, WallTime{stage.wall().ms + 600'000});
}

// Rows of earlier versions do not say when a grant ends: there it counts from the start.
TEST_F(Design_2_2_memory, a_grant_of_an_earlier_version_lasts_from_the_start) {
  ask("r1", 100_MiB);
  std::vector<Record> journal = stage.journal;
  for (Record& record : journal) record.body = std::regex_replace(record.body, std::regex(R"(,"until":\d+)"), "");
  Stage next(settings_of(1), journal);
  next.now = stage.now + seconds(100);
  next.start();
  EXPECT_FALSE(next.tables().memory.grants.entries().begin()->second.row.until.has_value());
  const auto timers = next.all<out::ArmTimer>();
  const auto armed = std::ranges::find_if(timers, [](const auto& each) { return each.name.starts_with("grant:"); });
  ASSERT_NE(armed, timers.end());
  EXPECT_EQ(armed->deadline, next.now + seconds(300));
}

TEST_F(Design_2_2_memory, the_most_wanted_request_is_granted_first) {
  ask("r1", 1_GiB);
  ask("low", 600_MiB, "inference", AllocationPriority::low);
  ask("high", 600_MiB, "inference", AllocationPriority::high);
  give_back("r1");
  EXPECT_EQ(last("high"), RequestOutcome::granted);
  EXPECT_EQ(last("low"), RequestOutcome::queued);
}

// ---- policy --------------------------------------------------------------------------------------------------------

// §2.2: the printed policy; durable, told to every worker, and confirmed by each.
TEST_F(Design_2_2_memory, a_policy_is_a_fact_with_an_intended_and_a_confirmed_revision) {
  stage.applies = false;
  const out::Reply reply =
      set(R"({"max_model_cache_size":"8GB","vram_reservation_limit":"12GB","emergency_cleanup_threshold":0.95})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  const auto told = stage.told("memory_policy_update");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].body<MemoryPolicyUpdate>().policy_changes.vram_reservation_limit->text, "12GB");
  EXPECT_TRUE(stage.tables().memory.policy().confirmed_by.empty());
  stage.applied(told[0]);
  EXPECT_EQ(stage.tables().memory.policy().confirmed_by.at("w0"), 1u);
}

TEST_F(Design_2_2_memory, a_smaller_cache_limit_evicts_at_once_what_is_not_pinned) {
  fill_cache();
  stage.until_inferring();
  ASSERT_EQ(stage.machine.live().segments.size(), 2u);
  set(R"({"max_model_cache_size":"120MB"})");
  EXPECT_EQ(stage.machine.live().segments.size(), 1u);
  EXPECT_EQ(stage.all<out::DropSegment>().size(), 1u);
}

// §1.2 "Memory reservation for system operations and buffers".
TEST_F(Design_2_2_memory, the_cache_leaves_the_reserve_to_the_system) {
  const auto limit = [&](const std::string& reserve) {
    if (!reserve.empty()) set(cat("{\"system_reserve\":\"", reserve, "\"}"));
    return view("memory");
  };
  sample(0.5);  // of 1000 MB
  EXPECT_NE(limit("").find(R"("limited_by":"system_reserve")"), std::string::npos) << limit("");
  EXPECT_EQ(set(R"({"system_reserve":"much"})").status, 400);
  limit("870MB");  // leaves 130 MB; the model needs 150
  stage.generate(1);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 400);
  EXPECT_NE(stage.all<out::Reply>().back().body.find("(system_reserve)"), std::string::npos)
      << stage.all<out::Reply>().back().body;
  EXPECT_NE(limit("0B").find(R"("limit":1048576000)"), std::string::npos);
  fill_cache();
  const auto told = stage.told("system_memory_allocated");
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().body<SystemMemoryAllocated>().available_after_allocation, 1000_MiB - 150_MiB);
}

TEST_F(Design_2_2_memory, workers_hear_when_the_cache_pool_changes) {
  fill_cache();
  const auto told = stage.told("system_memory_allocated");
  ASSERT_FALSE(told.empty());
  const auto message = told.back().body<SystemMemoryAllocated>();
  EXPECT_EQ(message.allocated_bytes, 150_MiB);
  EXPECT_EQ(message.memory_pool, "system_ram");
  EXPECT_EQ(message.available_after_allocation, 16_GiB - 150_MiB);
}

TEST_F(Design_2_2_memory, idle_segments_are_collected_on_schedule_and_used_ones_are_not) {
  set(R"({"idle_segment_seconds":100})");
  fill_cache();
  stage.until_inferring();
  stage.input(in::TimerFired{"collect:"});
  EXPECT_EQ(stage.machine.live().segments.size(), 2u);
  stage.now += seconds(101);
  stage.input(in::TimerFired{"collect:"});
  EXPECT_EQ(stage.machine.live().segments.size(), 0u);
  EXPECT_EQ(stage.machine.live().counters.cache_collected, 2u);
}

// ---- pressure ------------------------------------------------------------------------------------------------------

TEST_F(Design_2_2_memory, a_level_is_a_fact_and_a_sample_is_none) {
  sample(0.5);
  const Rev rev = stage.machine.rev();
  sample(0.6);
  EXPECT_EQ(stage.machine.rev(), rev);
  sample(0.85);
  EXPECT_EQ(stage.tables().memory.level_of("system_ram"), PressureLevel::moderate);
  EXPECT_EQ(stage.machine.rev(), rev.next());
}

TEST_F(Design_2_2_memory, a_workers_report_makes_its_devices_pressure) {
  VramUsageUpdate update;
  update.device_id = DeviceId("gpu_0");
  update.vram_metrics = {Bytes{16106127360}, Bytes{12884901888}, Bytes{3221225472}, Ratio{0.23}};
  stage.say("w0", FrameType::vram_usage_update, update);
  EXPECT_EQ(stage.tables().memory.level_of("gpu_0"), PressureLevel::moderate);
}

// §1.2 "Memory usage reporting and analytics": what each pool held and how full it was, also when nobody asked.
TEST_F(Design_2_2_memory, each_sample_is_noted_for_every_pool) {
  fill_cache();
  sample(0.85);
  const std::string history = view("memory/history");
  EXPECT_NE(history.find(R"({"pool":"gpu_0","hour":{"minutes":1,"held_mean":157286400)"), std::string::npos) << history;
  EXPECT_NE(history.find(R"("pressed":{"moderate":1})"), std::string::npos) << history;
  EXPECT_NE(history.find(R"({"pool":"system_ram","hour":{"minutes":1,"held_mean":157286400)"), std::string::npos)
      << history;
}

// Emergency: nothing new is accepted, and what was accepted before goes on when the pressure is gone.
TEST_F(Design_2_2_memory, an_emergency_refuses_admissions_and_is_undone) {
  sample(0.97);
  stage.generate(1);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 503);
  EXPECT_NE(stage.all<out::Reply>().back().body.find("nearly used up"), std::string::npos);
  sample(0.93);  // within the hysteresis
  stage.generate(2);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 503);
  sample(0.5);
  stage.generate(3);
  EXPECT_EQ(stage.tables().processing.requests.size(), 1u);
}

TEST_F(Design_2_2_memory, an_emergency_pauses_batches_after_their_first_image) {
  stage.generate(1, false, 2);
  stage.fill_segments();
  sample(0.97);
  stage.until_inferring();
  stage.finish_image();
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), processing::JobStage::completed);
  EXPECT_EQ(stage.stage_of("req_000001_000001/01"), processing::JobStage::queued);
  EXPECT_NE(view("requests/req_000001_000001").find("wait until memory has been released"), std::string::npos);
  sample(0.5);
  EXPECT_EQ(stage.stage_of("req_000001_000001/01"), processing::JobStage::inferring);
}

// Decision 0045: whose class is batch or background is a batch, whatever it asks for; an interactive one goes on.
TEST_F(Design_2_2_memory, an_emergency_pauses_batch_and_background_sessions) {
  stage.generate(1, false);
  const std::string batch = image_of("batch");
  const std::string background = image_of("background");
  const std::string interactive = image_of("interactive");
  stage.fill_segments();
  sample(0.97);
  stage.until_inferring();
  for (const std::string& done : {std::string("req_000001_000001"), interactive}) {
    ASSERT_EQ(stage.stage_of(done + "/00"), processing::JobStage::inferring);
    stage.finish_image();
  }
  for (const std::string& paused : {batch, background}) {
    EXPECT_EQ(stage.stage_of(paused + "/00"), processing::JobStage::queued);
    EXPECT_NE(view("requests/" + paused).find("wait until memory has been released"), std::string::npos);
  }
  sample(0.5);
  EXPECT_EQ(stage.stage_of(batch + "/00"), processing::JobStage::inferring);
}

TEST_F(Design_2_2_memory, while_memory_is_short_no_model_is_loaded_for_a_background_session) {
  sample(0.92);  // high: only the first step
  const std::string background = image_of("background");
  stage.fill_segments();
  EXPECT_TRUE(stage.sent(FrameType::transaction_prepare).empty());
  EXPECT_NE(view("requests/" + background).find("no model is loaded for background sessions"), std::string::npos);
  image_of("batch");  // the first in the queue has its model loaded
  stage.until_inferring();
  stage.finish_image();
  EXPECT_EQ(stage.stage_of(background + "/00"), processing::JobStage::inferring) << "the model is there";
}

TEST_F(Design_2_2_memory, an_emergency_gives_up_unpinned_cache) {
  fill_cache();
  stage.until_inferring();
  sample(0.94);
  EXPECT_EQ(stage.machine.live().segments.size(), 2u);
  sample(0.96);
  EXPECT_EQ(stage.machine.live().segments.size(), 0u);
}

TEST_F(Design_2_2_memory, a_request_under_critical_pressure_is_denied_but_for_a_critical_one) {
  VramUsageUpdate update;
  update.device_id = DeviceId("gpu_0");
  update.vram_metrics = {1000_MiB, 960_MiB, 40_MiB, Ratio{0}};
  stage.say("w0", FrameType::vram_usage_update, update);
  ask("r1", 1_MiB);
  EXPECT_EQ(last("r1"), RequestOutcome::denied);
  ask("r2", 1_MiB, "inference", AllocationPriority::critical);
  EXPECT_EQ(last("r2"), RequestOutcome::granted);
}

// ---- accounts ------------------------------------------------------------------------------------------------------

// §1.2 leak detection: an idle worker that holds more than its ledger in five samples; told once until it is gone.
TEST_F(Design_2_2_memory, memory_that_an_idle_worker_holds_beyond_its_ledger_is_suspected_once) {
  VramUsageUpdate update;
  update.device_id = DeviceId("gpu_0");
  const auto report = [&](Bytes used, int times) {
    update.vram_metrics = {1_GiB, used, 1_GiB - used, Ratio{0}};
    for (int i = 0; i < times; ++i) stage.say("w0", FrameType::vram_usage_update, update);
  };
  report(300_MiB, 4);
  EXPECT_EQ(stage.machine.live().counters.leaks_suspected, 0u);
  report(300_MiB, 3);
  EXPECT_EQ(stage.machine.live().counters.leaks_suspected, 1u);
  report(10_MiB, 1);
  report(300_MiB, 5);
  EXPECT_EQ(stage.machine.live().counters.leaks_suspected, 2u);
}

// §1.2 usage reporting: the pools, who holds what in them, and the most that each purpose held.
TEST_F(Design_2_2_memory, every_byte_of_a_pool_has_an_owner_in_the_view) {
  ask("r1", 100_MiB);
  fill_cache();
  stage.until_inferring();
  sample(0.5);
  const std::string text = view("memory");
  EXPECT_NE(text.find(R"("pool":"system_ram")"), std::string::npos);
  EXPECT_NE(text.find(cat(R"({"purpose":"model_cache","used":)", (150_MiB).value)), std::string::npos) << text;
  EXPECT_NE(text.find(cat(R"({"purpose":"model","used":)", (150_MiB).value)), std::string::npos) << text;
  EXPECT_NE(text.find(cat(R"({"purpose":"inference","used":)", (100_MiB).value)), std::string::npos) << text;
  EXPECT_NE(text.find(cat(R"("held":)", (250_MiB).value)), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::design
