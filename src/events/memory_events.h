#pragma once

// Memory domain messages, §2.2.

#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/described.h"
#include "events/words.h"

namespace lockstep {

/// orchestrator -> worker
struct SystemMemoryAllocated {
  static constexpr std::string_view event_type = "system_memory_allocated";
  AllocationId allocation_id;
  Bytes allocated_bytes;
  std::string allocation_purpose;
  std::string memory_pool;
  Bytes available_after_allocation;
  static constexpr json::Rule rules[] = {
      {.member = "allocation_purpose", .words = "model_cache, model_loading"},
      {.member = "memory_pool", .words = "system_ram"},
  };
};
BOOST_DESCRIBE_STRUCT(SystemMemoryAllocated, (),
                      (allocation_id, allocated_bytes, allocation_purpose, memory_pool, available_after_allocation))

/// What is to be different; what is absent stays. The threshold is the used share from which caches are given up.
struct MemoryPolicyChanges {
  std::optional<SizeText> max_model_cache_size;
  std::optional<SizeText> vram_reservation_limit;
  std::optional<Ratio> emergency_cleanup_threshold;
};
BOOST_DESCRIBE_STRUCT(MemoryPolicyChanges, (),
                      (max_model_cache_size, vram_reservation_limit, emergency_cleanup_threshold))

/// orchestrator -> worker
struct MemoryPolicyUpdate {
  static constexpr std::string_view event_type = "memory_policy_update";
  MemoryPolicyChanges policy_changes;
  std::vector<std::string> applies_to;
  bool effective_immediately = true;
  static constexpr json::Rule rules[] = {{.member = "applies_to", .words = "all_workers"}};
};
BOOST_DESCRIBE_STRUCT(MemoryPolicyUpdate, (), (policy_changes, applies_to, effective_immediately))

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

/// worker -> orchestrator
struct MemoryAllocationRequest {
  static constexpr std::string_view event_type = "memory_allocation_request";
  std::string request_id;
  Bytes requested_bytes{1};
  std::string allocation_purpose;
  AllocationPriority priority = AllocationPriority::normal;
  DurationText estimated_duration;
  static constexpr json::Rule rules[] = {
      {.member = "requested_bytes", .min = 1},
      {.member = "allocation_purpose", .words = "model_cache, model_loading"},
  };
};
BOOST_DESCRIBE_STRUCT(MemoryAllocationRequest, (),
                      (request_id, requested_bytes, allocation_purpose, priority, estimated_duration))

/// From which used share a level stands; it falls again only `hysteresis` below.
struct PressureLimits {
  Ratio moderate{0.80};
  Ratio high{0.90};
  Ratio critical{0.95};
  Ratio hysteresis{0.03};
};
BOOST_DESCRIBE_STRUCT(PressureLimits, (), (moderate, high, critical, hysteresis))

/// The level at a used share, from the one before it.
constexpr PressureLevel pressure_of(double share, const PressureLimits& limits, PressureLevel before) {
  const auto stands = [&](PressureLevel level, Ratio limit) {
    return share >= limit.value || (before >= level && share >= limit.value - limits.hysteresis.value);
  };
  if (stands(PressureLevel::critical, limits.critical)) return PressureLevel::critical;
  if (stands(PressureLevel::high, limits.high)) return PressureLevel::high;
  if (stands(PressureLevel::moderate, limits.moderate)) return PressureLevel::moderate;
  return PressureLevel::low;
}

constexpr double share_of(Bytes used, Bytes total) {
  return total.value == 0 ? 0 : static_cast<double>(used.value) / static_cast<double>(total.value);
}

constexpr PressureLevel pressure_of(Bytes used, Bytes total) {
  return pressure_of(share_of(used, total), {}, PressureLevel::low);
}

}  // namespace lockstep
