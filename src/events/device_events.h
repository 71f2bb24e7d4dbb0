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

/// orchestrator -> worker. temperature_critical is an optional addition of ours: from there on a sample of the device
/// is critical.
struct DeviceConfigUpdate {
  static constexpr std::string_view event_type = "device_config_update";
  DeviceId device_id;
  DeviceChanges changes;
  AllocationPriority propagation_priority = AllocationPriority::normal;
  bool requires_confirmation = true;
  std::optional<double> temperature_critical;
  static constexpr json::Rule rules[] = {
      {.member = "temperature_critical", .min = 0, .max = 200, .unit = "degrees Celsius"}};
};
BOOST_DESCRIBE_STRUCT(DeviceConfigUpdate, (),
                      (device_id, changes, propagation_priority, requires_confirmation, temperature_critical))

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

/// A reading that departs from what it usually is, in standard deviations of its own past.
struct Deviation {
  std::string metric;
  double value = 0;
  double usual = 0;
  double deviations = 0;
  static constexpr json::Rule rules[] = {{.member = "metric", .words = "temperature, power_draw, step_time:<model>"}};
};
BOOST_DESCRIBE_STRUCT(Deviation, (), (metric, value, usual, deviations))

/// What the allocator of the worker's framework says of itself. retries: times it had to give back its cache first.
struct AllocatorStatistics {
  Bytes allocated;
  Bytes reserved;
  Bytes inactive_split;
  std::uint64_t retries = 0;
  std::uint64_t out_of_memory = 0;
};
BOOST_DESCRIBE_STRUCT(AllocatorStatistics, (), (allocated, reserved, inactive_split, retries, out_of_memory))

/// What a device says beyond the specification's four numbers. A reading it does not give is left out; an absent list
/// of throttle reasons is not known, an empty one is "not throttled". temperature_critical is the limit that this
/// sample was taken under, absent when none is set.
struct DeviceDiagnostics {
  std::optional<std::string> name;
  std::optional<std::string> driver_version;
  std::optional<double> power_draw;
  std::optional<double> power_limit;
  std::optional<std::vector<std::string>> throttle_reasons;
  std::optional<std::uint64_t> memory_errors;
  std::optional<Bytes> memory_total;
  std::optional<Bytes> memory_used;
  std::optional<Bytes> process_memory;
  std::optional<AllocatorStatistics> allocator;
  std::vector<Deviation> deviations;
  std::optional<double> temperature_critical;
  static constexpr json::Rule rules[] = {
      {.member = "temperature_critical", .min = 0, .max = 200, .unit = "degrees Celsius"},
      {.member = "power_draw", .min = 0, .unit = "watts"},
      {.member = "power_limit", .min = 0, .unit = "watts, as enforced"},
      {.member = "throttle_reasons",
       .words = "power_cap, hardware_slowdown, software_thermal, hardware_thermal, power_brake, processor_hot"},
  };
};
BOOST_DESCRIBE_STRUCT(DeviceDiagnostics, (),
                      (name, driver_version, power_draw, power_limit, throttle_reasons, memory_errors, memory_total,
                       memory_used, process_memory, allocator, deviations, temperature_critical))

/// worker -> orchestrator. diagnostics is an optional addition of ours.
struct DeviceHealthUpdate {
  static constexpr std::string_view event_type = "device_health_update";
  DeviceId device_id;
  HealthMetrics health_metrics;
  Timestamp timestamp;
  AllocationPriority propagation_urgency = AllocationPriority::normal;
  std::optional<DeviceDiagnostics> diagnostics;
};
BOOST_DESCRIBE_STRUCT(DeviceHealthUpdate, (), (device_id, health_metrics, timestamp, propagation_urgency, diagnostics))

/// worker -> orchestrator. device_name and driver_version are optional additions of ours.
struct DeviceCapabilityDiscovered {
  static constexpr std::string_view event_type = "device_capability_discovered";
  DeviceId device_id;
  std::vector<std::string> new_capabilities;
  Ordered<double> capability_scores;
  std::optional<std::string> device_name;
  std::optional<std::string> driver_version;
  static constexpr json::Rule rules[] = {
      {.member = "new_capabilities",
       .words = "fp16_inference, tensor_core_acceleration, nvenc_encoding, bf16_inference, fp8_inference"},
      {.member = "capability_scores", .min = 0, .max = 10},
  };
};
BOOST_DESCRIBE_STRUCT(DeviceCapabilityDiscovered, (),
                      (device_id, new_capabilities, capability_scores, device_name, driver_version))

}  // namespace lockstep
