#include "operations/accept.h"

#include <algorithm>

#include "base/text.h"
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
  InferenceParameters& p = request.inference.inference_parameters;
  p.prompt = body.prompt;
  p.negative_prompt = body.negative_prompt;
  p.steps = body.steps ? *body.steps : body.num_inference_steps.value_or(settings.default_steps);
  p.guidance_scale = body.guidance_scale.value_or(settings.default_guidance);
  p.seed = body.seed.value_or(seed);
  p.width = p.height = settings.default_side;
  if (body.size && *body.size != "auto") LOCKSTEP_TRY_STATUS(inference::read_size(*body.size, p));
  LOCKSTEP_TRY_STATUS(inference::validate(p, request.n, settings.limits));
  if (*p.seed > 0x7FFF'FFFF'FFFF'FFFFULL - request.n) {
    return fail(ErrorCode::invalid_argument, cat("seed is ", *p.seed, "; it must be below 2^63"), "/seed");
  }

  ModelId model = body.model ? ModelId(*body.model) : model::first_of_kind(tables.model, model::Kind::sdxl);
  if (model.empty()) return fail(ErrorCode::not_found, "no image model is registered", "/model");
  const auto usable = model::usable(tables.model, model);
  if (!usable) return fail(usable.error().code, usable.error().message, "/model");
  if (usable->kind != model::Kind::sdxl) {
    return fail(ErrorCode::invalid_argument, cat("model ", model.str(), " is no image model"), "/model");
  }
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
  change.event("request_accepted", request.request_id.str(), request);
}

RequestId request_id(Epoch epoch, std::uint64_t counter) {
  return RequestId(cat("req_", padded(epoch.value), "_", padded(counter)));
}

}  // namespace lockstep
