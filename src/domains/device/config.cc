#include "domains/device/config.h"

#include <algorithm>
#include <array>
#include <span>

#include "base/text.h"

namespace lockstep::device {

namespace {

constexpr std::array<std::string_view, 3> profiles{"performance", "balanced", "efficiency"};
constexpr std::array<std::string_view, 3> works{"inference", "postprocessing", "check"};
constexpr std::array<std::string_view, 4> classes{"critical", "interactive", "batch", "background"};

Status one_of(std::string_view field, std::string_view value, std::span<const std::string_view> known) {
  if (std::ranges::find(known, value) != known.end()) return {};
  std::string names;
  for (const std::string_view name : known) names += cat(names.empty() ? "" : ", ", name);
  return fail(ErrorCode::invalid_argument, cat(field, " is \"", shortened(value), "\"; possible are ", names),
              cat("/", field));
}

Status check(const Access& access) {
  for (const std::string& each : access.work) LOCKSTEP_TRY_STATUS(one_of("access/work", each, works));
  for (const std::string& each : access.session_classes) {
    LOCKSTEP_TRY_STATUS(one_of("access/session_classes", each, classes));
  }
  return {};
}

Status check(const HealthLimits& limits) {
  if (limits.temperature_degraded < limits.temperature_critical && limits.errors_degraded < limits.errors_critical) {
    return {};
  }
  return fail(ErrorCode::invalid_argument, "each limit of degraded must be below that of critical", "/health");
}

bool contains(const std::vector<std::string>& list, std::string_view word) {
  return list.empty() || std::ranges::find(list, word) != list.end();
}

}  // namespace

Result<double> reserved_share(std::string_view policy) {
  if (policy == "aggressive") return 0.0;
  if (policy == "moderate") return 0.05;
  if (policy == "conservative") return 0.15;
  return fail(
      ErrorCode::invalid_argument,
      cat("memory_allocation_policy is \"", shortened(policy), "\"; possible are aggressive, moderate, conservative"),
      "/memory_allocation_policy");
}

Result<Config> changed(Config config, const ConfigBody& body, bool whole) {
  const DeviceChanges before = config.intended;
  if (whole) {
    config.intended = {};
    config.access = {};
    config.health = {};
  }
  if (body.optimization_profile) {
    LOCKSTEP_TRY_STATUS(one_of("optimization_profile", *body.optimization_profile, profiles));
    config.intended.optimization_profile = body.optimization_profile;
  }
  if (body.memory_allocation_policy) {
    LOCKSTEP_TRY(reserved_share(*body.memory_allocation_policy));
    config.intended.memory_allocation_policy = body.memory_allocation_policy;
  }
  if (body.power_limit) config.intended.power_limit = body.power_limit;
  if (body.access) {
    LOCKSTEP_TRY_STATUS(check(*body.access));
    config.access = *body.access;
  }
  if (body.health) {
    LOCKSTEP_TRY_STATUS(check(*body.health));
    config.health = *body.health;
  }
  if (json::to_text(before) != json::to_text(config.intended)) {
    ++config.revision;
    config.rejected.clear();
  }
  return config;
}

Config confirmed(Config config, std::uint64_t revision, const std::vector<RejectedSetting>& rejected) {
  if (revision != config.revision) return config;
  const auto applied = [&](std::string_view setting) {
    return std::ranges::find(rejected, setting, &RejectedSetting::setting) == rejected.end();
  };
  if (applied("optimization_profile")) config.confirmed.optimization_profile = config.intended.optimization_profile;
  if (applied("power_limit")) config.confirmed.power_limit = config.intended.power_limit;
  if (applied("memory_allocation_policy")) {
    config.confirmed.memory_allocation_policy = config.intended.memory_allocation_policy;
  }
  config.confirmed_revision = revision;
  config.rejected = rejected;
  return config;
}

Config unconfirmed(Config config) {
  config.confirmed = {};
  config.confirmed_revision = 0;
  config.rejected.clear();
  return config;
}

std::string refused_because(const Config& config, std::string_view work, std::string_view session_class) {
  if (!contains(config.access.work, work)) return cat(config.device_id.str(), " does no ", work, " (access/work)");
  if (!contains(config.access.session_classes, session_class)) {
    return cat(config.device_id.str(), " is not for ", session_class, " sessions (access/session_classes)");
  }
  return "";
}

Bytes grantable(Bytes budget, const Config& config) {
  double kept_free = 0;
  for (const DeviceChanges* each : {&config.intended, &config.confirmed}) {
    if (!each->memory_allocation_policy) continue;
    kept_free = std::max(kept_free, reserved_share(*each->memory_allocation_policy).value_or(0.0));
  }
  return Bytes{budget.value - static_cast<std::uint64_t>(static_cast<double>(budget.value) * kept_free)};
}

}  // namespace lockstep::device
