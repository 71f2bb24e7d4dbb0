#pragma once

// Device domain messages, §2.1.

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

/// What is to be different; what is absent stays. The settings are a closed list of optional members and not a free
/// map: a setting that the receiver does not know would otherwise look confirmed. Unknown ones are counted as
/// everywhere.
struct DeviceChanges {
  std::optional<std::string> optimization_profile;
  std::optional<std::uint32_t> power_limit;
  std::optional<std::string> memory_allocation_policy;
  static constexpr json::Rule rules[] = {
      {.member = "optimization_profile", .words = "performance, balanced, efficiency"},
      {.member = "power_limit", .min = 1, .unit = "watts"},
      {.member = "memory_allocation_policy", .words = "aggressive, moderate, conservative"},
  };
};
BOOST_DESCRIBE_STRUCT(DeviceChanges, (), (optimization_profile, power_limit, memory_allocation_policy))

/// orchestrator -> worker
struct DeviceConfigUpdate {
  static constexpr std::string_view event_type = "device_config_update";
  DeviceId device_id;
  DeviceChanges changes;
  AllocationPriority propagation_priority = AllocationPriority::normal;
  bool requires_confirmation = true;
};
BOOST_DESCRIBE_STRUCT(DeviceConfigUpdate, (), (device_id, changes, propagation_priority, requires_confirmation))

/// orchestrator -> worker. What work goes where: "inference_primary", "inference_secondary", "postprocessing", ...
struct DeviceRoutingUpdate {
  static constexpr std::string_view event_type = "device_routing_update";
  Ordered<DeviceId> routing_table;
  bool effective_immediately = true;
};
BOOST_DESCRIBE_STRUCT(DeviceRoutingUpdate, (), (routing_table, effective_immediately))

/// A reading the device does not give is left out, never made up.
struct HealthMetrics {
  std::optional<double> temperature;
  Percent utilization;
  Ratio memory_usage;
  std::uint64_t error_count = 0;
  static constexpr json::Rule rules[] = {{.member = "temperature", .min = -273.15, .unit = "degrees Celsius"}};
};
BOOST_DESCRIBE_STRUCT(HealthMetrics, (), (temperature, utilization, memory_usage, error_count))

/// worker -> orchestrator
struct DeviceHealthUpdate {
  static constexpr std::string_view event_type = "device_health_update";
  DeviceId device_id;
  HealthMetrics health_metrics;
  Timestamp timestamp;
  AllocationPriority propagation_urgency = AllocationPriority::normal;
};
BOOST_DESCRIBE_STRUCT(DeviceHealthUpdate, (), (device_id, health_metrics, timestamp, propagation_urgency))

/// worker -> orchestrator
struct DeviceCapabilityDiscovered {
  static constexpr std::string_view event_type = "device_capability_discovered";
  DeviceId device_id;
  std::vector<std::string> new_capabilities;
  Ordered<double> capability_scores;
  static constexpr json::Rule rules[] = {
      {.member = "new_capabilities", .words = "fp16_inference, tensor_core_acceleration, nvenc_encoding"},
      {.member = "capability_scores", .min = 0, .max = 10},
  };
};
BOOST_DESCRIBE_STRUCT(DeviceCapabilityDiscovered, (), (device_id, new_capabilities, capability_scores))

}  // namespace lockstep
