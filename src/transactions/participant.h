#pragma once

// The participant's half of two-phase commit, as a worker runs it (§3.5). Volatile: nothing is written, the promise
// dies with the incarnation. Everything that can fail happens in prepare; commit cannot fail.

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/transition_table.h"
#include "base/units.h"
#include "events/link_messages.h"

namespace lockstep {

/// aborted: a tombstone. unknown: never heard of, refused, or forgotten since.
enum class ParticipantState { unknown, promised, committed, aborted };
BOOST_DESCRIBE_ENUM(ParticipantState, unknown, promised, committed, aborted)

/// prepare   it was asked, and nothing stands against a promise
/// objection it was asked, and cannot
enum class ParticipantEvent { prepare, objection, commit, abort };
BOOST_DESCRIBE_ENUM(ParticipantEvent, prepare, objection, commit, abort)

inline constexpr auto participant_lifecycle = transition_table<ParticipantState, ParticipantEvent>({
    {ParticipantState::unknown, ParticipantEvent::prepare, ParticipantState::promised},
    {ParticipantState::unknown, ParticipantEvent::objection, ParticipantState::unknown},  // it votes no
    {ParticipantState::unknown, ParticipantEvent::abort, ParticipantState::aborted},      // it overtook its prepare
    {ParticipantState::promised, ParticipantEvent::prepare, ParticipantState::promised},  // the same vote again
    {ParticipantState::promised, ParticipantEvent::commit, ParticipantState::committed},
    {ParticipantState::promised, ParticipantEvent::abort, ParticipantState::aborted},
    {ParticipantState::committed, ParticipantEvent::prepare, ParticipantState::committed},  // the same vote again
    {ParticipantState::committed, ParticipantEvent::commit, ParticipantState::committed},
    {ParticipantState::committed, ParticipantEvent::abort, ParticipantState::committed},  // decided means decided
    {ParticipantState::aborted, ParticipantEvent::prepare, ParticipantState::aborted},    // anti-suspension: votes no
    {ParticipantState::aborted, ParticipantEvent::abort, ParticipantState::aborted},
});
static_assert(participant_lifecycle.deterministic());

/// The newest transactions of a kind. A frame of one that ended can only be behind frames that are on their way
/// already, and a worker loads one model at a time: so many are far more than can be met again, and no life is too long
/// for them.
class RecentTransactions {
 public:
  static constexpr std::size_t kept = 1024;

  void insert(const TransactionId& id) {
    if (!ids_.insert(id).second) return;
    order_.push_back(id);
    if (order_.size() <= kept) return;
    ids_.erase(order_.front());
    order_.pop_front();
  }
  bool contains(const TransactionId& id) const { return ids_.contains(id); }
  std::size_t size() const { return ids_.size(); }

 private:
  std::set<TransactionId> ids_;
  std::deque<TransactionId> order_;
};

class Participant {
 public:
  explicit Participant(Bytes budget) : budget_(budget) {}

  /// Votes, and promises the plan's bytes with a yes. The same prepare again repeats its vote; a prepare after its
  /// abort votes no (tombstone: anti-suspension), as does a model that is held or promised already.
  TransactionVote prepare(const TransactionPrepare& prepare);

  /// The promise becomes a holding. True the first time and on repeats; false when it was never promised, which only
  /// a broken coordinator can cause.
  bool commit(const TransactionId& transaction);

  /// Takes the promise back and leaves a tombstone, also for a transaction it never saw.
  void abort(const TransactionId& transaction);

  /// The plan that was committed for a model; nullptr when none is held.
  const LoadPlan* held(const ModelId& model) const;
  /// Promises and holdings, for a hello: state promised or committed.
  std::vector<Holding> inventory() const;
  /// The model is gone: its bytes are free again. A no-op for an unknown one.
  void release(const ModelId& model);

  void set_budget(Bytes budget) { budget_ = budget; }
  Bytes budget() const { return budget_; }
  /// Promised and held.
  Bytes used() const;
  const std::map<ModelId, LoadPlan>& holdings() const { return held_; }
  /// Transactions that it would know again.
  std::size_t remembered() const { return promised_.size() + committed_.size() + tombstones_.size(); }
  ParticipantState state_of(const TransactionId& transaction) const;

 private:
  /// Why what is asked cannot be promised; empty when it can.
  std::string objection_to(const TransactionPrepare& prepare) const;

  Bytes budget_;
  std::map<TransactionId, LoadPlan> promised_;
  RecentTransactions committed_;
  RecentTransactions tombstones_;
  std::map<ModelId, LoadPlan> held_;
  std::map<ModelId, TransactionId> held_by_;
};

}  // namespace lockstep
