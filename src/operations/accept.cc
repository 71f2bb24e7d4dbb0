#include "operations/accept.h"

#include <algorithm>

#include "base/text.h"
#include "domains/inference/capabilities.h"
#include "domains/inference/tuning.h"
#include "domains/model/rules.h"
#include "domains/postprocessing/rules.h"
#include "domains/processing/rules.h"
#include "operations/sessions.h"

namespace lockstep {

namespace {

constexpr std::uint32_t upscaling_factor = 4;  // of the one kind of upscaler that workers run

Status room_in_queue(const Tables& tables, const AcceptSettings& settings, std::uint32_t more) {
  const std::size_t open = processing::open_jobs(tables.processing);
  if (open + more <= settings.open_jobs_max) return {};
  return fail(ErrorCode::resource_exhausted,
              cat("the queue holds ", open, " images; the limit is ", settings.open_jobs_max, "; try again later"));
}

/// The one model of a kind that a pipeline uses when nobody names one.
void add_operation(const Tables& tables, model::Kind kind, PipelineOperation operation,
                   std::vector<PipelineOperation>& into) {
  operation.model = model::first_of_kind(tables.model, kind);
  if (!operation.model.empty()) into.push_back(std::move(operation));
}

/// A model that shall work beside the base (§1.5 "Model compatibility verification for inference requests"): it must be
/// there, in order, and made for the base. No worker carries one out yet, and leaving it out silently would be a lie.
Status read_companion(const Tables& tables, const model::Model& base, const std::string& role, std::string_view field,
                      const ModelId& id, const std::string& pointer) {
  const auto refuse = [&](ErrorCode code, std::string_view why) {
    return fail(code, cat(field, " is \"", shortened(id.str()), "\": ", why), pointer);
  };
  const model::Model* other = tables.model.models.find(id.str());
  if (other == nullptr) return refuse(ErrorCode::not_found, "there is no such model");
  if (other->availability != model::Availability::available) {
    return refuse(ErrorCode::data_loss, cat("it cannot be used: ", other->reason));
  }
  const std::string unfit = model::unfit_because(base, role, *other);
  if (!unfit.empty()) return refuse(ErrorCode::invalid_argument, unfit);
  return refuse(ErrorCode::not_yet,
                cat("it fits ", base.model_id.str(), ", and no worker of this version runs a ", role));
}

Status read_companions(const Tables& tables, const model::Model& base, const GenerateBody& body) {
  if (body.refiner_model) {
    LOCKSTEP_TRY_STATUS(
        read_companion(tables, base, "refiner", "refiner_model", *body.refiner_model, "/refiner_model"));
  }
  const std::vector<ModelId> loras = body.lora_models.value_or(std::vector<ModelId>{});
  for (std::size_t i = 0; i < loras.size(); ++i) {
    LOCKSTEP_TRY_STATUS(read_companion(tables, base, "lora", "lora_models", loras[i], cat("/lora_models/", i)));
  }
  return {};
}

std::string padded(std::uint64_t number) {
  std::string digits = cat(number);
  return digits.size() < 6 ? std::string(6 - digits.size(), '0') + digits : digits;
}

}  // namespace

Result<processing::Request> read_generation(const Tables& tables, const AcceptSettings& settings,
                                            const GenerateBody& body, const RequestId& id, std::uint64_t seed) {
  processing::Request request;
  request.request_id = id;
  request.kind = processing::RequestKind::generation;
  request.n = body.n.value_or(1);
  if (body.response_format && *body.response_format != "b64_json" && *body.response_format != "url") {
    return fail(ErrorCode::invalid_argument,
                cat("response_format is \"", shortened(*body.response_format), "\"; it must be b64_json or url"),
                "/response_format");
  }
  const ModelId model = body.model ? ModelId(*body.model) : model::first_of_kind(tables.model, model::Kind::sdxl);
  const inference::Tuning tuning = inference::tuning_of(tables.inference, model);
  InferenceParameters& p = request.inference.inference_parameters;
  p.prompt = body.prompt;
  p.negative_prompt = body.negative_prompt;
  const std::uint32_t steps_of_model = inference::default_steps(tuning, settings.default_steps);
  p.steps = body.steps ? *body.steps : body.num_inference_steps.value_or(steps_of_model);
  p.guidance_scale = body.guidance_scale.value_or(tuning.default_guidance_scale.value_or(settings.default_guidance));
  p.scheduler = tuning.scheduler;
  p.seed = body.seed.value_or(seed);
  p.width = p.height = settings.default_side;
  if (body.size && *body.size != "auto") LOCKSTEP_TRY_STATUS(inference::read_size(*body.size, p));
  LOCKSTEP_TRY_STATUS(inference::validate(p, request.n, settings.limits));
  LOCKSTEP_TRY_STATUS(inference::within_tuning(p, model, tuning));
  if (*p.seed > 0x7FFF'FFFF'FFFF'FFFFULL - request.n) {
    return fail(ErrorCode::invalid_argument, cat("seed is ", *p.seed, "; it must be below 2^63"), "/seed");
  }

  if (body.timeout) {
    const auto limit = body.timeout->nanos();
    if (!limit || *limit <= 0) {
      return fail(ErrorCode::invalid_argument,
                  cat("timeout is \"", shortened(body.timeout->text), "\"; it must be above 0, as \"60s\" or \"5min\""),
                  "/timeout");
    }
    request.inference.timeout = *body.timeout;
  }
  if (model.empty()) return fail(ErrorCode::not_found, "no image model is registered", "/model");
  if (body.inference_type) request.inference.inference_type = *body.inference_type;
  const model::Model* known = tables.model.models.find(model.str());
  if (known != nullptr && known->availability == model::Availability::available) {
    // Before what it lacks: a LoRA is no image model, whatever folder there were beside it.
    LOCKSTEP_TRY_STATUS(
        inference::validate_type(request.inference.inference_type, model, json::enum_name(known->kind)));
  }
  const auto usable = model::usable(tables.model, model);
  if (!usable) return fail(usable.error().code, usable.error().message, "/model");
  LOCKSTEP_TRY_STATUS(read_companions(tables, **usable, body));
  request.inference.model_configuration.base_model = model;

  add_operation(tables, model::Kind::upscaler,
                {.operation = "upscaling",
                 .model = {},
                 .target_resolution = cat(p.width * upscaling_factor, "x", p.height * upscaling_factor),
                 .strictness = std::nullopt},
                request.pipeline);
  add_operation(
      tables, model::Kind::safety_classifier,
      {.operation = "safety_check", .model = {}, .target_resolution = std::nullopt, .strictness = settings.strictness},
      request.pipeline);
  LOCKSTEP_TRY_STATUS(postprocessing::validate(request.pipeline));
  if (body.output_format || body.output_quality) {
    request.output = LOCKSTEP_TRY(postprocessing::read_output(body.output_format, body.output_quality));
    const bool enlarged = std::ranges::any_of(
        request.pipeline, [](const PipelineOperation& each) { return each.operation == "upscaling"; });
    const std::uint32_t scale = enlarged ? upscaling_factor : 1;
    LOCKSTEP_TRY_STATUS(postprocessing::validate_output_size(*request.output, p.width * scale, p.height * scale));
  }
  if (body.batch_size || body.vram_limit) {
    request.batch = processing::Batch{body.batch_size.value_or(1), body.vram_limit};
    LOCKSTEP_TRY_STATUS(inference::validate_batch(request.batch->size, request.batch->vram_limit, settings.limits));
  }
  request.error_handling = body.error_handling;
  if (body.tags) LOCKSTEP_TRY_STATUS(postprocessing::validate_tags(*body.tags));
  request.tags = body.tags;
  if (body.session_id) LOCKSTEP_TRY_STATUS(join_session(tables, *body.session_id, request));
  LOCKSTEP_TRY_STATUS(room_in_queue(tables, settings, request.n));
  return request;
}

Result<processing::Request> read_check(const Tables& tables, const AcceptSettings& settings, const ImageBuffer& source,
                                       const RequestId& id) {
  processing::Request request;
  request.request_id = id;
  request.kind = processing::RequestKind::check;
  request.source = source;
  add_operation(
      tables, model::Kind::safety_classifier,
      {.operation = "safety_check", .model = {}, .target_resolution = std::nullopt, .strictness = settings.strictness},
      request.pipeline);
  if (request.pipeline.empty()) return fail(ErrorCode::not_found, "no safety classifier is registered");
  LOCKSTEP_TRY_STATUS(room_in_queue(tables, settings, 1));
  return request;
}

void accept(const Tables& tables, processing::Request request, WallTime now, Change& change) {
  request.created = now;
  request.state = processing::RequestState::accepted;
  for (std::uint32_t index = 0; index < request.n; ++index) {
    processing::Job job;
    job.job_id = processing::job_id(request.request_id, index);
    job.request_id = request.request_id;
    job.index = index;
    // A check has its pixels already; inference is what it does not need.
    job.stage =
        request.kind == processing::RequestKind::check ? processing::JobStage::generated : processing::JobStage::queued;
    change.put(tables.processing.jobs, job.job_id.str(), job);
  }
  change.put(tables.processing.requests, request.request_id.str(), request);
  // A session that begins with this request has it already.
  if (request.session_id && tables.processing.sessions.contains(*request.session_id)) {
    processing::Session session = tables.processing.sessions.at(*request.session_id);
    session.requests.push_back(request.request_id);
    change.put(tables.processing.sessions, session.session_id, session);
  }
  change.event("request_accepted", request.request_id.str(), request, request.session_id);
}

RequestId request_id(Epoch epoch, std::uint64_t counter) {
  return RequestId(cat("req_", padded(epoch.value), "_", padded(counter)));
}

}  // namespace lockstep
