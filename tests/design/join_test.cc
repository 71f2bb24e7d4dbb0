// §3.7, design §6: ways in. A worker dials, a worker returns with what it holds, and strangers stay outside.

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

const WorkerId w0("w0");
const std::string job = "req_000001_000001/00";

/// A first life with one loaded model on w0, and a second one after its end.
class Design_3_7_return : public testing::Test {
 protected:
  Design_3_7_return() : first(settings()) {
    first.ready();
    first.generate(1, false);
    first.until_inferring();
    transaction = first.tables().model.residencies.entries().begin()->second.row.transaction_id;
  }
  static Settings settings() {
    Settings settings = settings_of(1);
    settings.workers[0].kind = device::Kind::cpu;
    return settings;
  }
  Stage restarted() const {
    Stage second(settings(), first.journal);
    second.start();
    second.scan();
    return second;
  }
  Hello returning() const {
    Hello hello{w0, "test", 4000, std::nullopt, std::nullopt, std::nullopt};
    hello.rejoin =
        Rejoin{"cluster", "token of w0", Epoch{1}, {{transaction, tiny, 150_MiB, HoldingState::loaded}}, {}, {}};
    return hello;
  }
  std::string run() const { return first.sent(FrameType::inference_request).back().envelope.op_id; }
  static Incarnation one() { return Incarnation{1}; }

  Stage first;
  TransactionId transaction;
};

TEST_F(Design_3_7_return, a_model_stays_loaded_across_a_restart_and_the_next_job_needs_no_load) {
  first.finish_image();
  Stage second = restarted();
  EXPECT_TRUE(second.all<out::SpawnWorker>().empty());
  second.dial(5, returning(), one());
  ASSERT_EQ(second.all<out::AcceptLink>().size(), 1u) << second.refusal();
  const auto welcomes = second.sent(FrameType::welcome);
  ASSERT_EQ(welcomes.size(), 1u);
  EXPECT_EQ(welcomes[0].effect.link, 5u);
  EXPECT_EQ(welcomes[0].body<Welcome>().token, "token of w0");
  second.say("w0", FrameType::ready, Ready{});
  second.expect_one_load_held();
  second.generate(2, false);
  EXPECT_EQ(second.sent(FrameType::inference_request).size(), 1u);
  EXPECT_TRUE(second.sent(FrameType::transaction_prepare).empty());
  EXPECT_TRUE(second.all<out::FillSegment>().empty());
}

TEST_F(Design_3_7_return, a_running_image_goes_on_and_its_answer_counts) {
  Stage second = restarted();
  EXPECT_EQ(second.stage_of(job), JobStage::inferring);
  Hello hello = returning();
  hello.rejoin->tasks = {{run(), 1}};
  second.dial(5, hello, one());
  second.say("w0", FrameType::ready, Ready{});
  EXPECT_EQ(second.stage_of(job), JobStage::inferring);
  EXPECT_TRUE(second.sent(FrameType::inference_request).empty());  // not told twice
  InferenceCompleted done;
  done.request_id = run();
  done.result = Stage::picture("rgb8");
  second.say("w0", FrameType::inference_completed, done, 1, run(), {100});
  EXPECT_EQ(second.stage_of(job), JobStage::postprocessing);
  EXPECT_EQ(second.tables().processing.jobs.at(job).attempt, 2u);  // the first one gave the pixels
}

// docs/decisions/0075: a report is known by what it answers, whichever link brings it.
TEST_F(Design_3_7_return, a_report_that_comes_over_two_links_counts_once) {
  InferenceCompleted done;
  done.request_id = run();
  done.result = Stage::picture("rgb8");
  first.say("w0", FrameType::inference_completed, done, 1, run(), {100});
  ASSERT_EQ(first.stage_of(job), JobStage::postprocessing);
  const auto next = first.sent(FrameType::postprocessing_request);
  ASSERT_EQ(next.size(), 1u);
  Hello hello = returning();
  hello.rejoin->tasks = {{next[0].envelope.op_id, next[0].envelope.attempt}};
  first.dial(5, hello, one());
  ASSERT_EQ(first.refusal(), "");
  first.say("w0", FrameType::ready, Ready{});
  const Rev rev = first.machine.rev();
  first.say("w0", FrameType::inference_completed, done, 1, run(), {101});
  EXPECT_EQ(first.machine.rev(), rev) << "it was applied again";
  EXPECT_EQ(first.stage_of(job), JobStage::postprocessing);
  EXPECT_EQ(first.sent(FrameType::postprocessing_request).size(), 1u);
  EXPECT_TRUE(std::ranges::any_of(first.all<out::DropHandle>(), [](const auto& each) { return each.handle == 101u; }));
  EXPECT_TRUE(first.all<out::KillWorker>().empty());
}

TEST_F(Design_3_7_return, an_image_that_the_worker_does_not_know_starts_over) {
  Stage second = restarted();
  second.dial(5, returning(), one());
  EXPECT_EQ(second.stage_of(job), JobStage::queued);
  second.say("w0", FrameType::ready, Ready{});
  ASSERT_EQ(second.sent(FrameType::inference_request).size(), 1u);
  EXPECT_EQ(second.sent(FrameType::inference_request)[0].envelope.attempt, 2u);
  EXPECT_EQ(second.tables().processing.jobs.at(job).deaths, 0u);
}

// The worker dials again before its old link was seen to end: what was being prepared over that one is given up (§3.5
// participant_lost), and its deadline must not end what the worker was given since.
TEST_F(Design_3_7_return, what_was_prepared_over_the_old_link_is_given_up) {
  first.finish_image();
  first.scan({tiny, ModelId("other")});
  first.generate_with(2, {.model = "other"}, false);
  first.fill_segments();
  const TransactionId lost = first.prepared();
  ASSERT_NE(lost, transaction);
  ASSERT_EQ(first.machine.live().intents.size(), 1u);
  first.dial(5, returning(), one());
  ASSERT_EQ(first.refusal(), "");
  EXPECT_TRUE(std::ranges::any_of(first.all<out::DisarmTimer>(),
                                  [&](const auto& each) { return each.name == cat("prepare:", lost.str()); }));
  EXPECT_TRUE(std::ranges::none_of(first.machine.live().intents, [&](const auto& each) { return each.first == lost; }));
  first.input(in::TimerFired{cat("prepare:", lost.str())});  // it was under way
  first.say("w0", FrameType::ready, Ready{});
  EXPECT_EQ(first.tables().processing.jobs.at("req_000001_000002/00").load_failures, 0u) << "nobody failed to load";
}

TEST_F(Design_3_7_return, work_that_nobody_waits_for_is_cancelled_and_waited_for) {
  Stage second = restarted();
  Hello hello = returning();
  hello.rejoin->tasks = {{"inf:of another time:1", 1}};
  second.dial(5, hello, one());
  second.say("w0", FrameType::ready, Ready{});
  ASSERT_EQ(second.sent(FrameType::task_cancel).size(), 1u);
  EXPECT_EQ(second.sent(FrameType::task_cancel)[0].envelope.op_id, "inf:of another time:1");
  EXPECT_TRUE(second.sent(FrameType::inference_request).empty());  // it is busy
  second.say("w0", FrameType::task_failed, TaskFailed{"cancelled", "it was cancelled"}, 1, "inf:of another time:1");
  EXPECT_EQ(second.sent(FrameType::inference_request).size(), 1u);
}

TEST_F(Design_3_7_return, a_promise_without_a_decision_is_aborted) {
  Stage second = restarted();
  Hello hello = returning();
  hello.rejoin->holdings.push_back({TransactionId("tx_1_9"), ModelId("other"), 1_MiB, HoldingState::promised});
  second.dial(5, hello, one());
  const auto aborts = second.sent(FrameType::transaction_abort);
  ASSERT_EQ(aborts.size(), 1u);
  EXPECT_EQ(aborts[0].body<TransactionDecision>().transaction_id, TransactionId("tx_1_9"));
}

// §3.5: a person took the decision as acknowledged, and the frame that told it was lost with the link. It stays
// decided.
TEST_F(Design_3_7_return, a_promise_whose_decision_a_person_ended_is_not_aborted) {
  first.finish_image();
  first.scan({tiny, ModelId("other")});
  first.generate_with(2, {.model = "other"}, false);
  first.fill_segments();
  const TransactionId kept = first.prepared();
  ASSERT_NE(kept, transaction);
  first.vote("w0", kept, Vote::vote_commit);
  first.input(in::ResolveTransaction{
      {901, cat("transactions/", kept.str(), "/resolve"), R"({"decision":"commit","reason":"it hangs"})"}});
  ASSERT_FALSE(first.tables().transactions.decisions.contains(kept.str()));
  Hello hello = returning();
  hello.rejoin->holdings.push_back({kept, ModelId("other"), 1_MiB, HoldingState::promised});
  first.dial(5, hello, one());
  EXPECT_TRUE(first.sent(FrameType::transaction_abort).empty());
  EXPECT_NE(first.refusal().find(cat("the decision of ", kept.str(), " was lost")), std::string::npos);
}

TEST_F(Design_3_7_return, its_segments_are_the_caches_again_when_the_kernel_says_they_are_the_same) {
  Stage filled(settings());
  filled.ready();
  filled.generate(1, false);
  for (const std::string component : {"unet", "vae"}) {
    filled.input(in::SegmentFilled{tiny, component, std::string(64, 'a'), cat("memory of ", component)});
  }
  filled.vote("w0", filled.prepared(), Vote::vote_commit);
  filled.loaded("w0", filled.prepared());
  Stage second(settings(), filled.journal);
  second.start();
  second.scan();
  Hello hello = returning();
  hello.rejoin->holdings[0].transaction_id = filled.prepared();
  hello.rejoin->segments = {{tiny, "unet", std::string(64, 'a')}, {tiny, "vae", std::string(64, 'a')}};
  second.dial(5, hello, one(), Stage::here(), {11, 12}, {"memory of unet", "memory of something else"});
  const auto adopted = second.all<out::AdoptSegment>();
  ASSERT_EQ(adopted.size(), 1u) << second.refusal();
  EXPECT_EQ(adopted[0].component, "unet");
  EXPECT_EQ(adopted[0].handle, 11u);
  ASSERT_EQ(second.all<out::DropHandle>().size(), 1u);
  EXPECT_EQ(second.all<out::DropHandle>()[0].handle, 12u);
  EXPECT_TRUE(second.tables().memory.segments.contains("tiny/unet"));
  EXPECT_FALSE(second.tables().memory.segments.contains("tiny/vae"));  // nobody holds that memory any more
}

TEST_F(Design_3_7_return, one_that_holds_what_the_ledger_does_not_know_is_ended) {
  Stage second = restarted();
  Hello hello = returning();
  hello.rejoin->holdings.push_back({TransactionId("tx_1_9"), ModelId("other"), 1_MiB, HoldingState::loaded});
  second.dial(5, hello, one());
  EXPECT_TRUE(second.all<out::AcceptLink>().empty());
  EXPECT_NE(second.refusal().find("other, which the ledger does not know"), std::string::npos);
  EXPECT_TRUE(second.all<out::ProveGone>().back().kill);
}

TEST_F(Design_3_7_return, only_the_same_process_of_the_same_life_may_return) {
  const auto refused = [&](const std::string& why, auto change) {
    Stage second = restarted();
    const Rev rev = second.machine.rev();
    Hello hello = returning();
    Incarnation incarnation{1};
    in::Peer peer = Stage::here();
    change(hello, incarnation, peer);
    second.dial(5, hello, incarnation, peer, {77});
    EXPECT_TRUE(second.all<out::AcceptLink>().empty()) << why;
    EXPECT_NE(second.refusal().find(why), std::string::npos) << second.refusal();
    EXPECT_EQ(second.machine.rev(), rev) << why;
    EXPECT_EQ(second.all<out::DropHandle>().size(), 1u) << why;
  };
  refused("not the process", [](Hello& hello, Incarnation&, in::Peer&) { hello.rejoin->token = "guessed"; });
  refused("not the process", [](Hello&, Incarnation&, in::Peer& peer) { peer.pid = 4001; });
  refused("not the process", [](Hello&, Incarnation&, in::Peer& peer) { peer.start_ticks = 78; });
  refused("incarnation 3 is over", [](Hello&, Incarnation& incarnation, in::Peer&) { incarnation = Incarnation{3}; });
  refused("another server", [](Hello& hello, Incarnation&, in::Peer&) { hello.rejoin->cluster_id = "other"; });
  refused("epoch 7", [](Hello& hello, Incarnation&, in::Peer&) { hello.rejoin->last_epoch = Epoch{7}; });
}

TEST_F(Design_3_7_return, a_link_that_ends_is_not_an_end_and_the_newer_connection_counts) {
  first.input(in::LinkClosed{w0, one(), "connection reset", 0});
  EXPECT_TRUE(first.all<out::KillWorker>().empty());
  Hello hello = returning();
  hello.rejoin->tasks = {{run(), 1}};
  first.dial(5, hello, one());
  ASSERT_EQ(first.all<out::AcceptLink>().size(), 1u) << first.refusal();
  EXPECT_EQ(first.stage_of(job), JobStage::inferring);
  const Rev rev = first.machine.rev();
  // Late bytes of the old connection, and its end, are nobody's.
  Envelope late = first.envelope("w0", Heartbeat{});
  first.input(in::FrameArrived{w0, one(), to_frame(FrameType::heartbeat, late, 0), {}, 0});
  first.input(in::LinkClosed{w0, one(), "connection reset", 0});
  EXPECT_EQ(first.machine.rev(), rev);
  EXPECT_TRUE(first.machine.live().workers.at(w0).link_open);
  EXPECT_TRUE(first.sent(FrameType::heartbeat_ack).empty());
  // A second connection of the same process takes the place of the first, which was half open.
  first.dial(6, hello, one());
  ASSERT_EQ(first.all<out::AcceptLink>().size(), 2u) << first.refusal();
  EXPECT_EQ(first.machine.live().workers.at(w0).link, 6u);
}

// A link may break between the hello and its welcome. The worker says the same again; the first hello may be late.
TEST_F(Design_3_7_return, a_lost_welcome_does_not_make_it_a_stranger_and_a_late_hello_takes_nothing) {
  Stage second = restarted();
  second.dial(5, returning(), one());
  second.dial(7, returning(), one());
  ASSERT_EQ(second.all<out::AcceptLink>().size(), 2u) << second.refusal();
  const Rev rev = second.machine.rev();
  second.dial(6, returning(), one());
  EXPECT_EQ(second.all<out::AcceptLink>().size(), 2u);
  EXPECT_NE(second.refusal().find("a newer connection"), std::string::npos) << second.refusal();
  EXPECT_EQ(second.machine.live().workers.at(w0).link, 7u);
  EXPECT_EQ(second.machine.rev(), rev);
  EXPECT_TRUE(second.all<out::KillWorker>().empty());
}

// What a job shows goes with the worker that said it.
TEST_F(Design_3_7_return, the_progress_of_a_worker_that_is_gone_is_shown_no_more) {
  first.say("w0", FrameType::inference_progress, InferenceProgress{run(), {3, 8, 0.1, {}}, {}}, 1, run());
  ASSERT_EQ(first.machine.live().progress.size(), 1u);
  first.input(in::WorkerGone{w0, one(), "signal 9 (Killed)"});
  EXPECT_TRUE(first.machine.live().progress.empty());
}

TEST_F(Design_3_7_return, one_that_does_not_return_is_ended_and_the_image_starts_over) {
  Stage second = restarted();
  second.input(in::TimerFired{"rejoin:w0"});
  EXPECT_TRUE(second.all<out::ProveGone>().back().kill);
  second.expect_one_load_held();
  second.input(in::WorkerGone{w0, one(), "its lock is free"});
  second.expect_no_trace_of_a_load();
  EXPECT_EQ(second.stage_of(job), JobStage::queued);
  EXPECT_EQ(second.tables().processing.jobs.at(job).deaths, 0u);  // our end, not the image's doing
  EXPECT_EQ(second.all<out::SpawnWorker>().size(), 1u);
}

// ---- the first time -----------------------------------------------------------------------------------------------

class Design_ways_in : public testing::Test {
 protected:
  Design_ways_in() : stage(settings_of(1)) {
    stage.start();
    stage.scan();
  }
  static Hello stranger(const std::string& name = "guest") {
    Hello hello{WorkerId(name), "test", 4000, "sesame", OfferedDevice{"cpu", 2_GiB}, std::nullopt};
    return hello;
  }
  Stage stage;
};

TEST_F(Design_ways_in, a_worker_that_knows_the_secret_is_let_in_with_its_device) {
  stage.dial(5, stranger());
  ASSERT_EQ(stage.all<out::AcceptLink>().size(), 1u) << stage.refusal();
  stage.say("guest", FrameType::ready, Ready{});
  const WorkerRecord& worker = stage.tables().liveness.workers.at("guest");
  EXPECT_EQ(worker.state, WorkerState::ready);
  EXPECT_EQ(worker.origin, Origin::path);
  EXPECT_EQ(stage.tables().device.devices.at("guest_device").memory_budget, 2_GiB);
  stage.generate(1, false);
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).back().effect.worker_id, WorkerId("guest"));
}

TEST_F(Design_ways_in, its_device_leaves_with_it_and_its_next_life_is_another_incarnation) {
  stage.dial(5, stranger());
  stage.input(in::WorkerGone{WorkerId("guest"), Incarnation{1}, "its process is gone"});
  EXPECT_FALSE(stage.tables().device.devices.contains("guest_device"));
  const auto spawns = stage.all<out::SpawnWorker>();
  EXPECT_TRUE(
      std::ranges::none_of(spawns, [](const auto& each) { return each.worker.worker_id == WorkerId("guest"); }));
  stage.dial(6, stranger());
  ASSERT_EQ(stage.all<out::AcceptLink>().size(), 2u);
  EXPECT_EQ(stage.all<out::AcceptLink>()[1].incarnation, Incarnation{2});
}

TEST_F(Design_ways_in, a_stranger_is_refused_with_a_sentence_and_nothing_changes) {
  const auto refused = [&](const std::string& why, Hello hello, in::Peer peer = Stage::here()) {
    const Rev rev = stage.machine.rev();
    const std::size_t before = stage.all<out::RefuseLink>().size();
    stage.dial(9, hello, Incarnation{}, peer);
    EXPECT_EQ(stage.all<out::RefuseLink>().size(), before + 1) << why;
    EXPECT_NE(stage.refusal().find(why), std::string::npos) << stage.refusal();
    EXPECT_EQ(stage.machine.rev(), rev);
    EXPECT_TRUE(stage.all<out::AcceptLink>().empty());
  };
  Hello hello = stranger();
  hello.secret = "open";
  refused("secret is missing or wrong", hello);
  hello.secret.reset();
  refused("secret is missing or wrong", hello);
  hello = stranger();
  hello.device.reset();
  refused("must offer a device", hello);
  hello.device = OfferedDevice{"abacus", 1_GiB};
  refused("must offer a device", hello);
  hello.device = OfferedDevice{"cpu", Bytes{}};
  refused("memory_budget must be above 0", hello);
  refused("worker_id must be", stranger("../escape"));
  refused("starts itself", stranger("w0"));
  in::Peer remote;
  remote.origin = Origin::tls;
  remote.certificate_name = "somebody";
  refused("certificate is for somebody", stranger(), remote);
}

TEST_F(Design_ways_in, a_certificate_stands_for_the_secret) {
  in::Peer remote;
  remote.origin = Origin::tls;
  remote.certificate_name = "guest";
  Hello hello = stranger();
  hello.secret.reset();
  stage.dial(5, hello, Incarnation{}, remote);
  EXPECT_EQ(stage.all<out::AcceptLink>().size(), 1u) << stage.refusal();
}

TEST_F(Design_ways_in, a_name_is_taken_by_one_living_process) {
  stage.dial(5, stranger());
  stage.dial(6, stranger());
  ASSERT_EQ(stage.all<out::RefuseLink>().size(), 1u);
  EXPECT_NE(stage.refusal().find("is here already, as incarnation 1"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::design
