#pragma once

// Propagate: what workers shall know reaches them, in order, and is confirmed (§2.1 steps 4 to 6, §2.8). A handler that
// decides something stages it with tell(); after the commit settle_deliveries() sends what may leave, all changes of
// one decision in one frame, and the answers come back through state_applied(). One that stays out is sent again.

#include <optional>
#include <string>

#include "orchestrator/turn.h"
#include "propagation/ordering.h"
#include "propagation/outbox.h"

namespace lockstep {

/// The worker shall know this from now on. Nothing happens when it is what the worker shall know already.
/// about: the device that it changes. urgency: by the level of the fact, where that is not in the message itself.
template <class Body>
void tell(Turn& turn, const WorkerRecord& worker, const Body& body, const DeviceId& about, Urgency urgency) {
  const std::string key = delivery_key(worker.worker_id, Body::event_type, subject_of(body));
  const Delivery* before = turn.tables.propagation.deliveries.find(key);
  Delivery row = intend(before, worker.worker_id, body, turn.live.rev.next(), about, urgency);
  if (before != nullptr && before->intended.text == row.intended.text && before->urgency == urgency) return;
  turn.change.put(turn.tables.propagation.deliveries, key, row);
}
/// What is set for the worker's own device. frame: the type whose row of §2.7's table says how urgent it is.
template <class Body>
void tell(Turn& turn, const WorkerRecord& worker, FrameType frame, const Body& body) {
  tell(turn, worker, body, worker.device_id, place(frame, body, "").lane);
}

/// Whether the worker wants to hear of a fact that concerns these domains.
bool subscribes(const WorkerRecord& worker, Domains domains);

/// Somebody is not waited for any more: what was held may leave.
void look_again(Turn& turn);

/// Sends the command now, or as soon as what comes before it about the worker's device is applied.
template <class Body>
void send_in_order(Turn& turn, const WorkerRecord& worker, FrameType type, const Body& body, Operation operation) {
  Placed placed = place(type, body, operation.op_id);
  turn.live.deliveries[worker.worker_id].held.push_back(
      {type, RawJson{json::to_text(body)}, std::move(operation), std::move(placed), turn.live.rev.next()});
  turn.live.untold.insert(worker.worker_id);
}

/// Whether work of this type may begin on the worker: it has applied everything that comes before it, or is late.
bool may_begin(const Turn& turn, const WorkerRecord& worker, FrameType type);

/// The worker's answers. invalid_argument for an answer about what it was never told.
Status state_applied(Turn& turn, const WorkerRecord& worker, const std::string& op_id, const StateApplied& answer);
/// "deliver:<worker>" fired: what is unanswered goes out again.
void delivery_due(Turn& turn, const WorkerRecord& worker);
/// A link was opened: nothing was told over it yet.
void begin_deliveries(Turn& turn, const WorkerRecord& worker);
/// Its life is over, and what it knew with it.
void end_deliveries(Turn& turn, const WorkerRecord& worker);

/// What every worker shall know and has confirmed, as JSON: "propagation" and "propagation/<worker>".
std::optional<std::string> propagation_view_text(const Turn& turn, const std::string& path);

}  // namespace lockstep
