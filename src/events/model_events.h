#pragma once

// Model domain messages, §2.3.

#include <cstdint>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/described.h"
#include "events/words.h"

namespace lockstep {

/// orchestrator -> worker. The component descriptors ride with the frame, in component_loading_order; what they are
/// (paths, sizes, digests) was promised in the transaction's prepare.
struct ModelLoadRequest {
  static constexpr std::string_view event_type = "model_load_request";
  ModelId model_id;
  std::string load_target = "vram";
  AllocationPriority loading_priority = AllocationPriority::normal;
  std::string ram_cache_status = "available";
  Bytes estimated_vram_usage;
  std::vector<std::string> component_loading_order;
  static constexpr json::Rule rules[] = {
      {.member = "load_target", .words = "vram"},
      {.member = "ram_cache_status", .words = "available"},
      {.member = "component_loading_order", .words = "unet, vae, text_encoder"},
  };
};
BOOST_DESCRIBE_STRUCT(ModelLoadRequest, (),
                      (model_id, load_target, loading_priority, ram_cache_status, estimated_vram_usage,
                       component_loading_order))

struct CacheChanges {
  std::vector<ModelId> added;
  std::vector<ModelId> removed;
  Ratio cache_utilization;
};
BOOST_DESCRIBE_STRUCT(CacheChanges, (), (added, removed, cache_utilization))

/// orchestrator -> worker
struct ModelCacheUpdate {
  static constexpr std::string_view event_type = "model_cache_update";
  CacheChanges cache_changes;
  bool cache_optimization_performed = false;
  std::uint64_t available_models = 0;
};
BOOST_DESCRIBE_STRUCT(ModelCacheUpdate, (), (cache_changes, cache_optimization_performed, available_models))

/// worker -> orchestrator. loading_stage is "loading_<component>" or "loaded"; a load that fails says so
/// with task_failed, so that it can carry a code.
struct ModelLoadingProgress {
  static constexpr std::string_view event_type = "model_loading_progress";
  ModelId model_id;
  std::string loading_stage;
  Percent progress_percentage;
  Bytes vram_allocated;
  Timestamp estimated_completion;
  std::vector<std::string> loading_errors;
  static constexpr json::Rule rules[] = {{.member = "loading_stage", .words = "loading_unet, loaded"}};
};
BOOST_DESCRIBE_STRUCT(ModelLoadingProgress, (),
                      (model_id, loading_stage, progress_percentage, vram_allocated, estimated_completion,
                       loading_errors))

struct RuntimeMetrics {
  bool inference_ready = false;
  bool warmup_completed = false;
  std::string optimization_level;
  double average_inference_time = 0;
  static constexpr json::Rule rules[] = {
      {.member = "optimization_level", .words = "none, tensorrt"},
      {.member = "average_inference_time", .min = 0, .unit = "seconds"},
  };
};
BOOST_DESCRIBE_STRUCT(RuntimeMetrics, (),
                      (inference_ready, warmup_completed, optimization_level, average_inference_time))

/// worker -> orchestrator
struct ModelRuntimeUpdate {
  static constexpr std::string_view event_type = "model_runtime_update";
  ModelId model_id;
  RuntimeMetrics runtime_metrics;
  Bytes memory_footprint;
};
BOOST_DESCRIBE_STRUCT(ModelRuntimeUpdate, (), (model_id, runtime_metrics, memory_footprint))

}  // namespace lockstep
