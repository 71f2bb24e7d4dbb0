#pragma once

// The documents of §3.1-3.6 and §3.8, made from the state as it is. What a document claims to hold is computed here
// from the tables, the ledger and the links at that moment; nothing of it is a constant.

#include <string>
#include <vector>

#include "events/transaction_documents.h"
#include "orchestrator/transaction_log.h"
#include "orchestrator/turn.h"

namespace lockstep {

// ---- a load -------------------------------------------------------------------------------------------------------

/// What the load made of the model on its worker; nullptr before the decision, and when it was undone.
const model::Residency* residency_of(const Turn& turn, const LoggedTransaction& load);
AtomicDeviceMemory device_memory_document(const Turn& turn, const LoggedTransaction& load);
/// Both halves of the load agree, and so do the totals of its device.
DeviceMemoryConsistency device_memory_consistency(const Turn& turn, const LoggedTransaction& load);
AtomicModelMemory model_memory_document(const Turn& turn, const LoggedTransaction& load);
/// progress: of the copy, 0 to 1.
ModelLoadingStateUpdate loading_state(const Turn& turn, const LoggedTransaction& load, double progress);
/// In the order of §3.2. What undo_load takes back, it takes back in one commit.
ModelLoadingFailure loading_failure(const LoggedTransaction& load);
TransactionVoting voting(const LoggedTransaction& load);
TransactionOutcome outcome(const Turn& turn, const LoggedTransaction& load);
/// Of what the log knows by its record alone: a rollback, a definition that this program does not have.
Saga rollback_saga(const LoggedTransaction& entry);
/// back: it is being undone, and nothing is undone yet.
Saga load_saga(const LoggedTransaction& load, bool back = false);
/// proof: what was found when it was measured whether all is free again.
PartialAllocationFailure partial_allocation(const LoggedTransaction& load, ReleaseProof proof);
/// Of the ledger alone: no row is the transaction's.
bool ledger_is_free_of(const Turn& turn, const LoggedTransaction& load);

// ---- an image -----------------------------------------------------------------------------------------------------

AtomicProcessingInference processing_inference_document(const Turn& turn, const LoggedTransaction& image);
SessionInferenceSync session_sync(const Turn& turn, const LoggedTransaction& image, std::string readiness);
AtomicInferencePostprocessing inference_postprocessing_document(const Turn& turn, const LoggedTransaction& image);
InferencePostprocessingFlow pipeline_flow(const Turn& turn, const LoggedTransaction& image);
Saga image_saga(const LoggedTransaction& image, bool back = false);

}  // namespace lockstep
