#include "transactions/participant.h"

#include <gtest/gtest.h>

#include "events/json_write.h"
#include "transactions/two_phase_commit.h"

namespace lockstep {
namespace {

const TransactionId tx1("tx_1_1");
const TransactionId tx2("tx_1_2");
const ModelId sdxl("sdxl");
const ModelId upscaler("upscaler");

TransactionPrepare prepare_of(const TransactionId& transaction, const ModelId& model, Bytes bytes) {
  return {transaction, {.model_id = model, .kind = "sdxl", .path = "", .bytes = bytes, .components = {}}};
}

// §3.5 phase 1
TEST(Participant, a_prepare_that_fits_is_promised_and_counted) {
  Participant worker(8_GiB);
  const TransactionVote vote = worker.prepare(prepare_of(tx1, sdxl, 6_GiB));
  EXPECT_EQ(vote.transaction_id, tx1);
  EXPECT_EQ(vote.prepare_result, Vote::vote_commit);
  EXPECT_EQ(vote.reason, "");
  EXPECT_EQ(worker.used(), 6_GiB);
  EXPECT_EQ(worker.held(sdxl), nullptr);  // promised is not held
}

TEST(Participant, a_prepare_over_the_budget_votes_no_and_promises_nothing) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
  const TransactionVote vote = worker.prepare(prepare_of(tx2, upscaler, 3_GiB));
  EXPECT_EQ(vote.prepare_result, Vote::vote_abort);
  EXPECT_EQ(vote.reason, "model upscaler needs 3GB, 2GB of 8GB are free");
  EXPECT_EQ(worker.used(), 6_GiB);
  EXPECT_EQ(worker.prepare(prepare_of(tx2, upscaler, 2_GiB)).prepare_result, Vote::vote_commit);
}

TEST(Participant, a_repeated_prepare_repeats_the_vote_and_counts_once) {
  Participant worker(8_GiB);
  const TransactionPrepare prepare = prepare_of(tx1, sdxl, 6_GiB);
  ASSERT_EQ(worker.prepare(prepare).prepare_result, Vote::vote_commit);
  EXPECT_EQ(worker.prepare(prepare).prepare_result, Vote::vote_commit);
  EXPECT_EQ(worker.used(), 6_GiB);
  ASSERT_TRUE(worker.commit(tx1));
  EXPECT_EQ(worker.prepare(prepare).prepare_result, Vote::vote_commit);
  EXPECT_EQ(worker.used(), 6_GiB);
}

// Anti-suspension: an abort that overtakes its prepare must not leave a promise behind for ever.
TEST(Participant, a_prepare_after_its_abort_votes_no) {
  Participant worker(8_GiB);
  worker.abort(tx1);
  const TransactionVote vote = worker.prepare(prepare_of(tx1, sdxl, 1_GiB));
  EXPECT_EQ(vote.prepare_result, Vote::vote_abort);
  EXPECT_NE(vote.reason, "");
  EXPECT_EQ(worker.used(), 0_GiB);
  EXPECT_FALSE(worker.commit(tx1));
}

TEST(Participant, an_abort_gives_the_promise_back) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
  worker.abort(tx1);
  worker.abort(tx1);
  EXPECT_EQ(worker.used(), 0_GiB);
  EXPECT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_abort);
  EXPECT_EQ(worker.prepare(prepare_of(tx2, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
}

// §3.5 phase 2
TEST(Participant, a_commit_is_idempotent) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
  EXPECT_TRUE(worker.commit(tx1));
  EXPECT_TRUE(worker.commit(tx1));
  EXPECT_EQ(worker.used(), 6_GiB);
  ASSERT_NE(worker.held(sdxl), nullptr);
  EXPECT_EQ(worker.held(sdxl)->bytes, 6_GiB);
}

TEST(Participant, a_commit_of_what_was_never_promised_is_refused) {
  Participant worker(8_GiB);
  EXPECT_FALSE(worker.commit(tx1));
  EXPECT_EQ(worker.holdings().size(), 0u);
  EXPECT_EQ(worker.used(), 0_GiB);
}

TEST(Participant, an_abort_after_the_commit_changes_nothing) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
  ASSERT_TRUE(worker.commit(tx1));
  worker.abort(tx1);
  EXPECT_NE(worker.held(sdxl), nullptr);
  EXPECT_EQ(worker.used(), 6_GiB);
  EXPECT_TRUE(worker.commit(tx1));
}

TEST(Participant, one_model_is_promised_or_held_once) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 1_GiB)).prepare_result, Vote::vote_commit);
  EXPECT_EQ(worker.prepare(prepare_of(tx2, sdxl, 1_GiB)).prepare_result, Vote::vote_abort);
  ASSERT_TRUE(worker.commit(tx1));
  EXPECT_EQ(worker.prepare(prepare_of(tx2, sdxl, 1_GiB)).prepare_result, Vote::vote_abort);
  worker.release(sdxl);
  EXPECT_EQ(worker.used(), 0_GiB);
  EXPECT_EQ(worker.prepare(prepare_of(tx2, sdxl, 8_GiB)).prepare_result, Vote::vote_commit);
}

TEST(Participant, a_budget_below_what_is_used_leaves_nothing_free) {
  Participant worker(8_GiB);
  ASSERT_EQ(worker.prepare(prepare_of(tx1, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
  worker.set_budget(4_GiB);
  EXPECT_EQ(worker.prepare(prepare_of(tx2, upscaler, Bytes{1})).prepare_result, Vote::vote_abort);
}

// The table is what the code does: each row is walked from the state in which it begins.
TEST(Participant, every_row_of_its_table_is_what_happens) {
  for (const auto& row : participant_lifecycle.rows) {
    SCOPED_TRACE(json::enum_name(row.from) + " " + json::enum_name(row.event));
    Participant worker(8_GiB);
    if (row.from == ParticipantState::promised || row.from == ParticipantState::committed) {
      worker.prepare(prepare_of(tx1, sdxl, 6_GiB));
    }
    if (row.from == ParticipantState::committed) {
      ASSERT_TRUE(worker.commit(tx1));
    }
    if (row.from == ParticipantState::aborted) worker.abort(tx1);
    ASSERT_EQ(worker.state_of(tx1), row.from);
    switch (row.event) {
      case ParticipantEvent::prepare: worker.prepare(prepare_of(tx1, sdxl, 6_GiB)); break;
      case ParticipantEvent::objection: worker.prepare(prepare_of(tx1, sdxl, 9_GiB)); break;
      case ParticipantEvent::commit: EXPECT_TRUE(worker.commit(tx1)); break;
      case ParticipantEvent::abort: worker.abort(tx1); break;
    }
    EXPECT_EQ(worker.state_of(tx1), row.to);
    const bool counts = row.to == ParticipantState::promised || row.to == ParticipantState::committed;
    EXPECT_EQ(worker.used(), counts ? 6_GiB : Bytes{});
  }
}

TEST(Participant, what_its_table_does_not_list_is_refused) {
  Participant worker(8_GiB);
  ASSERT_EQ(participant_lifecycle.next(ParticipantState::unknown, ParticipantEvent::commit), std::nullopt);
  EXPECT_FALSE(worker.commit(tx1));
  worker.abort(tx1);
  ASSERT_EQ(participant_lifecycle.next(ParticipantState::aborted, ParticipantEvent::commit), std::nullopt);
  EXPECT_FALSE(worker.commit(tx1));
  EXPECT_EQ(worker.state_of(tx1), ParticipantState::aborted);
}

// S23: a worker that lives for months remembers no more than one that lives for an hour.
TEST(Participant, only_the_newest_transactions_are_remembered) {
  Participant worker(8_GiB);
  constexpr std::uint64_t many = 3 * RecentTransactions::kept;
  for (std::uint64_t i = 1; i <= many; ++i) {
    const TransactionId loaded = transaction_id(Epoch{1}, 2 * i);
    ASSERT_EQ(worker.prepare(prepare_of(loaded, sdxl, 6_GiB)).prepare_result, Vote::vote_commit);
    ASSERT_TRUE(worker.commit(loaded));
    worker.release(sdxl);
    worker.abort(transaction_id(Epoch{1}, 2 * i + 1));
  }
  EXPECT_EQ(worker.remembered(), 2 * RecentTransactions::kept);
  EXPECT_EQ(worker.used(), Bytes{});
  const TransactionId committed = transaction_id(Epoch{1}, 2 * (many - RecentTransactions::kept + 1));
  const TransactionId aborted = transaction_id(Epoch{1}, 2 * (many - RecentTransactions::kept + 1) + 1);
  EXPECT_TRUE(worker.commit(committed));
  EXPECT_EQ(worker.prepare(prepare_of(aborted, sdxl, 1_GiB)).prepare_result, Vote::vote_abort);
}

TEST(TwoPhaseCommit, transaction_ids_of_two_epochs_or_counters_never_meet) {
  EXPECT_EQ(transaction_id(Epoch{12}, 3).str(), "tx_12_3");
  EXPECT_NE(transaction_id(Epoch{1}, 12), transaction_id(Epoch{11}, 2));
}

constexpr TransactionEvent transaction_events[] = {
    TransactionEvent::vote_commit,      TransactionEvent::vote_abort, TransactionEvent::prepare_timeout,
    TransactionEvent::participant_lost, TransactionEvent::overruled,  TransactionEvent::acknowledged};

// §3.5: a decision is never taken twice and never taken back.
TEST(TwoPhaseCommit, nothing_leads_out_of_a_decision_but_its_end) {
  using S = TransactionState;
  using E = TransactionEvent;
  for (const E event : {E::vote_commit, E::vote_abort, E::prepare_timeout}) {
    EXPECT_EQ(after(S::committing, event), S::committing);
    EXPECT_EQ(after(S::aborted, event), S::aborted);
  }
  EXPECT_EQ(after(S::committing, E::participant_lost), S::committed);
  EXPECT_EQ(after(S::committing, E::acknowledged), S::committed);
  EXPECT_EQ(two_phase_commit.next(S::committing, E::overruled), std::nullopt) << "decided means decided";
  for (const E event : transaction_events) {
    EXPECT_EQ(two_phase_commit.next(S::committed, event).value_or(S::committed), S::committed);
    EXPECT_EQ(two_phase_commit.next(S::aborted, event).value_or(S::aborted), S::aborted);
  }
}

// §3.5 phase 1: commit has one way, and it is the yes.
TEST(TwoPhaseCommit, only_a_yes_leads_to_the_decision_and_all_else_to_abort) {
  using S = TransactionState;
  for (const TransactionEvent event : transaction_events) {
    if (event == TransactionEvent::acknowledged) continue;
    EXPECT_EQ(after(S::preparing, event), event == TransactionEvent::vote_commit ? S::committing : S::aborted);
  }
  EXPECT_DEATH(after(S::preparing, TransactionEvent::acknowledged), "next.has_value");
}

}  // namespace
}  // namespace lockstep
