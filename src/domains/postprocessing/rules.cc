#include "domains/postprocessing/rules.h"

#include <algorithm>

#include "base/check.h"
#include "base/image_header.h"
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

Status validate(const SafetyPolicyUpdate& policy) {
  const std::string& word = policy.safety_thresholds.technical_compliance;
  if (word == "strict") return {};
  return fail(
      ErrorCode::not_yet,
      cat("technical_compliance is \"", shortened(word),
          "\"; this version knows strict only: what a worker delivers is the format and size that were ordered"),
      "/safety_thresholds/technical_compliance");
}

Enforcement enforce(const SafetyPolicyUpdate& policy, const FinalResults& results) {
  Enforcement out;
  const auto below = [&](EnforcementAction action, std::string why) {
    why += cat("; policy ", policy.policy_version);
    if (action == EnforcementAction::reject && out.delivery) out.delivery = fail(ErrorCode::safety_blocked, why);
    if (action != EnforcementAction::flag_for_review) return;
    out.review = out.review ? cat(*out.review, "; ", why) : why;
  };
  const SafetyThresholds& limits = policy.safety_thresholds;
  const double safety_minimum = limits.content_safety_minimum.value;
  if (!results.safety_analysis) {
    if (safety_minimum > 0) {
      below(EnforcementAction::reject, "a safety score is required, and no safety check was made");
    }
  } else if (results.safety_analysis->content_safety_score < safety_minimum) {
    below(policy.enforcement_actions.below_safety_threshold,
          cat("the safety score is ", results.safety_analysis->content_safety_score, "; the minimum is ",
              safety_minimum));
  }
  const double quality = results.quality_assessment.technical_quality;
  if (quality < limits.quality_minimum) {
    below(policy.enforcement_actions.below_quality_threshold,
          cat("the technical quality is ", quality, "; the minimum is ", limits.quality_minimum));
  }
  return out;
}

Result<OutputRequirements> read_output(const std::optional<std::string>& format,
                                       const std::optional<std::string>& quality) {
  const ImageFormat* const chosen = image_format(format.value_or("png"));
  if (chosen == nullptr) {
    return fail(ErrorCode::invalid_argument,
                cat("output_format is \"", shortened(*format), "\"; it must be ", image_format_names),
                "/output_format");
  }
  OutputRequirements out;
  out.format = chosen->name;
  out.quality = quality.value_or(chosen->lossless ? "lossless" : "high");
  const auto refuse = [&](std::string_view limit) {
    return fail(ErrorCode::invalid_argument, cat("output_quality is \"", shortened(out.quality), "\"; ", limit),
                "/output_quality");
  };
  const bool lossless = out.quality == "lossless";
  if (!lossless && out.quality != "high" && out.quality != "medium" && out.quality != "low") {
    return refuse("it must be lossless, high, medium or low");
  }
  if (lossless && !chosen->lossless) return refuse(cat(out.format, " cannot be; it must be high, medium or low"));
  if (!lossless && !chosen->lossy) return refuse(cat(out.format, " is always lossless"));
  return out;
}

Status validate_output_size(const OutputRequirements& output, std::uint32_t width, std::uint32_t height) {
  const std::uint32_t side_max = image_format(output.format)->side_max;
  if (width <= side_max && height <= side_max) return {};
  return fail(ErrorCode::invalid_argument,
              cat("output_format is ", output.format, ", whose sides are at most ", side_max,
                  " pixels; the output would be ", width, "x", height),
              "/output_format");
}

SafetyPolicyUpdate policy_of(const Tables& tables) {
  if (const auto* policy = tables.policies.find("safety")) return *policy;
  return {"built-in", {Ratio{0}, 0, "strict"}, {}};
}

Status validate_tags(const std::vector<std::string>& tags) {
  if (tags.size() > tags_max) {
    return fail(ErrorCode::invalid_argument, cat("there are ", tags.size(), " tags; the limit is ", tags_max), "/tags");
  }
  for (std::size_t i = 0; i < tags.size(); ++i) {
    if (is_plain_name(tags[i])) continue;
    return fail(ErrorCode::invalid_argument,
                cat("tag \"", shortened(tags[i]), "\" is no plain name: 1 to 128 of a-z A-Z 0-9 . _ -"),
                cat("/tags/", i));
  }
  return {};
}

Run after(Run run, RunEvent event) {
  const auto next = run_lifecycle.next(run.state, event);
  LOCKSTEP_CHECK(next.has_value());
  run.state = *next;
  return run;
}

std::string run_id(const JobId& job, std::uint32_t attempt) { return cat("post:", job.str(), ":", attempt); }

}  // namespace lockstep::postprocessing
