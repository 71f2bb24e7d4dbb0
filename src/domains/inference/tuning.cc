#include "domains/inference/tuning.h"

#include <algorithm>

#include "base/text.h"

namespace lockstep::inference {

namespace {

Error out_of_range(std::string_view field, std::string value, std::string limit) {
  return fail(ErrorCode::invalid_argument, cat(field, " is ", value, "; it must be ", limit), cat("/", field));
}

}  // namespace

Tuning tuning_of(const Tables& tables, const ModelId& model) {
  const Tuning* known = tables.tunings.find(model.str());
  return known == nullptr ? Tuning{} : *known;
}

Status validate(const Tuning& tuning, const Limits& limits) {
  const std::uint32_t most = tuning.max_steps.value_or(limits.steps_max);
  if (most < 1 || most > limits.steps_max) {
    return out_of_range("max_steps", cat(most), cat("1 to ", limits.steps_max));
  }
  if (tuning.default_steps && (*tuning.default_steps < 1 || *tuning.default_steps > most)) {
    return out_of_range("default_steps", cat(*tuning.default_steps), cat("1 to ", most));
  }
  if (tuning.default_guidance_scale &&
      !(*tuning.default_guidance_scale >= 0 && *tuning.default_guidance_scale <= limits.guidance_max)) {
    return out_of_range("default_guidance_scale", cat(*tuning.default_guidance_scale),
                        cat("0 to ", limits.guidance_max));
  }
  return {};
}

Tuning merged(Tuning before, const Tuning& named) {
  if (named.scheduler) before.scheduler = named.scheduler;
  if (named.default_steps) before.default_steps = named.default_steps;
  if (named.default_guidance_scale) before.default_guidance_scale = named.default_guidance_scale;
  if (named.max_steps) before.max_steps = named.max_steps;
  return before;
}

std::uint32_t default_steps(const Tuning& tuning, std::uint32_t of_server) {
  return tuning.default_steps.value_or(std::min(of_server, tuning.max_steps.value_or(of_server)));
}

Status within_tuning(const InferenceParameters& parameters, const ModelId& model, const Tuning& tuning) {
  if (!tuning.max_steps || parameters.steps <= *tuning.max_steps) return {};
  return out_of_range("steps", cat(parameters.steps), cat("1 to ", *tuning.max_steps, " with model ", model.str()));
}

}  // namespace lockstep::inference
