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

/// A policy of which every word has an effect. technical_compliance knows one: "strict", by which what a worker
/// delivers is stored only when its bytes are the format and size that were ordered; that is always so. Another is
/// not_yet and names it. §2.6
Status validate(const SafetyPolicyUpdate& policy);

/// What a policy says of results. `delivery` is safety_blocked with score and limit when they are rejected; `review`
/// says why a person should look, where the action is flag_for_review. A policy with a content_safety_minimum above 0
/// rejects results without a verdict: silence is never a pass. §2.6
struct Enforcement {
  Status delivery;
  std::optional<std::string> review;
};
Enforcement enforce(const SafetyPolicyUpdate& policy, const FinalResults& results);

/// What a person asks of the outputs; a word that is absent is the best the format can do, and PNG. invalid_argument
/// names a word that is unknown, or a quality that the format does not have: PNG is always lossless, JPEG never. §2.6
Result<OutputRequirements> read_output(const std::optional<std::string>& format,
                                       const std::optional<std::string>& quality);

/// Outputs of this size can be written so; invalid_argument names the limit of the format.
Status validate_output_size(const OutputRequirements& output, std::uint32_t width, std::uint32_t height);

/// The policy in force: the one that was set last, or the built-in one, which has no thresholds.
SafetyPolicyUpdate policy_of(const Tables& tables);

inline constexpr std::size_t tags_max = 32;  // of one output

/// Each a plain name, at most tags_max; invalid_argument names the tag.
Status validate_tags(const std::vector<std::string>& tags);

/// The run after an event; an event its state does not accept is a defect.
Run after(Run run, RunEvent event);

std::string run_id(const JobId& job, std::uint32_t attempt);

}  // namespace lockstep::postprocessing
