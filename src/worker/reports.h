#pragma once

// What handlers say, as plain described structs: the JSON between the runtime and a handler. The runtime turns them
// into the messages of §2, so that a handler knows nothing of envelopes, epochs or transactions. docs/worker_sdk.md.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "events/inference_events.h"
#include "events/link_messages.h"
#include "events/postprocessing_events.h"

namespace lockstep {

struct LoadTask {  // descriptors: one segment per component, same order
  ModelId model_id;
  std::string kind;
  std::string path;
  std::vector<ComponentPlan> components;
};
BOOST_DESCRIBE_STRUCT(LoadTask, (), (model_id, kind, path, components))

struct LoadReport {
  std::string component;
  Ratio fraction;  // over all bytes of the model
  Bytes bytes;
};
BOOST_DESCRIBE_STRUCT(LoadReport, (), (component, fraction, bytes))

struct LoadDone {  // optimization_level: what the handler made of the model, as "tensorrt"; absent: nothing, "none"
  Bytes bytes;
  double seconds = 0;
  std::optional<std::string> optimization_level = {};
  static constexpr json::Rule rules[] = {{.member = "seconds", .min = 0}};
};
BOOST_DESCRIBE_STRUCT(LoadDone, (), (bytes, seconds, optimization_level))

struct ReleaseTask {
  ModelId model_id;
};
BOOST_DESCRIBE_STRUCT(ReleaseTask, (), (model_id))

struct ReleaseDone {
  Bytes bytes_mapped;
};
BOOST_DESCRIBE_STRUCT(ReleaseDone, (), (bytes_mapped))

struct InferenceTask {
  std::string request_id;
  ModelId model_id;
  std::string prompt;
  std::string negative_prompt;
  std::uint32_t steps = 1;
  double guidance_scale = 0;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t seed = 0;
  std::optional<std::string> session_id;
  std::string scheduler;  // empty: the model's own
};
BOOST_DESCRIBE_STRUCT(InferenceTask, (),
                      (request_id, model_id, prompt, negative_prompt, steps, guidance_scale, width, height, seed,
                       session_id, scheduler))

/// Images of one request that are one task: at once, or one after the other where parallel_execution is false or the
/// handler knows no better. Each is handed over as a part, by its request_id, as soon as it is decoded.
struct InferenceBatchTask {
  std::string batch_id;
  bool parallel_execution = false;
  Bytes vram_limit;
  std::vector<InferenceTask> images;
};
BOOST_DESCRIBE_STRUCT(InferenceBatchTask, (), (batch_id, parallel_execution, vram_limit, images))

struct InferenceReport {
  std::uint32_t step = 0;
  std::uint32_t total_steps = 0;
  double step_time_avg = 0;
  static constexpr json::Rule rules[] = {{.member = "step_time_avg", .min = 0, .unit = "seconds"}};
};
BOOST_DESCRIBE_STRUCT(InferenceReport, (), (step, total_steps, step_time_avg))

/// Of an image, or of a part; descriptor: the pixels, rgb8. peak_bytes: the most that the run held of the device.
/// postprocessing_recommendations: operations of a pipeline; absent: the handler recommends none.
struct InferenceDone {
  double execution_time = 0;
  std::uint32_t total_steps_executed = 0;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
  Bytes peak_bytes;
  double result_quality_score = 0;
  std::optional<std::vector<std::string>> postprocessing_recommendations = {};
  static constexpr json::Rule rules[] = {
      {.member = "execution_time", .min = 0, .unit = "seconds"},
      {.member = "result_quality_score", .min = 0, .max = 10},
  };
};
BOOST_DESCRIBE_STRUCT(InferenceDone, (),
                      (execution_time, total_steps_executed, width, height, bytes, sha256, peak_bytes,
                       result_quality_score, postprocessing_recommendations))

struct PostprocessTask {  // descriptor: the source
  std::string request_id;
  ImageBuffer source;
  std::vector<PipelineOperation> pipeline;
  std::string parameters;
  std::map<std::string, RawJson> metadata;
  std::string output_format = "png";
  std::string output_quality = "lossless";
  std::optional<std::string> session_id;
};
BOOST_DESCRIBE_STRUCT(PostprocessTask, (),
                      (request_id, source, pipeline, parameters, metadata, output_format, output_quality, session_id))

/// Progress of a pipeline. The last two are what is known so far: without a processing_time the runtime tells how long
/// the task has run.
struct PostprocessReport {
  std::string current_operation;
  std::uint32_t operations_completed = 0;
  std::uint32_t total_operations = 0;
  Percent current_operation_progress;
  std::optional<double> upscaling_quality_score = {};
  std::optional<double> processing_time = {};
  static constexpr json::Rule rules[] = {
      {.member = "upscaling_quality_score", .min = 0, .max = 10},
      {.member = "processing_time", .min = 0, .unit = "seconds"},
  };
};
BOOST_DESCRIBE_STRUCT(PostprocessReport, (),
                      (current_operation, operations_completed, total_operations, current_operation_progress,
                       upscaling_quality_score, processing_time))

struct PostprocessOutput {  // format: of the file; absent from a handler that writes PNG only
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
  std::optional<std::string> format;
};
BOOST_DESCRIBE_STRUCT(PostprocessOutput, (), (width, height, bytes, sha256, format))

struct PostprocessDone {  // descriptor: the encoded output, when there is one
  std::vector<std::string> operations;
  std::optional<SafetyAnalysis> safety;
  QualityAssessment quality;
  std::optional<PostprocessOutput> output;
  double total_processing_time = 0;
  Bytes peak_bytes;
  std::optional<std::vector<OperationUsage>> usage;  // of each operation that ran, in order
  static constexpr json::Rule rules[] = {{.member = "total_processing_time", .min = 0, .unit = "seconds"}};
};
BOOST_DESCRIBE_STRUCT(PostprocessDone, (),
                      (operations, safety, quality, output, total_processing_time, peak_bytes, usage))

}  // namespace lockstep
