#include "domains/inference/rules.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::inference {

namespace {

Error out_of_range(std::string_view field, std::string value, std::string limit) {
  return fail(ErrorCode::invalid_argument, cat(field, " is ", value, "; it must be ", limit), cat("/", field));
}

/// What programs that read such texts call it. The models that this version makes images with come with Euler.
std::string_view sampler_name(const std::optional<Scheduler>& scheduler) {
  switch (scheduler.value_or(Scheduler::euler_discrete)) {
    case Scheduler::euler_discrete: return "Euler";
    case Scheduler::euler_ancestral_discrete: return "Euler a";
    case Scheduler::ddim: return "DDIM";
    case Scheduler::dpm_solver_multistep: return "DPM++ 2M";
  }
  return "Euler";
}

Status validate_side(std::string_view field, std::uint32_t pixels, const Limits& limits) {
  if (pixels < 64 || pixels > limits.side_max) {
    return out_of_range(field, cat(pixels), cat("64 to ", limits.side_max, " pixels"));
  }
  if (pixels % 8 != 0) return out_of_range(field, cat(pixels), "divisible by 8");
  return {};
}

}  // namespace

Status validate(const InferenceParameters& parameters, std::uint32_t n, const Limits& limits) {
  if (n < 1 || n > limits.images_max) return out_of_range("n", cat(n), cat("1 to ", limits.images_max));
  if (parameters.prompt.empty()) return out_of_range("prompt", "empty", "at least one character");
  if (parameters.prompt.size() > limits.prompt_bytes_max) {
    return out_of_range("prompt", cat(parameters.prompt.size(), " bytes"), cat("at most ", limits.prompt_bytes_max));
  }
  if (parameters.negative_prompt && parameters.negative_prompt->size() > limits.prompt_bytes_max) {
    return out_of_range("negative_prompt", cat(parameters.negative_prompt->size(), " bytes"),
                        cat("at most ", limits.prompt_bytes_max));
  }
  if (parameters.steps < 1 || parameters.steps > limits.steps_max) {
    return out_of_range("steps", cat(parameters.steps), cat("1 to ", limits.steps_max));
  }
  if (!(parameters.guidance_scale >= 0 && parameters.guidance_scale <= limits.guidance_max)) {
    return out_of_range("guidance_scale", cat(parameters.guidance_scale), cat("0 to ", limits.guidance_max));
  }
  LOCKSTEP_TRY_STATUS(validate_side("width", parameters.width, limits));
  LOCKSTEP_TRY_STATUS(validate_side("height", parameters.height, limits));
  const std::uint64_t pixels = std::uint64_t{parameters.width} * parameters.height;
  if (pixels > limits.pixels_max) {
    return out_of_range("size", cat(parameters.width, "x", parameters.height),
                        cat("at most ", limits.pixels_max, " pixels"));
  }
  return {};
}

Status validate_batch(std::uint32_t size, const std::optional<SizeText>& vram_limit, const Limits& limits) {
  if (size < 1 || size > limits.batch_max) return out_of_range("batch_size", cat(size), cat("1 to ", limits.batch_max));
  if (vram_limit && vram_limit->bytes().value_or(Bytes{}).value == 0) {
    return out_of_range("vram_limit", cat("\"", shortened(vram_limit->text), "\""), "a size above 0, as \"12GB\"");
  }
  return {};
}

Status read_size(const std::string& text, InferenceParameters& into) {
  const char* const end = text.data() + text.size();
  const auto width = std::from_chars(text.data(), end, into.width);
  if (width.ec == std::errc{} && width.ptr != end && *width.ptr == 'x') {
    const auto height = std::from_chars(width.ptr + 1, end, into.height);
    if (height.ec == std::errc{} && height.ptr == end) return {};
  }
  return fail(ErrorCode::invalid_argument,
              cat("size is \"", shortened(text), "\"; expected WIDTHxHEIGHT, as in 1024x1024"), "/size");
}

InferenceRequest message_for(InferenceRequest request, const std::string& run_id, std::uint32_t index) {
  request.request_id = run_id;
  request.inference_parameters.seed = request.inference_parameters.seed.value_or(0) + index;
  return request;
}

Run after(Run run, RunEvent event) {
  const auto next = run_lifecycle.next(run.state, event);
  LOCKSTEP_CHECK(next.has_value());
  run.state = *next;
  return run;
}

std::string run_id(const JobId& job, std::uint32_t attempt) { return cat("inf:", job.str(), ":", attempt); }

std::string batch_id(const JobId& job, std::uint32_t attempt) { return cat("inf_batch:", job.str(), ":", attempt); }

std::string parameters_text(const InferenceRequest& message) {
  const InferenceParameters& p = message.inference_parameters;
  std::string out = p.prompt;
  if (p.negative_prompt && !p.negative_prompt->empty()) out += cat("\nNegative prompt: ", *p.negative_prompt);
  out += cat("\nSteps: ", p.steps, ", Sampler: ", sampler_name(p.scheduler), ", CFG scale: ", p.guidance_scale,
             ", Seed: ", p.seed.value_or(0), ", Size: ", p.width, "x", p.height,
             ", Model: ", message.model_configuration.base_model.str());
  return out;
}

}  // namespace lockstep::inference
