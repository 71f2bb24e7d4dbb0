#pragma once

// How memory is governed (§1.2 policy, §2.2 memory_policy_update): limits, quotas for each purpose, levels of pressure
// and what is done at them. All of it is data with defaults; a person changes it while everything runs.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "events/memory_events.h"

namespace lockstep::memory {

/// Which queued request is granted first when memory becomes free.
enum class GrantOrder { priority, arrival };
BOOST_DESCRIBE_ENUM(GrantOrder, priority, arrival)

/// max_model_cache_size         of the cache in RAM; the configured limit holds as well
/// system_reserve               RAM that the cache leaves to the system, its buffers and the workers; absent: 1GB, or a
///                              tenth of the RAM where that is less
/// vram_reservation_limit       what may be granted on one device; its budget holds as well
/// emergency_cleanup_threshold  the used share of RAM from which unpinned cache is given up
/// quotas                       the most that one purpose may hold in one pool
/// idle_segment_seconds         an unpinned segment that was not used for so long is collected; absent: never
/// confirmed_by                 the newest revision that each worker has taken in
struct Policy {
  std::uint64_t revision = 0;
  std::optional<SizeText> max_model_cache_size;
  std::optional<SizeText> system_reserve;
  std::optional<SizeText> vram_reservation_limit;
  std::optional<Ratio> emergency_cleanup_threshold;
  PressureLimits pressure;
  std::map<std::string, SizeText> quotas;
  GrantOrder grant_order = GrantOrder::priority;
  std::optional<std::uint32_t> idle_segment_seconds;
  std::map<std::string, std::uint64_t> confirmed_by;
};
BOOST_DESCRIBE_STRUCT(Policy, (),
                      (revision, max_model_cache_size, system_reserve, vram_reservation_limit,
                       emergency_cleanup_threshold, pressure, quotas, grant_order, idle_segment_seconds, confirmed_by))

/// The body of PUT and PATCH /api/v1/memory/policy. PUT: what is absent becomes the default again.
struct PolicyBody {
  std::optional<SizeText> max_model_cache_size;
  std::optional<SizeText> system_reserve;
  std::optional<SizeText> vram_reservation_limit;
  std::optional<Ratio> emergency_cleanup_threshold;
  std::optional<PressureLimits> pressure;
  std::optional<std::map<std::string, SizeText>> quotas;
  std::optional<GrantOrder> grant_order;
  std::optional<std::uint32_t> idle_segment_seconds;
  static constexpr json::Rule rules[] = {{.member = "idle_segment_seconds", .min = 1, .unit = "seconds"}};
};
BOOST_DESCRIBE_STRUCT(PolicyBody, (),
                      (max_model_cache_size, system_reserve, vram_reservation_limit, emergency_cleanup_threshold,
                       pressure, quotas, grant_order, idle_segment_seconds))

/// The policy after a person's change, with the next revision; invalid_argument names field, value and limit.
Result<Policy> changed(Policy policy, const PolicyBody& body, bool whole);

/// What the policy keeps back from a machine, or a group of processes, with so much RAM.
Bytes system_reserve(const Policy& policy, Bytes ram);

/// How much, and which rule says so: "cache limit" (configured), "max_model_cache_size" or "system_reserve".
struct CacheLimit {
  Bytes bytes;
  std::string_view name;
};
/// The smallest of what is configured, what the policy allows, and what its reserve leaves of `ram`.
/// ram  0: not known yet
CacheLimit cache_limit(const Policy& policy, Bytes configured, Bytes ram);
/// The smaller of what the device has and what the policy allows.
Bytes device_limit(const Policy& policy, Bytes budget);
std::optional<Bytes> quota(const Policy& policy, std::string_view purpose);

/// Whether a demand stays within the limit that a message carries (`max_memory`, `vram_limit`). Above it the demand is
/// refused, never granted: resource_exhausted names field, demand and limit. A limit that is no size: invalid_argument.
Status within_limit(Bytes demand, const std::optional<SizeText>& limit, std::string_view field);

/// What is done under pressure in RAM, in this order; undone in reverse, each when its limit is clearly left.
enum class EmergencyStep {
  stop_background_loads,  // only the oldest waiting image may bring models in, and none of a background session
  evict_unpinned_cache,
  pause_batch,  // of a request with several images only the first goes on; none of a batch or background session
  refuse_admissions,
  alert,
};
BOOST_DESCRIBE_ENUM(EmergencyStep, stop_background_loads, evict_unpinned_cache, pause_batch, refuse_admissions, alert)

/// The steps that are on at this share, from those that were on before it.
std::vector<EmergencyStep> emergency_steps(double share, const Policy& policy,
                                           const std::vector<EmergencyStep>& before);

}  // namespace lockstep::memory
