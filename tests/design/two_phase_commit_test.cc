// §3.5: two-phase commit of a model load between the orchestrator's domains and one worker.

#include "tests/design/fixture.h"

#include "domains/memory/rules.h"

namespace lockstep::design {
namespace {

class Design_3_5_two_phase_commit : public testing::Test {
 protected:
  Design_3_5_two_phase_commit() : stage(settings_of(1)) {
    stage.ready();
    stage.generate(1);
    stage.fill_segments();
    transaction = stage.prepared();
  }
  const processing::Job& job() const { return stage.tables().processing.jobs.at("req_000001_000001/00"); }

  Stage stage;
  TransactionId transaction;
};

// §3.5 phase 1: the prepare carries the whole plan, and nothing durable changes before the vote.
TEST_F(Design_3_5_two_phase_commit, a_prepare_promises_nothing_durable) {
  const auto prepares = stage.sent(FrameType::transaction_prepare);
  ASSERT_EQ(prepares.size(), 1u);
  const TransactionPrepare prepare = prepares[0].body<TransactionPrepare>();
  EXPECT_EQ(prepare.load.bytes, 150_MiB);
  ASSERT_EQ(prepare.load.components.size(), 2u);
  EXPECT_EQ(prepare.load.components[0].sha256, std::string(64, 'a'));
  stage.expect_no_trace_of_a_load();
  ASSERT_EQ(stage.machine.live().intents.size(), 1u);
  EXPECT_EQ(stage.machine.live().intents.begin()->second.state, TransactionState::preparing);
  EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
}

// §3.5 phase 1: one participant that cannot prepare aborts the whole transaction.
TEST_F(Design_3_5_two_phase_commit, one_vote_abort_aborts_all) {
  stage.vote("w0", transaction, Vote::vote_abort, "no room");
  stage.expect_no_trace_of_a_load();
  EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
  EXPECT_TRUE(stage.sent(FrameType::model_load_request).empty());
  const auto aborts = stage.sent(FrameType::transaction_abort);
  ASSERT_EQ(aborts.size(), 1u);
  EXPECT_EQ(aborts[0].body<TransactionDecision>().transaction_id, transaction);
  EXPECT_FALSE(stage.machine.live().intents.contains(transaction));
  EXPECT_EQ(job().load_failures, 1u);
  EXPECT_NE(stage.prepared(), transaction);  // the next try is a transaction of its own
}

TEST_F(Design_3_5_two_phase_commit, a_job_whose_load_is_refused_three_times_fails_with_the_reason) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(job().stage, processing::JobStage::queued) << i;
    stage.vote("w0", stage.prepared(), Vote::vote_abort, "no room");
  }
  EXPECT_EQ(job().stage, processing::JobStage::failed);
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 429);
  EXPECT_NE(replies[0].body.find("no room"), std::string::npos) << replies[0].body;
  stage.expect_no_trace_of_a_load();
}

// §3.5 phase 1: no vote within the deadline is an abort, and the participant is told.
TEST_F(Design_3_5_two_phase_commit, a_prepare_timeout_aborts_and_tells_the_worker) {
  const auto armed = stage.all<out::ArmTimer>();
  EXPECT_TRUE(std::ranges::any_of(armed, [&](const out::ArmTimer& each) {
    return each.name == cat("prepare:", transaction.str()) && each.deadline == stage.now + seconds(5);
  }));
  stage.input(in::TimerFired{cat("prepare:", transaction.str())});
  stage.expect_no_trace_of_a_load();
  const auto aborts = stage.sent(FrameType::transaction_abort);
  ASSERT_EQ(aborts.size(), 1u);
  EXPECT_EQ(aborts[0].body<TransactionDecision>().transaction_id, transaction);
  EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
  EXPECT_EQ(job().load_failures, 1u);
}

// Presumed abort: who forgot a transaction says abort.
TEST_F(Design_3_5_two_phase_commit, a_late_vote_after_the_timeout_is_answered_abort) {
  stage.input(in::TimerFired{cat("prepare:", transaction.str())});
  const std::size_t aborts_before = stage.sent(FrameType::transaction_abort).size();
  const Rev rev = stage.machine.rev();
  stage.vote("w0", transaction, Vote::vote_commit);
  const auto aborts = stage.sent(FrameType::transaction_abort);
  ASSERT_EQ(aborts.size(), aborts_before + 1);
  EXPECT_EQ(aborts.back().body<TransactionDecision>().transaction_id, transaction);
  EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
  EXPECT_EQ(stage.machine.rev(), rev);
  stage.expect_no_trace_of_a_load();
}

// §3.5 phase 2: all branches in one commit.
TEST_F(Design_3_5_two_phase_commit, the_decision_is_one_commit_over_all_domains) {
  const std::size_t before = stage.journal.size();
  stage.vote("w0", transaction, Vote::vote_commit);
  ASSERT_EQ(stage.journal.size(), before + 1);
  const auto commit = decode_commit(stage.journal.back().body);
  ASSERT_TRUE(commit.has_value());
  std::vector<std::string> tables;
  for (const FactChange& change : commit->changes) {
    EXPECT_TRUE(change.value.has_value());
    tables.push_back(change.table);
  }
  std::ranges::sort(tables);
  EXPECT_EQ(tables, (std::vector<std::string>{"device.reservations", "memory.allocations", "model.residencies",
                                              "transactions.decisions"}));
  EXPECT_EQ(stage.tables().transactions.decisions.at(transaction.str()).state, TransactionState::committing);
  EXPECT_EQ(memory::allocated_on(stage.tables().memory, DeviceId("gpu_0")), 150_MiB);
}

// §3.5 phase 2: nobody hears of a decision that a crash could still take back.
TEST_F(Design_3_5_two_phase_commit, the_commit_frame_leaves_only_when_the_decision_is_durable) {
  stage.manual = true;
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.release();
  EXPECT_TRUE(stage.sent(FrameType::transaction_commit).empty());
  EXPECT_TRUE(stage.sent(FrameType::model_load_request).empty());
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 1u);  // memory has it at once
  stage.sync();
  EXPECT_EQ(stage.sent(FrameType::transaction_commit).size(), 1u);
  EXPECT_EQ(stage.sent(FrameType::model_load_request).size(), 1u);
}

// A crash between vote and disk: the decision never was. The new life presumes abort.
TEST_F(Design_3_5_two_phase_commit, an_undurable_decision_never_was) {
  stage.manual = true;
  stage.vote("w0", transaction, Vote::vote_commit);
  Stage next(settings_of(1), stage.journal);
  next.expect_no_trace_of_a_load();
  EXPECT_TRUE(next.tables().processing.jobs.contains("req_000001_000001/00"));
}

// Decided means decided: the death of the participant is repaired by a commit of its own, the decision stays written.
TEST_F(Design_3_5_two_phase_commit, a_worker_that_dies_after_the_decision_is_repaired_not_undecided) {
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.expect_one_load_held();
  const std::vector<Record> decided = stage.journal;
  stage.die("w0");
  stage.expect_no_trace_of_a_load();
  ASSERT_GT(stage.journal.size(), decided.size());
  for (std::size_t i = 0; i < decided.size(); ++i) EXPECT_EQ(stage.journal[i].body, decided[i].body);
  EXPECT_TRUE(stage.sent(FrameType::transaction_abort).empty());
  EXPECT_EQ(job().stage, processing::JobStage::queued);
  EXPECT_EQ(job().deaths, 1u);
  EXPECT_EQ(stage.incarnation("w0"), Incarnation{2});
}

TEST_F(Design_3_5_two_phase_commit, a_worker_that_dies_before_its_vote_leaves_nothing) {
  stage.die("w0");
  stage.expect_no_trace_of_a_load();
  EXPECT_TRUE(stage.machine.live().intents.empty());
  stage.join("w0");
  EXPECT_NE(stage.prepared(), transaction);  // a new participant, a new transaction
}

// A vote belongs to one incarnation: the old life cannot promise for the new one.
TEST_F(Design_3_5_two_phase_commit, a_vote_of_another_incarnation_changes_nothing) {
  Frame late = to_frame(FrameType::transaction_vote,
                        stage.envelope("w0", TransactionVote{transaction, Vote::vote_commit, ""}), 0);
  stage.die("w0");
  stage.join("w0");
  const Rev rev = stage.machine.rev();
  const std::size_t effects = stage.released.size();
  stage.input(in::FrameArrived{WorkerId("w0"), Incarnation{1}, late, {}});
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_EQ(stage.released.size(), effects);
  stage.expect_no_trace_of_a_load();
}

TEST(Design_3_5_two_phase_commit_of_two, a_vote_in_anothers_name_decides_nothing_and_is_counted) {
  Stage stage(settings_of(2));
  stage.ready();
  stage.generate(1);
  stage.fill_segments();
  const auto prepares = stage.sent(FrameType::transaction_prepare);
  ASSERT_EQ(prepares.size(), 1u);
  const std::string other = prepares[0].effect.worker_id == WorkerId("w0") ? "w1" : "w0";
  stage.vote(other, stage.prepared(), Vote::vote_commit);
  stage.expect_no_trace_of_a_load();
  EXPECT_EQ(stage.machine.live().intents.size(), 1u);
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId(other), "votes"}), 1u);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

// A decision is taken once: a repeated vote finds it taken.
TEST_F(Design_3_5_two_phase_commit, a_repeated_vote_decides_nothing_twice) {
  stage.vote("w0", transaction, Vote::vote_commit);
  const Rev rev = stage.machine.rev();
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.vote("w0", transaction, Vote::vote_abort, "changed my mind");
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_EQ(stage.sent(FrameType::transaction_commit).size(), 1u);
  EXPECT_TRUE(stage.sent(FrameType::transaction_abort).empty());
  stage.expect_one_load_held();
}

// A timer never resolves what is decided, and one that was on its way when the vote came is no exception.
TEST_F(Design_3_5_two_phase_commit, a_timer_that_fires_after_the_decision_changes_nothing) {
  stage.vote("w0", transaction, Vote::vote_commit);
  const Rev rev = stage.machine.rev();
  stage.input(in::TimerFired{cat("prepare:", transaction.str())});
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_TRUE(stage.sent(FrameType::transaction_abort).empty());
  stage.expect_one_load_held();
}

}  // namespace
}  // namespace lockstep::design
