#pragma once

// Inference domain messages, §2.5. Members after those of the specification are optional additions of ours.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/described.h"
#include "events/words.h"

namespace lockstep {

struct ModelConfiguration {
  ModelId base_model;
  std::optional<ModelId> refiner_model;
  std::optional<std::vector<ModelId>> lora_models;
};
BOOST_DESCRIBE_STRUCT(ModelConfiguration, (), (base_model, refiner_model, lora_models))

/// How noise is taken out, step by step. Closed: a worker that does not know the word must not take another. Each draws
/// all its chance from the seed.
enum class Scheduler { euler_discrete, euler_ancestral_discrete, ddim, dpm_solver_multistep };
BOOST_DESCRIBE_ENUM(Scheduler, euler_discrete, euler_ancestral_discrete, ddim, dpm_solver_multistep)

struct InferenceParameters {
  std::string prompt;
  std::uint32_t steps = 30;
  double guidance_scale = 5.0;
  std::uint32_t width = 1024;
  std::uint32_t height = 1024;
  std::optional<std::string> negative_prompt;
  std::optional<std::uint64_t> seed;
  std::optional<Scheduler> scheduler;  // absent: the model's own
  // The most that is allowed is configuration (domains/inference/rules.h).
  static constexpr json::Rule rules[] = {
      {.member = "steps", .min = 1},
      {.member = "guidance_scale", .min = 0},
      {.member = "width", .min = 8, .multiple_of = 8, .unit = "pixels"},
      {.member = "height", .min = 8, .multiple_of = 8, .unit = "pixels"},
  };
};
BOOST_DESCRIBE_STRUCT(InferenceParameters, (),
                      (prompt, steps, guidance_scale, width, height, negative_prompt, seed, scheduler))

/// orchestrator -> worker
struct InferenceRequest {
  static constexpr std::string_view event_type = "inference_request";
  std::string request_id;
  std::string inference_type = "text_to_image";
  ModelConfiguration model_configuration;
  InferenceParameters inference_parameters;
  AllocationPriority priority = AllocationPriority::normal;
  DurationText timeout{"600s"};
  std::optional<std::string> batch_id;  // of the inference_orchestration whose image it is
  static constexpr json::Rule rules[] = {{.member = "inference_type", .words = "text_to_image"}};
};
BOOST_DESCRIBE_STRUCT(InferenceRequest, (),
                      (request_id, inference_type, model_configuration, inference_parameters, priority, timeout,
                       batch_id))

struct BatchConfiguration {
  std::uint32_t batch_size = 1;
  bool parallel_execution = false;
  std::string optimization_strategy;
  static constexpr json::Rule rules[] = {
      {.member = "batch_size", .min = 1},
      {.member = "optimization_strategy", .words = "throughput, latency"},
  };
};
BOOST_DESCRIBE_STRUCT(BatchConfiguration, (), (batch_size, parallel_execution, optimization_strategy))

struct BatchResources {
  SizeText vram_limit;
  AllocationPriority processing_priority = AllocationPriority::normal;
};
BOOST_DESCRIBE_STRUCT(BatchResources, (), (vram_limit, processing_priority))

/// orchestrator -> worker: so many images of one request, each an inference_request with this batch_id, are one task.
/// vram_limit: what the worker may hold of its device's memory meanwhile, its models included.
struct InferenceOrchestration {
  static constexpr std::string_view event_type = "inference_orchestration";
  std::string batch_id;
  BatchConfiguration batch_configuration;
  BatchResources resource_allocation;
};
BOOST_DESCRIBE_STRUCT(InferenceOrchestration, (), (batch_id, batch_configuration, resource_allocation))

struct ExecutionMetrics {
  std::uint32_t current_step = 0;
  std::uint32_t total_steps = 0;
  double step_time_avg = 0;
  Timestamp estimated_completion;
  static constexpr json::Rule rules[] = {{.member = "step_time_avg", .min = 0, .unit = "seconds"}};
};
BOOST_DESCRIBE_STRUCT(ExecutionMetrics, (), (current_step, total_steps, step_time_avg, estimated_completion))

struct ResourceUtilization {
  SizeText vram_usage;
  Percent gpu_utilization;
};
BOOST_DESCRIBE_STRUCT(ResourceUtilization, (), (vram_usage, gpu_utilization))

/// worker -> orchestrator
struct InferenceProgress {
  static constexpr std::string_view event_type = "inference_progress";
  std::string request_id;
  ExecutionMetrics execution_metrics;
  ResourceUtilization resource_utilization;
};
BOOST_DESCRIBE_STRUCT(InferenceProgress, (), (request_id, execution_metrics, resource_utilization))

struct ResultMetadata {
  double execution_time = 0;
  std::uint32_t total_steps_executed = 0;
  SizeText final_vram_usage;
  double result_quality_score = 0;
  static constexpr json::Rule rules[] = {
      {.member = "execution_time", .min = 0, .unit = "seconds"},
      {.member = "result_quality_score", .min = 0, .max = 10},
  };
};
BOOST_DESCRIBE_STRUCT(ResultMetadata, (),
                      (execution_time, total_steps_executed, final_vram_usage, result_quality_score))

/// Pixels in a descriptor that rides with the frame: format "rgb8" (rows of 3 bytes a pixel), or that of an image file.
struct ImageBuffer {
  std::string format = "rgb8";
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
  static constexpr json::Rule rules[] = {
      {.member = "format", .words = "rgb8, png, jpeg, webp"},
      {.member = "width", .unit = "pixels"},
      {.member = "height", .unit = "pixels"},
  };
  friend bool operator==(const ImageBuffer&, const ImageBuffer&) = default;
};
BOOST_DESCRIBE_STRUCT(ImageBuffer, (), (format, width, height, bytes, sha256))

/// worker -> orchestrator. result_location is "sha256:<hex>" of the buffer that rides with the frame.
struct InferenceCompleted {
  static constexpr std::string_view event_type = "inference_completed";
  std::string request_id;
  ResultMetadata result_metadata;
  std::string result_location;
  bool requires_postprocessing = true;
  std::vector<std::string> postprocessing_recommendations;
  std::optional<ImageBuffer> result;
  static constexpr json::Rule rules[] = {
      {.member = "postprocessing_recommendations", .words = "upscaling, safety_check"}};
};
BOOST_DESCRIBE_STRUCT(InferenceCompleted, (),
                      (request_id, result_metadata, result_location, requires_postprocessing,
                       postprocessing_recommendations, result))

}  // namespace lockstep
