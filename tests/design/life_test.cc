// Design §6, §3.7: the start after a crash, silence, and the end.

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

// ---- recovery -----------------------------------------------------------------------------------------------------

TEST(Design_recovery, listeners_open_only_when_the_new_epoch_is_durable) {
  Stage stage(settings_of(1));
  stage.manual = true;
  stage.start();
  stage.release();
  EXPECT_TRUE(stage.all<out::Listen>().empty());
  EXPECT_TRUE(stage.all<out::SpawnWorker>().empty());
  EXPECT_EQ(stage.machine.live().epoch, Epoch{1});
  stage.sync();
  EXPECT_EQ(stage.all<out::Listen>().size(), 1u);
}

TEST(Design_recovery, the_epoch_rises_at_every_start) {
  Stage first(settings_of(1));
  first.start();
  Stage second(settings_of(1), first.journal);
  second.start();
  EXPECT_EQ(second.machine.live().epoch, Epoch{2});
  Stage third(settings_of(1), second.journal);
  third.start();
  EXPECT_EQ(third.machine.live().epoch, Epoch{3});
  EXPECT_EQ(third.tables().identity.at("self").cluster_id, "cluster");
}

// Nothing that an earlier life granted is granted again before its process is proven gone.
TEST(Design_recovery, workers_of_an_earlier_life_that_do_not_return_are_proven_gone_before_anything_is_granted) {
  Stage first(settings_of(2));
  first.ready();
  first.generate(1);
  first.until_inferring();
  first.expect_one_load_held();

  Stage second(settings_of(2), first.journal);
  second.start();
  second.scan();
  const auto proofs = second.all<out::ProveGone>();
  ASSERT_EQ(proofs.size(), 2u);
  EXPECT_EQ(proofs[0].worker_id, WorkerId("w0"));
  EXPECT_EQ(proofs[0].incarnation, Incarnation{1});
  EXPECT_EQ(proofs[0].pid, 4000);
  EXPECT_EQ(proofs[0].start_ticks, 77u);
  EXPECT_FALSE(proofs[0].kill);  // it may come back
  second.now += second.machine.live().workers.at(WorkerId("w0")).awaited ? seconds(10) : 0;
  second.input(in::TimerFired{"rejoin:w0"});
  second.input(in::TimerFired{"rejoin:w1"});
  ASSERT_EQ(second.all<out::ProveGone>().size(), 4u);
  EXPECT_TRUE(second.all<out::ProveGone>()[2].kill);
  EXPECT_TRUE(second.all<out::SpawnWorker>().empty());
  second.expect_one_load_held();  // its bytes count until the proof
  second.input(in::WorkerGone{WorkerId("w1"), Incarnation{1}, "proven gone by its lock"});
  ASSERT_EQ(second.all<out::SpawnWorker>().size(), 1u);
  EXPECT_EQ(second.all<out::SpawnWorker>()[0].worker.worker_id, WorkerId("w1"));
  second.expect_one_load_held();
  second.input(in::WorkerGone{WorkerId("w0"), Incarnation{1}, "proven gone by its lock"});
  const auto spawns = second.all<out::SpawnWorker>();
  ASSERT_EQ(spawns.size(), 2u);
  EXPECT_EQ(spawns[1].worker.worker_id, WorkerId("w0"));
  EXPECT_EQ(spawns[1].incarnation, Incarnation{2});
  second.expect_no_trace_of_a_load();
}

TEST(Design_recovery, a_worker_is_spawned_only_when_its_incarnation_is_durable) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.manual = true;
  stage.die("w0");
  stage.release();
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 1u);
  stage.sync();
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 2u);
}

TEST(Design_recovery, a_record_that_is_no_commit_stops_the_start) {
  Stage stage(settings_of(1));
  stage.start();
  ASSERT_GE(stage.journal.size(), 2u);
  for (const std::string& body : {std::string("{}"), std::string("not json"), stage.journal[0].body}) {
    Recovered damaged{Lsn{}, {}, stage.journal};
    damaged.records[1].body = body;  // the last is a commit, but of another rev
    Orchestrator machine(settings_of(1));
    const auto last = machine.recover(damaged);
    ASSERT_FALSE(last.has_value());
    EXPECT_EQ(last.error().code, ErrorCode::data_loss);
  }
}

// ---- silence, §3.7 ------------------------------------------------------------------------------------------------

TEST(Design_3_7_silence, nothing_new_goes_to_a_silent_worker_and_its_next_word_ends_the_silence) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input(in::TimerFired{"silence:w0"});
  stage.generate(1);
  stage.fill_segments();
  EXPECT_TRUE(stage.sent(FrameType::transaction_prepare).empty());
  stage.say("w0", FrameType::heartbeat, Heartbeat{});
  EXPECT_EQ(stage.sent(FrameType::heartbeat_ack).size(), 1u);
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
}

TEST(Design_3_7_silence, a_worker_that_stays_silent_is_killed_and_counted) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.input(in::TimerFired{"silence:w0"});
  EXPECT_TRUE(std::ranges::any_of(stage.all<out::ArmTimer>(), [&](const out::ArmTimer& each) {
    return each.name == "freeze:w0" && each.deadline == stage.now + seconds(30);
  }));
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  stage.input(in::TimerFired{"freeze:w0"});
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), JobStage::inferring);  // until the proof
  stage.die("w0", "signal 9 (Killed)");
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), JobStage::queued);
  EXPECT_EQ(stage.tables().processing.jobs.at("req_000001_000001/00").deaths, 1u);
}

TEST(Design_3_7_silence, a_worker_that_dies_again_and_again_is_started_later_and_later) {
  Stage stage(settings_of(1));
  stage.start();
  stage.die("w0", "exit status 1");
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 2u);  // at once the first time
  stage.die("w0", "exit status 1");
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 2u);
  EXPECT_TRUE(std::ranges::any_of(stage.all<out::ArmTimer>(), [&](const out::ArmTimer& each) {
    return each.name == "restart:w0" && each.deadline == stage.now + milliseconds(500);
  }));
  stage.now += milliseconds(499);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 2u);
  stage.now += milliseconds(1);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), 3u);
}

// ---- the end ------------------------------------------------------------------------------------------------------

TEST(Design_stop, what_runs_is_finished_and_what_is_queued_is_left) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1, true, 3);
  stage.until_inferring();
  stage.input(in::StopRequested{});
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  EXPECT_TRUE(stage.all<out::Stop>().empty());
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.sent(FrameType::postprocessing_request).size(), 1u);  // it is the running image's
  stage.postprocessing_done("w0", 101);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  stage.stored();
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), JobStage::completed);
  EXPECT_EQ(stage.sent(FrameType::inference_request).size(), 1u);
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_TRUE(stage.all<out::Stop>().empty());
  stage.die("w0", "signal 9 (Killed)");
  const auto stops = stage.all<out::Stop>();
  ASSERT_EQ(stops.size(), 1u);
  EXPECT_EQ(stops[0].jobs_left, 2u);
  EXPECT_EQ(stage.stage_of("req_000001_000001/01"), JobStage::queued);
  EXPECT_EQ(stage.tables().processing.jobs.at("req_000001_000001/01").deaths, 0u);
  // Who still waits is told that it goes on.
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 503);
  EXPECT_LT(stage.index_of<out::Reply>(), stage.index_of<out::Stop>());
}

TEST(Design_stop, nothing_is_dispatched_or_started_after_the_end) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.fill_segments();
  stage.input(in::StopRequested{});
  stage.die("w0", "signal 9 (Killed)");
  ASSERT_EQ(stage.all<out::Stop>().size(), 1u);
  const std::size_t frames = stage.all<out::SendFrame>().size();
  const std::size_t spawns = stage.all<out::SpawnWorker>().size();
  stage.input(in::TimerFired{"restart:w0"});
  stage.input(in::TimerFired{"drain:"});
  stage.generate(9);
  EXPECT_EQ(stage.all<out::SendFrame>().size(), frames);
  EXPECT_EQ(stage.all<out::SpawnWorker>().size(), spawns);
  EXPECT_EQ(stage.all<out::Stop>().size(), 1u);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 503);
  EXPECT_EQ(stage.tables().processing.requests.size(), 1u);
}

TEST(Design_stop, the_drain_limit_gives_up_what_runs_and_it_starts_over_next_time) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.input(in::StopRequested{});
  EXPECT_TRUE(std::ranges::any_of(stage.all<out::ArmTimer>(), [&](const out::ArmTimer& each) {
    return each.name == "drain:" && each.deadline == stage.now + seconds(30);
  }));
  stage.input(in::TimerFired{"drain:"});
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  stage.die("w0", "signal 9 (Killed)");
  ASSERT_EQ(stage.all<out::Stop>().size(), 1u);
  EXPECT_EQ(stage.all<out::Stop>()[0].jobs_left, 1u);
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), JobStage::queued);
  EXPECT_EQ(stage.tables().processing.jobs.at("req_000001_000001/00").deaths, 0u);  // the end was ours
}

TEST(Design_stop, asked_twice_means_now) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.input(in::StopRequested{});
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  stage.input(in::StopRequested{});
  EXPECT_EQ(stage.all<out::KillWorker>().size(), 1u);
}

}  // namespace
}  // namespace lockstep::design
