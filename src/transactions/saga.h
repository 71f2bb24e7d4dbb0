#pragma once

// A saga: a long operation as a list of steps with undo (§3.6). It is data: a definition is a table, its states are a
// table, and no code of an operation decides what is undone, or in which order.
//
// Most of what a saga undoes are rows, and the commit that finds the failure takes all of them back at once. A record
// is durable only where something is left to undo outside the tables: from that commit, ahead of the effect, until it
// is known to be undone, or until a person says so. docs/decisions/0074

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/transition_table.h"
#include "base/units.h"
#include "events/words.h"

namespace lockstep {

enum class SagaEvent { steps_done, step_failed, undone, not_undone, given_up, retried, accepted };
BOOST_DESCRIBE_ENUM(SagaEvent, steps_done, step_failed, undone, not_undone, given_up, retried, accepted)

inline constexpr auto saga_lifecycle = transition_table<SagaStatus, SagaEvent>({
    {SagaStatus::running, SagaEvent::steps_done, SagaStatus::completed},
    {SagaStatus::running, SagaEvent::step_failed, SagaStatus::compensating},
    {SagaStatus::compensating, SagaEvent::undone, SagaStatus::compensated},
    {SagaStatus::compensating, SagaEvent::not_undone, SagaStatus::compensating},  // it is tried again
    {SagaStatus::compensating, SagaEvent::given_up, SagaStatus::parked},
    // What held it is gone meanwhile: the end of a worker proves that its memory is free.
    {SagaStatus::parked, SagaEvent::undone, SagaStatus::compensated},
    {SagaStatus::parked, SagaEvent::retried, SagaStatus::compensating},  // a person: try again
    {SagaStatus::parked, SagaEvent::accepted, SagaStatus::compensated},  // a person: it is gone, or may stay
});
static_assert(saga_lifecycle.deterministic());

/// compensatable  can be undone, whether it was done or not
/// pivot          the point of no return: when it is done, only forward; one at most
/// retriable      after the pivot: succeeds if it is tried often enough, and is never undone
enum class StepClass { compensatable, pivot, retriable };

struct StepDefinition {
  std::string_view service;
  std::string_view action;
  std::string_view compensation;  // empty of a pivot and of what is retriable
  StepClass step_class = StepClass::compensatable;
};

/// version: rises when the steps, their order or the meaning of a compensation change. A record of another version is
/// not carried on by this program: it is parked.
struct SagaDefinition {
  std::string_view name;
  std::uint32_t version = 0;
  std::span<const StepDefinition> steps;
};

/// compensatable*, then perhaps a pivot and retriable*; what can be undone says how, and nothing else does.
constexpr bool well_formed(const SagaDefinition& saga) {
  bool pivoted = false;
  for (const StepDefinition& step : saga.steps) {
    const bool forward_only = step.step_class != StepClass::compensatable;
    if (step.service.empty() || step.action.empty() || step.compensation.empty() != forward_only) return false;
    if (step.step_class == StepClass::retriable ? !pivoted : pivoted) return false;
    pivoted = pivoted || step.step_class == StepClass::pivot;
  }
  return !saga.name.empty() && saga.version > 0 && !saga.steps.empty();
}

/// What has to be compensated, as numbers of steps from 1, in the order in which it is done: reverse.
///
/// intents  so many steps, from the first, were begun. The last of them may have had its effect or not, so it is undone
///          too; what has no intent cannot have had any.
/// done     so many are known to be done. When the pivot is among them nothing is undone. A pivot whose outcome is not
///          known is asked again before anybody calls this; one that failed leaves what came before it.
std::vector<std::uint32_t> to_compensate(const SagaDefinition& saga, std::size_t done, std::size_t intents);

/// One effect outside the tables that has to be taken back.
/// target  what the compensation is about: the digest of an output, the id of a model
struct DueCompensation {
  std::uint32_t step = 0;
  std::string compensation;
  std::string target;
};
BOOST_DESCRIBE_STRUCT(DueCompensation, (), (step, compensation, target))

/// Where the bytes of a failed load may still be.
struct UnloadOf {
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  ModelId model_id;
  Bytes bytes;
  JobId wanted_by;
};
BOOST_DESCRIBE_STRUCT(UnloadOf, (), (worker_id, incarnation, device_id, model_id, bytes, wanted_by))

/// A saga of which something is left to undo: compensating or parked. It goes with the last of it.
struct SagaRecord {
  std::string saga_id;
  std::string definition;
  std::uint32_t version = 0;
  TransactionId transaction_id;
  SagaStatus state = SagaStatus::compensating;
  std::vector<DueCompensation> due;  // in the order in which they are done; the first is under way
  std::uint32_t attempts = 0;        // at the first, that did not succeed
  std::string failure;               // why the saga failed
  std::string reason;                // why the first is not done yet
  WallTime since;                    // it compensates
  std::optional<UnloadOf> load;
  std::optional<RequestId> request_id;  // whose outputs are rolled back
};
BOOST_DESCRIBE_STRUCT(SagaRecord, (),
                      (saga_id, definition, version, transaction_id, state, due, attempts, failure, reason, since, load,
                       request_id))

/// The key of a saga's record.
std::string saga_id_of(const TransactionId& transaction);

/// 6 attempts, 31 s in all: what passes by itself (a busy disk, an allocator that frees late) has passed by then; a
/// disk that was mounted read-only needs a person.
inline constexpr std::uint32_t compensation_attempts_max = 6;

/// The wait before the next attempt, after so many: 1 s, doubling, a minute at most.
constexpr Nanos compensation_backoff(std::uint32_t attempts) {
  const std::uint32_t doublings = std::min<std::uint32_t>(attempts > 0 ? attempts - 1 : 0, 6);
  return std::min(seconds(1) << doublings, seconds(60));
}

/// The record after an event; an event that its state does not accept is a defect.
SagaRecord after(SagaRecord record, SagaEvent event);
/// The first of what is due is done, or need not be done any more. `compensated` when it was the last.
SagaRecord first_undone(SagaRecord record);
/// The first could not be done: once more, or `parked` when that was the last attempt.
SagaRecord first_not_undone(SagaRecord record, std::string reason);
/// It cannot go on: parked, with the reason.
SagaRecord parked(SagaRecord record, std::string reason);
/// A person wants what is due tried anew.
SagaRecord retried(SagaRecord record);

/// Whether this program may carry the record on. known: its definition of that name, or nullptr.
/// invalid_transition names both versions.
Status may_carry_on(const SagaRecord& record, const SagaDefinition* known);

}  // namespace lockstep
