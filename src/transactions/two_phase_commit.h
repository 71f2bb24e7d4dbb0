#pragma once

// The coordinator's half of two-phase commit, presumed abort (§3.5; docs/decisions/0006). The in-process services
// (device, memory, model cache) share the journal with the decision, so their branch is the commit record itself;
// the one remote participant of a load is a worker, volatile: its promise lives as long as its incarnation.
//
// A transaction is in memory while it prepares, durable from the decision until the last acknowledgement, and is
// never decided twice. An abort writes nothing: a coordinator that forgot it says abort (presumed). Every state that an
// intent or a decision takes comes out of the table here, by after().

#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/transition_table.h"
#include "base/units.h"
#include "state/table.h"
#include "transactions/saga.h"

namespace lockstep {

enum class TransactionState { preparing, committing, committed, aborted };
BOOST_DESCRIBE_ENUM(TransactionState, preparing, committing, committed, aborted)

/// overruled  a person took the abort in the participant's place
enum class TransactionEvent { vote_commit, vote_abort, prepare_timeout, participant_lost, overruled, acknowledged };
BOOST_DESCRIBE_ENUM(TransactionEvent, vote_commit, vote_abort, prepare_timeout, participant_lost, overruled,
                    acknowledged)

inline constexpr auto two_phase_commit = transition_table<TransactionState, TransactionEvent>({
    {TransactionState::preparing, TransactionEvent::vote_commit, TransactionState::committing},
    {TransactionState::preparing, TransactionEvent::vote_abort, TransactionState::aborted},
    {TransactionState::preparing, TransactionEvent::prepare_timeout, TransactionState::aborted},
    {TransactionState::preparing, TransactionEvent::participant_lost, TransactionState::aborted},
    {TransactionState::preparing, TransactionEvent::overruled, TransactionState::aborted},
    // Decided means decided: a participant that dies now is repaired, the decision stays (docs/decisions/0006).
    {TransactionState::committing, TransactionEvent::acknowledged, TransactionState::committed},
    {TransactionState::committing, TransactionEvent::participant_lost, TransactionState::committed},
    // Late or said twice: nothing is decided again, and no timer decides at all.
    {TransactionState::committing, TransactionEvent::vote_commit, TransactionState::committing},
    {TransactionState::committing, TransactionEvent::vote_abort, TransactionState::committing},
    {TransactionState::committing, TransactionEvent::prepare_timeout, TransactionState::committing},
    {TransactionState::committed, TransactionEvent::acknowledged, TransactionState::committed},
    {TransactionState::committed, TransactionEvent::participant_lost, TransactionState::committed},
    // Whatever is unknown was aborted (presumed): such a vote is answered with abort.
    {TransactionState::aborted, TransactionEvent::vote_commit, TransactionState::aborted},
    {TransactionState::aborted, TransactionEvent::vote_abort, TransactionState::aborted},
    {TransactionState::aborted, TransactionEvent::prepare_timeout, TransactionState::aborted},
});
static_assert(two_phase_commit.deterministic());

/// The state after an event; an event that it does not accept is a defect.
TransactionState after(TransactionState state, TransactionEvent event);

/// The durable decision: it exists from the commit record until the participant has acknowledged or died.
struct Decision {
  TransactionId transaction_id;
  TransactionState state = TransactionState::committing;
  WorkerId participant;
  Incarnation incarnation;
  ModelId model_id;
};
BOOST_DESCRIBE_STRUCT(Decision, (), (transaction_id, state, participant, incarnation, model_id))

/// What a person decided in the protocol's place, for ever. was: the state it found.
struct TransactionOverride {
  TransactionId transaction_id;
  std::string decision;  // "commit", "abort"; of a saga that is parked "retry", "accept"
  std::string was;       // "preparing", "committing", "parked"
  WorkerId participant;
  std::string reason;
  WallTime at;
};
BOOST_DESCRIBE_STRUCT(TransactionOverride, (), (transaction_id, decision, was, participant, reason, at))

struct TransactionTables {
  Table<Decision> decisions{"transactions.decisions"};
  Table<TransactionOverride> overrides{"transactions.overrides"};
  Table<SagaRecord> sagas{"transactions.sagas"};

  template <class F>
  void for_each_table(F&& f) {
    f(decisions);
    f(overrides);
    f(sagas);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(decisions);
    f(overrides);
    f(sagas);
  }
};

/// Never reused: the epoch rises at every start, the counter within one.
TransactionId transaction_id(Epoch epoch, std::uint64_t counter);

}  // namespace lockstep
