#include "env/real/nvml.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace lockstep::real {
namespace {

Result<std::unique_ptr<NvmlGpu>> fake(const std::string& which) { return NvmlGpu::open(which, LOCKSTEP_FAKE_NVML); }

TEST(Nvml, a_machine_without_the_driver_says_so) {
  const auto gpu = NvmlGpu::open("0", "no-such-library.so");
  ASSERT_FALSE(gpu.has_value());
  EXPECT_EQ(gpu.error().code, ErrorCode::unavailable);
  EXPECT_NE(gpu.error().message.find("no-such-library.so"), std::string::npos);
}

TEST(Nvml, a_driver_that_does_not_start_says_why) {
  ::setenv("FAKE_NVML", "broken", 1);
  const auto gpu = fake("0");
  ::unsetenv("FAKE_NVML");
  ASSERT_FALSE(gpu.has_value());
  EXPECT_NE(gpu.error().message.find("Driver Not Loaded"), std::string::npos);
}

TEST(Nvml, a_gpu_is_found_by_number_and_by_uuid_and_others_are_not) {
  EXPECT_TRUE(fake("0").has_value());
  EXPECT_TRUE(fake("GPU-1234").has_value());
  EXPECT_FALSE(fake("1").has_value());
  EXPECT_FALSE(fake("GPU-4321").has_value());
  EXPECT_FALSE(fake("").has_value());
}

// §1.1 temperature, power consumption, utilization, hardware errors
TEST(Nvml, readings_carry_their_units_and_what_is_missing_is_absent) {
  const auto gpu = fake("0");
  ASSERT_TRUE(gpu.has_value());
  EXPECT_EQ((*gpu)->name(), "Fake GPU");
  EXPECT_EQ((*gpu)->driver_version(), "570.10");
  const GpuReading reading = (*gpu)->read(4711);
  EXPECT_EQ(reading.temperature, 72.0);
  EXPECT_EQ(reading.power_draw, 345.6);
  EXPECT_FALSE(reading.power_limit.has_value());  // the driver is too old for it
  ASSERT_TRUE(reading.utilization.has_value());
  EXPECT_EQ(reading.utilization->value, 85.0);
  EXPECT_EQ(reading.memory_total, Bytes{16106127360});
  EXPECT_EQ(reading.memory_used, Bytes{12884901888});
  EXPECT_EQ(reading.memory_errors, 3u);
  EXPECT_EQ(reading.throttle_reasons, (std::vector<std::string>{"power_cap", "hardware_thermal"}));
}

// §1.1 capability detection
TEST(Nvml, facts_of_the_gpu_are_as_the_driver_tells_them_or_absent) {
  const auto gpu = fake("0");
  ASSERT_TRUE(gpu.has_value());
  const GpuFacts facts = (*gpu)->facts();
  EXPECT_EQ(facts.compute_capability, (ComputeCapability{8, 9}));
  EXPECT_EQ(facts.cores, 10000u);
  EXPECT_EQ(facts.clock_max, 2500u);
  EXPECT_EQ(facts.memory_clock_max, 10000u);
  EXPECT_EQ(facts.memory_bus_width, 400u);
  EXPECT_EQ(facts.encodes_h264, true);
  ::setenv("FAKE_NVML", "mute", 1);
  const GpuFacts none = (*gpu)->facts();
  ::unsetenv("FAKE_NVML");
  EXPECT_FALSE(none.compute_capability || none.cores || none.clock_max || none.memory_clock_max ||
               none.memory_bus_width || none.encodes_h264);
}

TEST(Nvml, a_process_has_its_bytes_none_or_unknown_ones) {
  const auto gpu = fake("0");
  ASSERT_TRUE(gpu.has_value());
  EXPECT_EQ((*gpu)->read(4711).process_memory, 1_GiB);
  EXPECT_FALSE((*gpu)->read(4712).process_memory.has_value());  // the driver will not say
  EXPECT_EQ((*gpu)->read(1).process_memory, Bytes{});
}

TEST(Nvml, a_power_limit_needs_rights_and_a_sensible_value) {
  const auto gpu = fake("0");
  ASSERT_TRUE(gpu.has_value());
  const Status refused = (*gpu)->set_power_limit(350);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::not_owner);
  EXPECT_NE(refused.error().message.find("350"), std::string::npos);
  EXPECT_EQ((*gpu)->set_power_limit(50).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE((*gpu)->set_power_limit(200).has_value());
  EXPECT_NE((*gpu)->reset_power_limit().error().message.find("400 W"), std::string::npos);
  EXPECT_EQ((*gpu)->set_power_limit(-1).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace lockstep::real
