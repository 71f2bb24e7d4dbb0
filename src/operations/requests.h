#pragma once

// Requests of workers that end in exactly one answer (§2.2, §2.4): granted, with what was granted, or denied, with the
// reason; queued is an interim answer, with an estimate. An answer is durable before it is sent, so a requester that
// asks again hears the same. The effect of a grant belongs to the domain that grants; here is only the bookkeeping.
//
//   arrived -> open (queued) -> granted | denied        the deadline denies; the requester's end closes

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/link_messages.h"
#include "state/table.h"

namespace lockstep {

/// body           the event itself, for whoever answers it later
/// fingerprint    digest of the event's body: the same id with another body is another request
/// answer         what the requester was told last; final unless its outcome is queued
/// answer_within  from `asked` on, however often the orchestrator starts meanwhile
struct OpenRequest {
  WorkerId worker_id;
  Incarnation incarnation;
  std::string request_type;
  std::string request_id;
  std::string fingerprint;
  RawJson body{"{}"};
  RequestAnswer answer;
  Nanos answer_within = 0;
  WallTime asked;
};
BOOST_DESCRIBE_STRUCT(OpenRequest, (),
                      (worker_id, incarnation, request_type, request_id, fingerprint, body, answer, answer_within,
                       asked))

struct RequestTables {
  Table<OpenRequest> requests{"operations.requests"};  // key: request_key

  template <class F>
  void for_each_table(F&& f) {
    f(requests);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(requests);
  }
};

/// Answered requests of one worker that are remembered, to answer a repetition; older ones are forgotten.
inline constexpr std::size_t answers_kept = 256;

std::string request_key(const WorkerId& worker, std::string_view request_type, std::string_view request_id);
std::string request_key(const OpenRequest& request);

inline bool is_final(RequestOutcome outcome) { return outcome != RequestOutcome::queued; }

/// What an event is that has arrived, by what is known under its key.
enum class RequestArrival { fresh, repeated, conflicting };
RequestArrival arrival_of(const RequestTables& tables, const OpenRequest& request);

/// Writes the request with its answer. A final answer is never replaced: that is a defect of the caller. The oldest
/// answered request beyond `answers_kept` goes.
void put_answer(const RequestTables& tables, OpenRequest request, RequestAnswer answer, Change& change);

/// Whether what depends on the request may start: only after it was granted.
bool may_start_dependents(const RequestTables& tables, const std::string& key);

/// Open ones, in order of their keys; of one worker, or of all when it is empty.
std::vector<OpenRequest> open_requests(const RequestTables& tables, const WorkerId& worker = {});

/// The requester is gone: every request of it goes, answered or not.
void close_requests(const RequestTables& tables, const WorkerId& worker, Change& change);

RequestAnswer granted(const OpenRequest& request, std::optional<GrantedReservation> reservation);
RequestAnswer queued(const OpenRequest& request, std::optional<WallTime> estimated_start, std::string reason);
RequestAnswer denied(const OpenRequest& request, std::string reason);

}  // namespace lockstep
