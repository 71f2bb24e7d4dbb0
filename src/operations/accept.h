#pragma once

// Accepting what a person asks for: validated whole, then one commit with the request and its jobs (processing,
// inference and postprocessing together, §3.3). Accepted means durable: from then on it ends, whatever dies.

#include <cstdint>
#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/result.h"
#include "domains/inference/rules.h"
#include "operations/tables.h"

namespace lockstep {

/// The body of POST /v1/images/generations; names of the OpenAI shape, then those of the self-hosted dialect.
struct GenerateBody {
  std::string prompt;
  std::optional<std::string> model;
  std::optional<std::uint32_t> n;
  std::optional<std::string> size;
  std::optional<std::string> response_format;
  std::optional<std::string> user;
  std::optional<std::uint32_t> steps;
  std::optional<std::uint32_t> num_inference_steps;
  std::optional<double> guidance_scale;
  std::optional<std::uint64_t> seed;
  std::optional<std::string> negative_prompt;
  std::optional<std::string> session_id;
  std::optional<DurationText> timeout;           // of one inference on a worker, as "60s"
  std::optional<std::vector<std::string>> tags;  // of its outputs
  std::optional<std::string> output_format;      // png, jpeg or webp
  std::optional<std::string> output_quality;     // lossless, high, medium or low
  std::optional<std::string> inference_type;     // text_to_image
  std::optional<ModelId> refiner_model;
  std::optional<std::vector<ModelId>> lora_models;
  std::optional<std::uint32_t> batch_size;  // images that may be made at once
  std::optional<SizeText> vram_limit;       // of what that takes on its device
  std::optional<processing::ErrorHandling> error_handling;
};
BOOST_DESCRIBE_STRUCT(GenerateBody, (),
                      (prompt, model, n, size, response_format, user, steps, num_inference_steps, guidance_scale, seed,
                       negative_prompt, session_id, timeout, tags, output_format, output_quality, inference_type,
                       refiner_model, lora_models, batch_size, vram_limit, error_handling))

struct AcceptSettings {
  inference::Limits limits;
  std::size_t open_jobs_max = 20'000;
  std::uint32_t default_steps = 20;
  std::uint32_t default_side = 512;
  double default_guidance = 5.0;
  std::string strictness = "moderate";
};

/// seed         used when the body names none
/// returns      the request as it will be stored; or invalid_argument (field, value, limit), not_found (model),
///              data_loss (broken model), resource_exhausted (queue full)
Result<processing::Request> read_generation(const Tables& tables, const AcceptSettings& settings,
                                            const GenerateBody& body, const RequestId& id, std::uint64_t seed);

/// A safety check of a picture that is stored by content.
Result<processing::Request> read_check(const Tables& tables, const AcceptSettings& settings, const ImageBuffer& source,
                                       const RequestId& id);

/// The request and one job per image; the session it names, if any, gets it too.
void accept(const Tables& tables, processing::Request request, WallTime now, Change& change);

/// "req_<epoch>_<counter>", zero-padded so that ids sort in order of acceptance.
RequestId request_id(Epoch epoch, std::uint64_t counter);

}  // namespace lockstep
