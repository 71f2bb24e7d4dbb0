#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "domains/inference/tables.h"

namespace lockstep::inference {

struct Limits {
  std::uint32_t images_max = 10;
  std::uint32_t steps_max = 500;
  std::uint32_t side_max = 4096;        // pixels
  std::uint64_t pixels_max = 4u << 20;  // width times height
  std::size_t prompt_bytes_max = 32'768;
  double guidance_max = 100;
  std::uint32_t batch_max = 16;  // images at once
};

/// Every parameter within its limits; invalid_argument names the field, the value and the limit (§2.5).
Status validate(const InferenceParameters& parameters, std::uint32_t n, const Limits& limits);

/// batch_size and vram_limit of a request, as above.
Status validate_batch(std::uint32_t size, const std::optional<SizeText>& vram_limit, const Limits& limits);

/// "1024x768" into width and height; invalid_argument otherwise.
Status read_size(const std::string& text, InferenceParameters& into);

/// The message for one image of a request: seed + index, and an id of its own per attempt.
InferenceRequest message_for(InferenceRequest request, const std::string& run_id, std::uint32_t index);

/// The run after an event; an event its state does not accept is a defect.
Run after(Run run, RunEvent event);

std::string run_id(const JobId& job, std::uint32_t attempt);
/// Of the batch that begins with this run of this job.
std::string batch_id(const JobId& job, std::uint32_t attempt);

/// What the image's own metadata says: the widely read "parameters" text.
std::string parameters_text(const InferenceRequest& message);

}  // namespace lockstep::inference
