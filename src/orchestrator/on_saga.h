#pragma once

// Sagas whose compensation has an effect outside the tables (§3.6): files of outputs that are rolled back, and the
// memory of loads that failed. The record is durable ahead of the effect; what does not succeed is tried again, a few
// times, and then parked with an alarm until a person decides. Never dropped.

#include <string>
#include <vector>

#include "orchestrator/turn.h"

namespace lockstep {

/// Outputs of the request whose rows go in this decision: their files go after it, where nobody else needs them.
void roll_back_outputs(Turn& turn, const RequestId& request, std::vector<postprocessing::Output> outputs,
                       const std::string& why);

/// The disk has answered.
void on_output_removed(Turn& turn, const in::OutputRemoved& input);
/// The wait before the next attempt is over.
void saga_due(Turn& turn, const std::string& saga_id);
/// After a start: what an earlier life began to undo. What is done already is found done.
void take_up_sagas(Turn& turn);

/// The worker's own allocator has counted. A load that failed there is proven to be unloaded when it holds no more than
/// released_at_most() says, and fails the proof when it is idle and holds more than that and the rest of its ledger (a
/// worker that works may). Between the two nothing is known yet.
void unload_measured(Turn& turn, const WorkerRecord& worker, const MemorySample& sample);

/// A person decides of a saga that is parked: `retry` undoes it once more, for a load by ending the worker; `accept`
/// says that it is gone, or may stay. The row that the caller keeps is written by the caller.
Status resolve_saga(Turn& turn, const SagaRecord& record, bool retry, const std::string& why);

}  // namespace lockstep
