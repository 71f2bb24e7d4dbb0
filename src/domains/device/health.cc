#include "domains/device/health.h"

#include <algorithm>

#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::device {

namespace {

/// Whether a value stands at its limit; once there it stays until it is `margin` below.
template <class Number>
bool stands(Number value, Number limit, Number margin, bool before) {
  return value >= limit || (before && value + margin > limit);
}

Judgement by_temperature(double value, const HealthLimits& limits, HealthLevel before) {
  const auto at = [&](HealthLevel level, double limit) {
    return stands(value, limit, limits.temperature_hysteresis, before >= level);
  };
  const auto says = [&](HealthLevel level, double limit) {
    return Judgement{level, cat("temperature ", value, " C, the limit of ", json::enum_name(level), " is ", limit)};
  };
  if (at(HealthLevel::critical, limits.temperature_critical)) {
    return says(HealthLevel::critical, limits.temperature_critical);
  }
  if (at(HealthLevel::degraded, limits.temperature_degraded)) {
    return says(HealthLevel::degraded, limits.temperature_degraded);
  }
  return {};
}

Judgement by_errors(std::uint64_t errors, const HealthLimits& limits) {
  const auto says = [&](HealthLevel level, std::uint32_t limit) {
    return Judgement{level, cat(errors, " errors in ", error_window / seconds(60), " minutes, the limit of ",
                                json::enum_name(level), " is ", limit)};
  };
  if (errors >= limits.errors_critical) return says(HealthLevel::critical, limits.errors_critical);
  if (errors >= limits.errors_degraded) return says(HealthLevel::degraded, limits.errors_degraded);
  return {};
}

}  // namespace

Judgement judge(const HealthReading& reading, const HealthLimits& limits, HealthLevel before) {
  Judgement worst = by_errors(reading.errors, limits);
  if (reading.temperature) {
    Judgement heat = by_temperature(*reading.temperature, limits, before);
    if (heat.level > worst.level) worst = std::move(heat);
  }
  if (reading.throttled.value_or(false) && worst.level < HealthLevel::degraded) {
    worst = {HealthLevel::degraded, "the device slows itself down"};
  }
  return worst;
}

}  // namespace lockstep::device
