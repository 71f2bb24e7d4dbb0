#pragma once

// Postprocessing domain messages, §2.6. Members after those of the specification are optional additions of ours.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/inference_events.h"
#include "events/json_write.h"

namespace lockstep {

/// operation "upscaling" (with target_resolution) or "safety_check" (with strictness)
struct PipelineOperation {
  std::string operation;
  ModelId model;
  std::optional<std::string> target_resolution;
  std::optional<std::string> strictness;
  static constexpr json::Rule rules[] = {
      {.member = "operation", .words = "upscaling, safety_check"},
      {.member = "target_resolution", .unit = "WIDTHxHEIGHT in pixels"},
      {.member = "strictness", .words = "moderate"},
  };
};
BOOST_DESCRIBE_STRUCT(PipelineOperation, (), (operation, model, target_resolution, strictness))

/// What is delivered: domains/postprocessing/rules.h says which quality goes with which format.
struct OutputRequirements {
  std::string format = "png";
  std::string quality = "lossless";
  bool metadata_preservation = true;
  static constexpr json::Rule rules[] = {
      {.member = "format", .words = "png, jpeg, webp"},
      {.member = "quality", .words = "lossless, high, medium, low"},
  };
};
BOOST_DESCRIBE_STRUCT(OutputRequirements, (), (format, quality, metadata_preservation))

/// orchestrator -> worker. The source buffer rides with the frame.
struct PostprocessingRequest {
  static constexpr std::string_view event_type = "postprocessing_request";
  std::string request_id;
  std::string source_inference_id;
  std::vector<PipelineOperation> postprocessing_pipeline;
  OutputRequirements output_requirements;
  std::optional<ImageBuffer> source;
  std::optional<std::string> parameters;  // text for the image's own metadata
  std::optional<std::map<std::string, RawJson>> metadata;
};
BOOST_DESCRIBE_STRUCT(PostprocessingRequest, (),
                      (request_id, source_inference_id, postprocessing_pipeline, output_requirements, source,
                       parameters, metadata))

struct SafetyThresholds {
  Ratio content_safety_minimum;
  double quality_minimum = 0;
  std::string technical_compliance;
  static constexpr json::Rule rules[] = {
      {.member = "quality_minimum", .min = 0, .max = 10},
      {.member = "technical_compliance", .words = "strict"},
  };
};
BOOST_DESCRIBE_STRUCT(SafetyThresholds, (), (content_safety_minimum, quality_minimum, technical_compliance))

/// Closed: an action that nobody carries out would let an image pass.
enum class EnforcementAction { reject, flag_for_review, allow };
BOOST_DESCRIBE_ENUM(EnforcementAction, reject, flag_for_review, allow)

struct EnforcementActions {
  EnforcementAction below_safety_threshold = EnforcementAction::reject;
  EnforcementAction below_quality_threshold = EnforcementAction::reject;
};
BOOST_DESCRIBE_STRUCT(EnforcementActions, (), (below_safety_threshold, below_quality_threshold))

/// orchestrator -> worker
struct SafetyPolicyUpdate {
  static constexpr std::string_view event_type = "safety_policy_update";
  std::string policy_version;
  SafetyThresholds safety_thresholds;
  EnforcementActions enforcement_actions;
};
BOOST_DESCRIBE_STRUCT(SafetyPolicyUpdate, (), (policy_version, safety_thresholds, enforcement_actions))

struct PipelineProgress {
  std::string current_operation;
  std::uint32_t operations_completed = 0;
  std::uint32_t total_operations = 0;
  Percent current_operation_progress;
};
BOOST_DESCRIBE_STRUCT(PipelineProgress, (),
                      (current_operation, operations_completed, total_operations, current_operation_progress))

struct QualityMetrics {
  std::optional<double> upscaling_quality_score;
  std::optional<double> processing_time;
  static constexpr json::Rule rules[] = {
      {.member = "upscaling_quality_score", .min = 0, .max = 10},
      {.member = "processing_time", .min = 0, .unit = "seconds so far"},
  };
};
BOOST_DESCRIBE_STRUCT(QualityMetrics, (), (upscaling_quality_score, processing_time))

/// worker -> orchestrator
struct PostprocessingProgress {
  static constexpr std::string_view event_type = "postprocessing_progress";
  std::string request_id;
  PipelineProgress pipeline_progress;
  QualityMetrics quality_metrics;
};
BOOST_DESCRIBE_STRUCT(PostprocessingProgress, (), (request_id, pipeline_progress, quality_metrics))

struct SafetyAnalysis {
  double content_safety_score = 0;
  std::string safety_classification;
  std::vector<std::string> flagged_content;
  static constexpr json::Rule rules[] = {
      {.member = "content_safety_score", .min = 0, .max = 1, .unit = "1 is safe"},
      {.member = "safety_classification", .words = "safe, unsafe"},
  };
};
BOOST_DESCRIBE_STRUCT(SafetyAnalysis, (), (content_safety_score, safety_classification, flagged_content))

struct QualityAssessment {
  double technical_quality = 0;
  double visual_quality = 0;
  double enhancement_effectiveness = 0;
  static constexpr json::Rule rules[] = {
      {.member = "technical_quality", .min = 0, .max = 10},
      {.member = "visual_quality", .min = 0, .max = 10},
      {.member = "enhancement_effectiveness", .min = 0, .max = 10},
  };
};
BOOST_DESCRIBE_STRUCT(QualityAssessment, (), (technical_quality, visual_quality, enhancement_effectiveness))

struct FinalResults {
  std::optional<SafetyAnalysis> safety_analysis;
  QualityAssessment quality_assessment;
};
BOOST_DESCRIBE_STRUCT(FinalResults, (), (safety_analysis, quality_assessment))

struct ProcessingMetadata {
  double total_processing_time = 0;
  SizeText resource_usage_peak;
  static constexpr json::Rule rules[] = {{.member = "total_processing_time", .min = 0, .unit = "seconds"}};
};
BOOST_DESCRIBE_STRUCT(ProcessingMetadata, (), (total_processing_time, resource_usage_peak))

/// What one operation took on the worker: seconds, and its peak of memory as the worker measures it. §1.4
struct OperationUsage {
  std::string operation;
  ModelId model;
  double seconds = 0;
  Bytes peak;
  static constexpr json::Rule rules[] = {
      {.member = "operation", .words = "upscaling, safety_check"},
      {.member = "seconds", .min = 0, .unit = "seconds"},
  };
};
BOOST_DESCRIBE_STRUCT(OperationUsage, (), (operation, model, seconds, peak))

/// worker -> orchestrator. output_location is "sha256:<hex>" of the encoded image that rides with the frame, or
/// empty when the safety check stopped the pipeline.
struct PostprocessingCompleted {
  static constexpr std::string_view event_type = "postprocessing_completed";
  std::string request_id;
  FinalResults final_results;
  std::string output_location;
  ProcessingMetadata processing_metadata;
  std::optional<ImageBuffer> output;
  std::optional<std::vector<std::string>> operations;
  std::optional<std::vector<OperationUsage>> usage;
};
BOOST_DESCRIBE_STRUCT(PostprocessingCompleted, (),
                      (request_id, final_results, output_location, processing_metadata, output, operations, usage))

}  // namespace lockstep
