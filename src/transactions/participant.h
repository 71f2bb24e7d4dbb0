#pragma once

// The participant's half of two-phase commit, as a worker runs it (§3.5). Volatile: nothing is written, the promise
// dies with the incarnation. Everything that can fail happens in prepare; commit cannot fail.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "events/link_messages.h"

namespace lockstep {

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

 private:
  Bytes budget_;
  std::map<TransactionId, LoadPlan> promised_;
  std::set<TransactionId> committed_;
  std::set<TransactionId> tombstones_;
  std::map<ModelId, LoadPlan> held_;
  std::map<ModelId, TransactionId> held_by_;
};

}  // namespace lockstep
