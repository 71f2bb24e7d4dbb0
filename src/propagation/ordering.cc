#include "propagation/ordering.h"

#include <array>

#include "base/text.h"
#include "events/json_write.h"

namespace lockstep {

namespace {

using enum FrameType;

constexpr std::array rows{
    // Device Health -> Memory Status -> Model Availability -> Processing Readiness
    StageRow{Chain::health, 0, "Device Health", device_health_update},
    StageRow{Chain::health, 0, "Device Health", device_routing_update},
    StageRow{Chain::health, 1, "Memory Status", vram_usage_update},
    StageRow{Chain::health, 1, "Memory Status", memory_policy_update},
    StageRow{Chain::health, 2, "Model Availability", model_cache_update},
    StageRow{Chain::health, 3, "Processing Readiness", session_control_command},
    StageRow{Chain::health, 3, "Processing Readiness", inference_request},
    StageRow{Chain::health, 3, "Processing Readiness", postprocessing_request},
    // Memory Allocation -> Model Loading -> Inference Readiness -> Postprocessing Preparation
    StageRow{Chain::allocation, 0, "Memory Allocation", system_memory_allocated},
    StageRow{Chain::allocation, 0, "Memory Allocation", memory_policy_update},
    StageRow{Chain::allocation, 1, "Model Loading", model_load_request},
    StageRow{Chain::allocation, 2, "Inference Readiness", inference_orchestration},
    StageRow{Chain::allocation, 2, "Inference Readiness", inference_request},
    StageRow{Chain::allocation, 3, "Postprocessing Preparation", safety_policy_update},
    StageRow{Chain::allocation, 4, "Postprocessing", postprocessing_request},
};

constexpr std::array chains{Chain::health, Chain::allocation};

}  // namespace

std::span<const StageRow> ordering_table() { return rows; }

std::optional<int> stage_of(Chain chain, std::string_view type) {
  const auto row = std::ranges::find_if(
      rows, [&](const StageRow& each) { return each.chain == chain && json::enum_name(each.type) == type; });
  return row == rows.end() ? std::nullopt : std::optional(row->stage);
}

bool comes_before(const Delivery& row, std::string_view type, const DeviceId& about, Rev rev) {
  if (row.about != about || row.intended_rev >= rev) return false;
  return std::ranges::any_of(chains, [&](Chain chain) {
    const auto earlier = stage_of(chain, row.type);
    const auto later = stage_of(chain, type);
    return earlier && later && *earlier < *later;
  });
}

std::string ordering_document() {
  std::string out = "| chain | stage | name | message |\n|---|---|---|---|\n";
  for (const StageRow& each : rows) {
    out += cat("| ", json::enum_name(each.chain), " | ", each.stage + 1, " | ", each.name, " | `",
               json::enum_name(each.type), "` |\n");
  }
  return out;
}

}  // namespace lockstep
