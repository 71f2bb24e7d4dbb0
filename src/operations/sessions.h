#pragma once

// Sessions: what holds requests together, with a class, limits and prerequisites (§1.4, §2.4). Reading what a person
// asks for, what workers are told, and what people see; the rules are in domains/processing.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/result.h"
#include "events/processing_events.h"
#include "operations/tables.h"

namespace lockstep {

/// The body of POST /api/v1/sessions. Every key may be absent; a limit that is absent is none.
struct SessionBody {
  std::optional<processing::SessionClass> session_class;
  std::optional<AllocationPriority> priority;
  std::optional<SizeText> max_memory;
  std::optional<std::vector<DeviceId>> gpu_allocation;
  std::optional<DurationText> operation_timeout;
  std::optional<DurationText> session_timeout;
  std::optional<std::uint32_t> expected_operations;
  std::optional<std::vector<std::string>> depends_on;
};
BOOST_DESCRIBE_STRUCT(SessionBody, (),
                      (session_class, priority, max_memory, gpu_allocation, operation_timeout, session_timeout,
                       expected_operations, depends_on))

/// The body of POST /api/v1/sessions/{id}/pause.
struct PauseBody {
  std::optional<std::string> reason;
  std::optional<std::string> resume_condition;  // "memory_usage_below_80_percent"
};
BOOST_DESCRIBE_STRUCT(PauseBody, (), (reason, resume_condition))

/// What a worker said last about its part of a session. Volatile.
struct SessionReport {
  WorkerId worker_id;
  SessionProgressUpdate update;
};
BOOST_DESCRIBE_STRUCT(SessionReport, (), (worker_id, update))

struct SessionView {
  processing::Session session;
  std::uint32_t operations_completed = 0;
  std::uint32_t operations_remaining = 0;  // of what is known, or of what is expected where that is more
  double percent = 0;
  std::string estimated_completion;  // RFC 3339; empty until an operation was done
  std::string waits_for;             // why nothing of it starts; empty when something may
  std::vector<SessionReport> workers;
};
BOOST_DESCRIBE_STRUCT(SessionView, (),
                      (session, operations_completed, operations_remaining, percent, estimated_completion, waits_for,
                       workers))

struct SessionsView {
  Rev rev;
  std::vector<SessionView> sessions;  // newest first, at most 200
};
BOOST_DESCRIBE_STRUCT(SessionsView, (), (rev, sessions))

/// A session as it will be stored; invalid_argument or not_found name the field, the value and the limit.
Result<processing::Session> read_session(const Tables& tables, const SessionBody& body, const std::string& id,
                                         WallTime now);

/// The request becomes the session's: the session is there, takes requests, and allows what the request needs.
Status join_session(const Tables& tables, const std::string& session, processing::Request& request);

/// "ses_<epoch>_<counter>", zero-padded like a request's id.
std::string session_id(Epoch epoch, std::uint64_t counter);

/// What a worker hears before it does the first work of a session. A limit that is not set is 0.
ProcessingSessionCreated message_of(const processing::Session& session);

/// The parts that tables alone can tell.
SessionView view_of(const Tables& tables, const processing::Session& session, WallTime now);

}  // namespace lockstep
