#pragma once

// Model domain messages, §2.3.

#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"

namespace lockstep {

/// orchestrator -> worker. The component descriptors ride with the frame, in component_loading_order; what they are
/// (paths, sizes, digests) was promised in the transaction's prepare.
struct ModelLoadRequest {
  static constexpr std::string_view event_type = "model_load_request";
  ModelId model_id;
  std::string load_target = "vram";
  std::string loading_priority = "normal";
  std::string ram_cache_status = "available";
  Bytes estimated_vram_usage;
  std::vector<std::string> component_loading_order;
};
BOOST_DESCRIBE_STRUCT(ModelLoadRequest, (),
                      (model_id, load_target, loading_priority, ram_cache_status, estimated_vram_usage,
                       component_loading_order))

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
};
BOOST_DESCRIBE_STRUCT(ModelLoadingProgress, (),
                      (model_id, loading_stage, progress_percentage, vram_allocated, estimated_completion,
                       loading_errors))

}  // namespace lockstep
