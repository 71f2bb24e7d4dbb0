// §1, design §6: who speaks decides what may change. A frame of another life, another epoch or out of order changes
// nothing, and a worker that sends one is ended.

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

class Design_2_owner : public testing::Test {
 protected:
  Design_2_owner() : stage(settings_of(1)) {
    stage.ready();
    stage.generate(1);
    stage.fill_segments();
    transaction = stage.prepared();
    rev = stage.machine.rev();
    digest = stage.machine.digest();
  }
  /// A vote that would decide the load if it were accepted.
  Frame good_vote() const {
    return to_frame(FrameType::transaction_vote,
                    stage.envelope("w0", TransactionVote{transaction, Vote::vote_commit, ""}), 0);
  }
  void expect_ended_without_a_change(std::string_view why) const {
    EXPECT_EQ(stage.machine.rev(), rev);
    EXPECT_EQ(stage.machine.digest(), digest);
    EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
    EXPECT_EQ(stage.machine.live().intents.size(), 1u);
    const auto kills = stage.all<out::KillWorker>();
    ASSERT_EQ(kills.size(), 1u);
    EXPECT_EQ(kills[0].worker_id, WorkerId("w0"));
    EXPECT_EQ(kills[0].incarnation, Incarnation{1});
    EXPECT_NE(kills[0].why.find(why), std::string::npos) << kills[0].why;
    EXPECT_EQ(stage.machine.live().workers.at(WorkerId("w0")).frames_refused, 1u);
  }

  Stage stage;
  TransactionId transaction;
  Rev rev;
  std::string digest;
};

TEST_F(Design_2_owner, the_good_frame_would_have_been_accepted) {
  stage.say_raw("w0", good_vote());
  EXPECT_GT(stage.machine.rev(), rev);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

TEST_F(Design_2_owner, a_frame_of_another_incarnation_ends_the_worker) {
  Frame frame = good_vote();
  frame.header.incarnation = Incarnation{7};
  stage.say_raw("w0", frame);
  expect_ended_without_a_change("incarnation 7");
}

TEST_F(Design_2_owner, a_frame_of_another_epoch_ends_the_worker) {
  Frame frame = good_vote();
  frame.header.epoch = Epoch{9};
  stage.say_raw("w0", frame);
  expect_ended_without_a_change("epoch 9");
}

TEST_F(Design_2_owner, a_gap_in_the_sequence_ends_the_worker) {
  Frame frame = good_vote();
  ++frame.header.sequence;
  stage.say_raw("w0", frame);
  expect_ended_without_a_change("where 4, 1, 1 was expected");
}

TEST_F(Design_2_owner, a_repeated_sequence_ends_the_worker) {
  Frame frame = good_vote();
  --frame.header.sequence;
  stage.say_raw("w0", frame);
  expect_ended_without_a_change("frame 3");
}

// Each lane counts by itself, so that a more urgent frame may overtake; and each is checked.
TEST_F(Design_2_owner, another_lane_has_its_own_sequence) {
  Envelope urgent = stage.envelope("w0", TransactionVote{transaction, Vote::vote_commit, ""});
  urgent.urgency = Urgency::p0_critical;
  stage.say_raw("w0", to_frame(FrameType::transaction_vote, urgent, 0));
  expect_ended_without_a_change("in lane P0 where 1, 1, 1 was expected");
}

TEST_F(Design_2_owner, the_first_frame_of_another_lane_is_accepted) {
  Envelope urgent = stage.envelope("w0", TransactionVote{transaction, Vote::vote_commit, ""});
  urgent.urgency = Urgency::p0_critical;
  urgent.sequence = 1;
  stage.say_raw("w0", to_frame(FrameType::transaction_vote, urgent, 0));
  EXPECT_GT(stage.machine.rev(), rev);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

TEST_F(Design_2_owner, a_broken_body_ends_the_worker_with_the_place) {
  stage.say_raw("w0",
                to_frame(FrameType::transaction_vote, stage.envelope("w0", RawJson{R"({"transaction_id":7})"}), 0));
  expect_ended_without_a_change("/transaction_id");
}

// What the header routes on and what the body says are one statement, or the frame is forged.
TEST_F(Design_2_owner, a_body_that_contradicts_its_header_ends_the_worker) {
  Envelope forged = stage.envelope("w0", TransactionVote{transaction, Vote::vote_commit, ""});
  forged.sequence = 1;  // the first of that lane
  Frame frame = to_frame(FrameType::transaction_vote, forged, 0);
  frame.header.urgency = Urgency::p0_critical;
  stage.say_raw("w0", frame);
  expect_ended_without_a_change("the body says p2_normal, the header p0_critical");
}

TEST_F(Design_2_owner, descriptors_of_a_refused_frame_are_given_up) {
  Frame frame = good_vote();
  ++frame.header.sequence;
  stage.say_raw("w0", frame, {41, 42});
  const auto drops = stage.all<out::DropHandle>();
  ASSERT_EQ(drops.size(), 2u);
  EXPECT_EQ(drops[0].handle, 41u);
  EXPECT_EQ(drops[1].handle, 42u);
}

// §1: commands are the orchestrator's. A worker that sends one is not believed, and not ended: ownership_test.cc.
TEST_F(Design_2_owner, a_worker_cannot_send_what_only_the_orchestrator_may) {
  for (const FrameType type : {FrameType::welcome, FrameType::transaction_commit, FrameType::model_load_request,
                               FrameType::inference_request, FrameType::task_cancel}) {
    Stage fresh(settings_of(1));
    fresh.ready();
    const Rev before = fresh.machine.rev();
    fresh.say("w0", type, TransactionDecision{transaction});
    EXPECT_EQ(fresh.machine.rev(), before);
    EXPECT_TRUE(fresh.all<out::KillWorker>().empty()) << json::enum_name(type);
    EXPECT_EQ(fresh.machine.live().counters.writes_refused.size(), 1u) << json::enum_name(type);
  }
}

TEST_F(Design_2_owner, an_older_incarnations_hello_does_not_join) {
  Envelope first = stage.envelope("w0", Hello{WorkerId("w0"), "test", 4000});
  first.sequence = 1;
  const Frame hello = to_frame(FrameType::hello, first, 0);
  stage.die("w0");
  const Rev after = stage.machine.rev();
  stage.input(in::FrameArrived{WorkerId("w0"), Incarnation{1}, hello, {}});
  EXPECT_EQ(stage.machine.rev(), after);
  EXPECT_EQ(stage.tables().liveness.workers.at("w0").state, WorkerState::spawning);
  EXPECT_EQ(stage.tables().liveness.workers.at("w0").incarnation, Incarnation{2});
}

TEST_F(Design_2_owner, a_late_death_of_an_older_incarnation_does_not_touch_the_new_one) {
  stage.die("w0");
  stage.join("w0");
  const Rev after = stage.machine.rev();
  stage.input(in::WorkerGone{WorkerId("w0"), Incarnation{1}, "signal 9 (Killed)"});
  EXPECT_EQ(stage.machine.rev(), after);
  EXPECT_EQ(stage.tables().liveness.workers.at("w0").state, WorkerState::ready);
}

}  // namespace
}  // namespace lockstep::design
