#pragma once

#include <string>

#include "base/result.h"
#include "domains/postprocessing/tables.h"

namespace lockstep::postprocessing {

/// A pipeline of known operations, each with a model, where a safety check is followed by nothing that changes pixels
/// unless the worker checks again (it does). invalid_argument names the operation.
Status validate(const std::vector<PipelineOperation>& pipeline);

/// Whether the completed run may deliver: safety_blocked with the score when its verdict is "unsafe", internal when a
/// safety check was ordered and no verdict came (silence is never a pass).
Status may_deliver(const std::vector<PipelineOperation>& pipeline, const PostprocessingCompleted& completed);

/// The run after an event; an event its state does not accept is a defect.
Run after(Run run, RunEvent event);

std::string run_id(const JobId& job, std::uint32_t attempt);

}  // namespace lockstep::postprocessing
