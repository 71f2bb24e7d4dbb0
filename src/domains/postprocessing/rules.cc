#include "domains/postprocessing/rules.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::postprocessing {

Status validate(const std::vector<PipelineOperation>& pipeline) {
  for (std::size_t i = 0; i < pipeline.size(); ++i) {
    const PipelineOperation& each = pipeline[i];
    const std::string pointer = cat("/postprocessing_pipeline/", i);
    if (each.operation != "upscaling" && each.operation != "safety_check") {
      return fail(ErrorCode::invalid_argument,
                  cat("operation is \"", shortened(each.operation), "\"; it must be upscaling or safety_check"),
                  cat(pointer, "/operation"));
    }
    if (each.model.empty()) {
      return fail(ErrorCode::invalid_argument, cat("operation ", each.operation, " has no model"),
                  cat(pointer, "/model"));
    }
    if (each.strictness && *each.strictness != "strict" && *each.strictness != "moderate" &&
        *each.strictness != "relaxed") {
      return fail(ErrorCode::invalid_argument,
                  cat("strictness is \"", shortened(*each.strictness), "\"; it must be strict, moderate or relaxed"),
                  cat(pointer, "/strictness"));
    }
  }
  return {};
}

Status may_deliver(const std::vector<PipelineOperation>& pipeline, const PostprocessingCompleted& completed) {
  const bool ordered = std::ranges::any_of(pipeline, [](const auto& each) { return each.operation == "safety_check"; });
  const auto& verdict = completed.final_results.safety_analysis;
  if (!ordered) return {};
  if (!verdict) return fail(ErrorCode::internal, "the safety check was ordered, but no verdict came back");
  if (verdict->safety_classification == "safe") return {};
  std::string flags;
  for (const std::string& flag : verdict->flagged_content) flags += cat(flags.empty() ? "" : ", ", flag);
  return fail(ErrorCode::safety_blocked,
              cat("the safety check classified the image as ", verdict->safety_classification, " (safety score ",
                  verdict->content_safety_score, "; flagged: ", flags.empty() ? "none" : flags, ")"));
}

Run after(Run run, RunEvent event) {
  const auto next = run_lifecycle.next(run.state, event);
  LOCKSTEP_CHECK(next.has_value());
  run.state = *next;
  return run;
}

std::string run_id(const JobId& job, std::uint32_t attempt) { return cat("post:", job.str(), ":", attempt); }

}  // namespace lockstep::postprocessing
