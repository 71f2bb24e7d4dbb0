#pragma once

// Request-type events at the orchestrator: each is taken in once, answered, answered again when it is repeated, denied
// when its deadline passes, and closed with its requester. operations/requests.h has the rules; who grants is the
// domain's file (on_memory.cc, ...).

#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "operations/requests.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// The limit a request-type event has when it names none.
inline constexpr Nanos answer_within_default = seconds(60);

/// A request-type event has arrived. Returns it when it is new: the caller answers it in this very turn, queued at the
/// least. A repetition was answered here with the answer of before, a conflicting one was denied; both return nothing.
std::optional<OpenRequest> take_request(Turn& turn, const WorkerRecord& worker, std::string_view request_type,
                                        std::string request_id, const std::string& body,
                                        Nanos within = answer_within_default);

/// Writes the answer, sends it, and keeps or ends the deadline. The first final answer is the only one.
void answer_request(Turn& turn, const OpenRequest& request, RequestAnswer answer);

/// "request:<key>" fired: an open request is denied.
void request_timed_out(Turn& turn, const std::string& key);

/// What is left of a limit that ends at `until`: none when it is past, and never more than the limit, whatever was done
/// to the wall clock meanwhile.
Nanos time_left(const Turn& turn, WallTime until, Nanos limit);

/// After a start: deadlines of what is open count on, and what is past them is denied.
void rearm_requests(Turn& turn);

/// The requester is gone. What was granted is released by the domain that granted it.
void requester_gone(Turn& turn, const WorkerId& worker);

}  // namespace lockstep
