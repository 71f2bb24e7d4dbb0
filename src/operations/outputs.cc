#include "operations/outputs.h"

#include <algorithm>

#include "base/text.h"
#include "domains/postprocessing/rules.h"

namespace lockstep {

namespace {

constexpr std::size_t outputs_shown_max = 200;

bool matches(const postprocessing::Output& output, const OutputFilter& filter) {
  if (filter.sha256 && output.image.sha256 != *filter.sha256) return false;
  if (filter.review && output.review.has_value() != *filter.review) return false;
  return !filter.tag || (output.tags && std::ranges::find(*output.tags, *filter.tag) != output.tags->end());
}

}  // namespace

OutputsView outputs_view(const Tables& tables, Rev rev, const OutputFilter& filter) {
  OutputsView view{rev, {}};
  const auto& entries = tables.postprocessing.outputs.entries();
  for (auto at = entries.rbegin(); at != entries.rend() && view.outputs.size() < outputs_shown_max; ++at) {
    const postprocessing::Output& output = at->second.row;
    if (!matches(output, filter)) continue;
    OutputView each;
    each.sha256 = output.image.sha256;
    each.job_id = output.job_id;
    each.request_id = tables.processing.jobs.at(output.job_id.str()).request_id;
    each.width = output.image.width;
    each.height = output.image.height;
    each.bytes = output.image.bytes;
    each.format = output.image.format;
    each.seed = output.seed;
    each.created = to_rfc3339(output.created);
    each.tags = output.tags.value_or(std::vector<std::string>{});
    each.review = output.review.value_or("");
    if (const auto* run = tables.postprocessing.runs.find(output.job_id.str())) each.results = run->results;
    view.outputs.push_back(std::move(each));
  }
  return view;
}

Status tag_outputs(const Tables& tables, const std::string& sha256, const TagBody& body, Change& change) {
  bool found = false;
  for (const auto& [key, entry] : tables.postprocessing.outputs.entries()) {
    if (entry.row.image.sha256 != sha256) continue;
    found = true;
    postprocessing::Output output = entry.row;
    std::vector<std::string> tags = output.tags.value_or(std::vector<std::string>{});
    for (const std::string& tag : body.remove.value_or(std::vector<std::string>{})) std::erase(tags, tag);
    for (const std::string& tag : body.add.value_or(std::vector<std::string>{})) tags.push_back(tag);
    std::ranges::sort(tags);
    tags.erase(std::ranges::unique(tags).begin(), tags.end());
    LOCKSTEP_TRY_STATUS(postprocessing::validate_tags(tags));
    output.tags = tags;
    if (body.reviewed.value_or(false)) output.review.reset();
    change.put(tables.postprocessing.outputs, key, output);
    change.event("output_tagged", sha256, output);
  }
  if (found) return {};
  return fail(ErrorCode::not_found, cat("there is no output ", shortened(sha256)));
}

Status set_safety_policy(const Tables& tables, const SafetyPolicyUpdate& policy, Change& change) {
  const std::string before = postprocessing::policy_of(tables.postprocessing).policy_version;
  if (policy.policy_version.empty() || policy.policy_version == before) {
    return fail(ErrorCode::invalid_argument,
                cat("policy_version is \"", shortened(policy.policy_version), "\"; it must be a new one"),
                "/policy_version");
  }
  LOCKSTEP_TRY_STATUS(postprocessing::validate(policy));
  change.put(tables.postprocessing.policies, "safety", policy);
  change.event(std::string(SafetyPolicyUpdate::event_type), policy.policy_version, policy);
  return {};
}

}  // namespace lockstep
