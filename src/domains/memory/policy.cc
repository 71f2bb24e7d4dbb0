#include "domains/memory/policy.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::memory {

namespace {

constexpr Ratio cleanup_default{0.95};  // §2.2, the printed example

Bytes at_most(Bytes one, const std::optional<SizeText>& other) {
  if (!other) return one;
  const auto bytes = other->bytes();
  LOCKSTEP_CHECK(bytes.has_value());  // checked when it was set
  return std::min(one, *bytes);
}

Status check_size(const std::optional<SizeText>& size, std::string_view field) {
  if (!size) return {};
  const auto bytes = size->bytes();
  if (!bytes) return fail(ErrorCode::invalid_argument, bytes.error().message, cat("/", field));
  if (bytes->value == 0) {
    return fail(ErrorCode::invalid_argument, cat(field, " is ", size->text, "; it must be above 0"), cat("/", field));
  }
  return {};
}

Status check(const PressureLimits& limits) {
  if (limits.moderate < limits.high && limits.high < limits.critical && limits.hysteresis.value < 0.2) return {};
  return fail(ErrorCode::invalid_argument,
              "the levels must rise (moderate below high below critical) and hysteresis must be below 0.2",
              "/pressure");
}

}  // namespace

Result<Policy> changed(Policy policy, const PolicyBody& body, bool whole) {
  if (whole) policy = Policy{.revision = policy.revision, .confirmed_by = std::move(policy.confirmed_by)};
  LOCKSTEP_TRY_STATUS(check_size(body.max_model_cache_size, "max_model_cache_size"));
  if (body.system_reserve) {  // 0 is a reserve as well: none
    const auto bytes = body.system_reserve->bytes();
    if (!bytes) return fail(ErrorCode::invalid_argument, bytes.error().message, "/system_reserve");
    policy.system_reserve = body.system_reserve;
  }
  LOCKSTEP_TRY_STATUS(check_size(body.vram_reservation_limit, "vram_reservation_limit"));
  if (body.max_model_cache_size) policy.max_model_cache_size = body.max_model_cache_size;
  if (body.vram_reservation_limit) policy.vram_reservation_limit = body.vram_reservation_limit;
  if (body.emergency_cleanup_threshold) policy.emergency_cleanup_threshold = body.emergency_cleanup_threshold;
  if (body.pressure) {
    LOCKSTEP_TRY_STATUS(check(*body.pressure));
    policy.pressure = *body.pressure;
  }
  if (body.quotas) {
    for (const auto& [purpose, size] : *body.quotas) {
      LOCKSTEP_TRY_STATUS(check_size(size, cat("quotas/", shortened(purpose))));
    }
    policy.quotas = *body.quotas;
  }
  if (body.grant_order) policy.grant_order = *body.grant_order;
  if (body.idle_segment_seconds) policy.idle_segment_seconds = body.idle_segment_seconds;
  ++policy.revision;
  return policy;
}

Bytes system_reserve(const Policy& policy, Bytes ram) {
  constexpr Bytes usual{1ULL << 30};
  if (!policy.system_reserve) return std::min(usual, Bytes{ram.value / 10});
  const auto bytes = policy.system_reserve->bytes();
  LOCKSTEP_CHECK(bytes.has_value());
  return *bytes;
}

CacheLimit cache_limit(const Policy& policy, Bytes configured, Bytes ram) {
  CacheLimit limit{configured, "cache limit"};
  if (const Bytes allowed = at_most(configured, policy.max_model_cache_size); allowed < limit.bytes) {
    limit = {allowed, "max_model_cache_size"};
  }
  if (ram.value == 0) return limit;
  const Bytes left = ram - std::min(ram, system_reserve(policy, ram));
  return left < limit.bytes ? CacheLimit{left, "system_reserve"} : limit;
}
Bytes device_limit(const Policy& policy, Bytes budget) { return at_most(budget, policy.vram_reservation_limit); }

std::optional<Bytes> quota(const Policy& policy, std::string_view purpose) {
  const auto place = policy.quotas.find(std::string(purpose));
  if (place == policy.quotas.end()) return std::nullopt;
  const auto bytes = place->second.bytes();
  LOCKSTEP_CHECK(bytes.has_value());
  return *bytes;
}

Status within_limit(Bytes demand, const std::optional<SizeText>& limit, std::string_view field) {
  if (!limit) return {};
  const auto bytes = limit->bytes();
  if (!bytes) return fail(ErrorCode::invalid_argument, bytes.error().message, cat("/", field));
  if (demand <= *bytes) return {};
  return fail(ErrorCode::resource_exhausted, cat("this needs ", to_text(demand), "; ", field, " is ", limit->text),
              cat("/", field));
}

std::vector<EmergencyStep> emergency_steps(double share, const Policy& policy,
                                           const std::vector<EmergencyStep>& before) {
  const double cleanup = policy.emergency_cleanup_threshold.value_or(cleanup_default).value;
  const std::pair<EmergencyStep, double> limits[] = {
      {EmergencyStep::stop_background_loads, policy.pressure.high.value},
      {EmergencyStep::evict_unpinned_cache, cleanup},
      {EmergencyStep::pause_batch, policy.pressure.critical.value},
      {EmergencyStep::refuse_admissions, policy.pressure.critical.value},
      {EmergencyStep::alert, policy.pressure.critical.value},
  };
  std::vector<EmergencyStep> on;
  for (const auto& [step, limit] : limits) {
    const bool was_on = std::ranges::find(before, step) != before.end();
    if (share >= limit || (was_on && share >= limit - policy.pressure.hysteresis.value)) on.push_back(step);
  }
  return on;
}

}  // namespace lockstep::memory
