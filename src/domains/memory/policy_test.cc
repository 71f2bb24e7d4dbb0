#include "domains/memory/policy.h"

#include <gtest/gtest.h>

#include "domains/memory/grants.h"

namespace lockstep::memory {
namespace {

using enum EmergencyStep;

// §2.2, the example as printed: 12884901888 of 16106127360 is 0.80, and "moderate".
TEST(MemoryPressure, the_printed_example_is_moderate) {
  EXPECT_EQ(pressure_of(Bytes{12884901888}, Bytes{16106127360}), PressureLevel::moderate);
  EXPECT_EQ(pressure_of(Bytes{12884901887}, Bytes{16106127360}), PressureLevel::low);
}

TEST(MemoryPressure, levels_rise_at_their_limits_and_fall_below_the_hysteresis) {
  const PressureLimits limits;
  EXPECT_EQ(pressure_of(0.90, limits, PressureLevel::low), PressureLevel::high);
  EXPECT_EQ(pressure_of(0.95, limits, PressureLevel::low), PressureLevel::critical);
  EXPECT_EQ(pressure_of(0.93, limits, PressureLevel::critical), PressureLevel::critical);
  EXPECT_EQ(pressure_of(0.91, limits, PressureLevel::critical), PressureLevel::high);
  EXPECT_EQ(pressure_of(0.78, limits, PressureLevel::moderate), PressureLevel::moderate);
  EXPECT_EQ(pressure_of(0.76, limits, PressureLevel::critical), PressureLevel::low);
}

// §1.2 emergency procedures, in their order; each undone with hysteresis.
TEST(MemoryEmergency, steps_come_in_order_and_go_in_reverse) {
  const Policy policy;
  EXPECT_TRUE(emergency_steps(0.89, policy, {}).empty());
  auto on = emergency_steps(0.90, policy, {});
  EXPECT_EQ(on, (std::vector{stop_background_loads}));
  on = emergency_steps(0.95, policy, on);
  EXPECT_EQ(on, (std::vector{stop_background_loads, evict_unpinned_cache, pause_batch, refuse_admissions, alert}));
  EXPECT_EQ(emergency_steps(0.93, policy, on), on);
  on = emergency_steps(0.91, policy, on);
  EXPECT_EQ(on, (std::vector{stop_background_loads}));
  EXPECT_TRUE(emergency_steps(0.86, policy, on).empty());
}

TEST(MemoryEmergency, the_cleanup_threshold_is_the_policys) {
  Policy policy;
  policy.emergency_cleanup_threshold = Ratio{0.5};
  EXPECT_EQ(emergency_steps(0.5, policy, {}), (std::vector{evict_unpinned_cache}));
}

TEST(MemoryPolicy, a_change_rises_the_revision_and_bad_values_name_their_field) {
  PolicyBody body;
  body.max_model_cache_size = SizeText{"8GB"};
  const auto policy = changed({}, body, false);
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->revision, 1u);
  EXPECT_EQ(cache_limit(*policy, 16_GiB, {}).bytes, 8_GiB);
  EXPECT_EQ(cache_limit(*policy, 16_GiB, {}).name, "max_model_cache_size");
  EXPECT_EQ(cache_limit(*policy, 4_GiB, {}).bytes, 4_GiB);  // a policy never raises what is configured
  EXPECT_EQ(cache_limit(*policy, 4_GiB, {}).name, "cache limit");
  EXPECT_EQ(cache_limit(*policy, 16_GiB, 8_GiB).bytes, 8_GiB - Bytes{(8_GiB).value / 10});
  EXPECT_EQ(cache_limit(*policy, 16_GiB, 64_GiB).name, "max_model_cache_size");
  EXPECT_EQ(system_reserve({}, 64_GiB), 1_GiB);
  EXPECT_EQ(system_reserve({.system_reserve = SizeText{"3GB"}}, 64_GiB), 3_GiB);
  EXPECT_EQ(cache_limit({.system_reserve = SizeText{"9GB"}}, 16_GiB, 8_GiB).bytes, Bytes{});
  body.max_model_cache_size = SizeText{"0B"};
  EXPECT_EQ(changed({}, body, false).error().pointer, "/max_model_cache_size");
  body = {};
  body.pressure = PressureLimits{.moderate = Ratio{0.9}, .high = Ratio{0.8}};
  EXPECT_EQ(changed({}, body, false).error().pointer, "/pressure");
  EXPECT_FALSE(changed(*policy, PolicyBody{}, true)->max_model_cache_size.has_value());
}

// A limit that a message carries: at it is within, one byte above is refused with its name.
TEST(MemoryPolicy, a_demand_above_the_limit_of_its_message_is_refused) {
  const SizeText limit{"4GB"};
  EXPECT_TRUE(within_limit(4_GiB, limit, "vram_limit").has_value());
  EXPECT_TRUE(within_limit(9_GiB, std::nullopt, "vram_limit").has_value());
  const Status status = within_limit(4_GiB + Bytes{1}, limit, "vram_limit");
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(status.error().message.find("vram_limit is 4GB"), std::string::npos);
}

TEST(MemoryGrants, a_request_is_granted_waits_or_never_fits) {
  Policy policy;
  PoolState pool{"gpu_0", 8_GiB, 6_GiB, Bytes{}, "memory_budget"};
  EXPECT_TRUE(admit(pool, 2_GiB, "inference", policy).granted);
  const Admission waits = admit(pool, 3_GiB, "inference", policy);
  EXPECT_FALSE(waits.granted || waits.never);
  EXPECT_NE(waits.reason.find("2GB of 8GB free"), std::string::npos);
  const Admission never = admit(pool, 9_GiB, "inference", policy);
  EXPECT_TRUE(never.never);
  EXPECT_NE(never.reason.find("memory_budget of gpu_0 is 8GB"), std::string::npos);
}

TEST(MemoryGrants, a_quota_holds_below_the_pools_limit) {
  Policy policy;
  policy.quotas["inference"] = SizeText{"1GB"};
  PoolState pool{"gpu_0", 8_GiB, Bytes{}, Bytes{}, "memory_budget"};
  EXPECT_TRUE(admit(pool, 2_GiB, "inference", policy).never);
  pool.held_for_purpose = 512_MiB;
  const Admission waits = admit(pool, 1_GiB, "inference", policy);
  EXPECT_FALSE(waits.granted || waits.never);
  EXPECT_NE(waits.reason.find("quota"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::memory
