#pragma once

// cross_domain_coordination at the orchestrator (§1.4, §2.4 resource_requests): a worker asks for a model on its device
// and for memory there, for operations of a session. The model comes by an order as a person's does, the memory as a
// grant; both are there when the answer is granted. Requests are durable, so the next life goes on with them.

#include <string>
#include <vector>

#include "orchestrator/turn.h"

namespace lockstep {

/// It is denied when it is still open then: a load behind a running image takes minutes.
inline constexpr Nanos coordination_within = seconds(300);
/// What a grant lasts in a session without a session_timeout, unless it is renewed or the session ends before.
inline constexpr Nanos coordination_lasts = seconds(3600);

/// A request has arrived: answered now, queued at the least.
Status coordination_asked(Turn& turn, const WorkerRecord& worker, const CrossDomainCoordination& asked);

/// One further decision: a grant, a denial, or the order for a model. The most wanted first, then as they came.
bool settle_coordination(Turn& turn);

/// The order of this request has ended without the model.
void coordination_load_failed(Turn& turn, const std::string& request_key, const Error& why);

/// The session has ended: what was granted for it is free.
void coordination_over(Turn& turn, const std::string& session);

/// Workers whose idle models are in the way of memory that was asked for, and the model that may not go: for operations
/// of sessions first, then what programs asked for by themselves (§2.2).
struct RoomWanted {
  WorkerId worker_id;
  ModelId spared;
};
std::vector<RoomWanted> rooms_wanted(const Turn& turn);

}  // namespace lockstep
