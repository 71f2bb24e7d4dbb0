#pragma once

// Device domain messages, §2.1.

#include <cstdint>
#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"

namespace lockstep {

/// A reading the device does not give is left out, never made up.
struct HealthMetrics {
  std::optional<double> temperature;  // degrees Celsius
  Percent utilization;
  Ratio memory_usage;
  std::uint64_t error_count = 0;
};
BOOST_DESCRIBE_STRUCT(HealthMetrics, (), (temperature, utilization, memory_usage, error_count))

/// worker -> orchestrator
struct DeviceHealthUpdate {
  static constexpr std::string_view event_type = "device_health_update";
  DeviceId device_id;
  HealthMetrics health_metrics;
  Timestamp timestamp;
  std::string propagation_urgency = "normal";
};
BOOST_DESCRIBE_STRUCT(DeviceHealthUpdate, (), (device_id, health_metrics, timestamp, propagation_urgency))

}  // namespace lockstep
