#pragma once

// How changes of state reach a worker, and what it answers (§2.1 step 5): all related changes of one decision in one
// message, each answered by itself.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "events/json_write.h"

namespace lockstep {

/// One event of §2.1-2.6 as it stands in the specification. subject: what it is about; rev: that decided it.
struct StateEvent {
  std::string type;
  std::string subject;
  std::uint64_t rev = 0;
  RawJson body{"{}"};
};
BOOST_DESCRIBE_STRUCT(StateEvent, (), (type, subject, rev, body))

/// orchestrator -> worker. rev: of the newest change in it. With `snapshot` it is everything the worker shall know, and
/// what is not in it is forgotten.
struct StateChanges {
  std::uint64_t rev = 0;
  bool snapshot = false;
  std::vector<StateEvent> events;
  bool requires_confirmation = true;
};
BOOST_DESCRIBE_STRUCT(StateChanges, (), (rev, snapshot, events, requires_confirmation))

/// rejected   the worker cannot: intended and confirmed stay apart, and people see it
/// not_yet    nothing here carries it out so far
/// not_owner  it is about a device that is not this worker's
enum class AppliedOutcome { applied, rejected, not_yet, not_owner };
BOOST_DESCRIBE_ENUM(AppliedOutcome, applied, rejected, not_yet, not_owner)

/// One setting that cannot be; the others of its message were applied.
struct RejectedSetting {
  std::string setting;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(RejectedSetting, (), (setting, reason))

/// Of one event, named as it came. reason: empty with `applied`. settings: which ones were rejected, and why.
struct AppliedResult {
  std::string type;
  std::string subject;
  std::uint64_t rev = 0;
  AppliedOutcome outcome = AppliedOutcome::applied;
  std::string reason;
  std::optional<std::vector<RejectedSetting>> settings;
};
BOOST_DESCRIBE_STRUCT(AppliedResult, (), (type, subject, rev, outcome, reason, settings))

/// worker -> orchestrator: the answers, at once or one by one; rev is that of the message.
struct StateApplied {
  std::uint64_t rev = 0;
  std::vector<AppliedResult> results;
};
BOOST_DESCRIBE_STRUCT(StateApplied, (), (rev, results))

}  // namespace lockstep
