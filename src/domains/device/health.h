#pragma once

// How well a device is, as a level (§1.1 health alerts, §2.1). Limits are policy data. A level rises at its limit and
// falls only when the reading is clearly below it again, so that one that hovers there does not flap.

#include <cstdint>
#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/described.h"

namespace lockstep::device {

enum class HealthLevel { ok, degraded, critical };
BOOST_DESCRIBE_ENUM(HealthLevel, ok, degraded, critical)

/// What a critical level does: `stop` gives the device no new work, `alert` only tells.
enum class OnCritical { stop, alert };
BOOST_DESCRIBE_ENUM(OnCritical, stop, alert)

/// Errors are counted over error_window. The defaults are where desktop GPUs begin to slow down and to shut down.
struct HealthLimits {
  double temperature_degraded = 83;
  double temperature_critical = 92;
  double temperature_hysteresis = 5;
  std::uint32_t errors_degraded = 10;
  std::uint32_t errors_critical = 100;
  OnCritical on_critical = OnCritical::stop;
  static constexpr json::Rule rules[] = {
      {.member = "temperature_degraded", .min = 0, .max = 200, .unit = "degrees Celsius"},
      {.member = "temperature_critical", .min = 0, .max = 200, .unit = "degrees Celsius"},
      {.member = "temperature_hysteresis", .min = 0, .max = 50, .unit = "degrees Celsius"},
      {.member = "errors_degraded", .min = 1},
      {.member = "errors_critical", .min = 1},
  };
};
BOOST_DESCRIBE_STRUCT(HealthLimits, (),
                      (temperature_degraded, temperature_critical, temperature_hysteresis, errors_degraded,
                       errors_critical, on_critical))

inline constexpr Nanos error_window = seconds(600);

/// A reading the device does not give is absent. errors: within error_window. throttled: it slows itself down.
struct HealthReading {
  std::optional<double> temperature;
  std::uint64_t errors = 0;
  std::optional<bool> throttled;
};

/// reason: the reading and its limit, empty with ok.
struct Judgement {
  HealthLevel level = HealthLevel::ok;
  std::string reason;
};

/// The level after a reading, from the one before it.
Judgement judge(const HealthReading& reading, const HealthLimits& limits, HealthLevel before);

/// A durable fact: rows are written when the level changes, never for a sample.
struct Health {
  DeviceId device_id;
  HealthLevel level = HealthLevel::ok;
  std::string reason;
  WallTime since;
};
BOOST_DESCRIBE_STRUCT(Health, (), (device_id, level, reason, since))

}  // namespace lockstep::device
