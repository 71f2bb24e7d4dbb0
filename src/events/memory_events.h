#pragma once

// Memory domain messages, §2.2.

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"

namespace lockstep {

struct VramMetrics {
  Bytes total_vram;
  Bytes used_vram;
  Bytes available_vram;
  Ratio fragmentation_level;
};
BOOST_DESCRIBE_STRUCT(VramMetrics, (), (total_vram, used_vram, available_vram, fragmentation_level))

enum class PressureLevel { low, moderate, high, critical };
BOOST_DESCRIBE_ENUM(PressureLevel, low, moderate, high, critical)

/// worker -> orchestrator. On a `cpu` device "vram" is the device's memory budget.
struct VramUsageUpdate {
  static constexpr std::string_view event_type = "vram_usage_update";
  DeviceId device_id;
  VramMetrics vram_metrics;
  PressureLevel pressure_level = PressureLevel::low;
  bool cleanup_recommended = false;
};
BOOST_DESCRIBE_STRUCT(VramUsageUpdate, (), (device_id, vram_metrics, pressure_level, cleanup_recommended))

/// Levels by share used: below 0.70 low, 0.85 moderate, 0.95 high, above critical.
constexpr PressureLevel pressure_of(Bytes used, Bytes total) {
  if (total.value == 0) return PressureLevel::low;
  const double share = static_cast<double>(used.value) / static_cast<double>(total.value);
  if (share < 0.70) return PressureLevel::low;
  if (share < 0.85) return PressureLevel::moderate;
  if (share < 0.95) return PressureLevel::high;
  return PressureLevel::critical;
}

}  // namespace lockstep
