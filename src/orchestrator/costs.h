#pragma once

// What operations of models took, as workers report it (§1.2, §1.4, §1.6): times and peaks by model, operation and size
// of the picture. Volatile: it is learned again after a start, and nothing durable rests on it.

#include <string>
#include <vector>

#include "orchestrator/turn.h"

namespace lockstep {

/// A run that completed on this worker, one of `images` that were made at once. The peak that a CUDA device reports has
/// the weights in it: what is more than the ledger has granted there is what a run takes beside its models.
void inference_took(Turn& turn, const WorkerRecord& worker, const InferenceRequest& request,
                    const ResultMetadata& result, std::uint32_t images);
/// Each operation of a pipeline that completed.
void pipeline_took(Turn& turn, const PostprocessingCompleted& completed);

/// The most that runs of this model and size took beside their models on devices with memory of their own; 0 before the
/// first. So many images at once that were never made together take as many times what one takes. A processor's runs
/// are not predicted: its budget is for models alone.
Bytes predicted_beyond(const Turn& turn, const InferenceRequest& request, const DeviceId& device,
                       std::uint32_t images = 1);

/// Of one model, by operation and size.
std::vector<OperationCostView> costs_of(const Live& live, const ModelId& model);

}  // namespace lockstep
