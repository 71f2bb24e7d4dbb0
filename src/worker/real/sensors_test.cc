#include "worker/real/sensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

namespace lockstep::worker {
namespace {

TEST(Sensors, the_driver_counts_gpus_that_the_process_does_not_see) {
  EXPECT_EQ(driver_index("cuda:1", ""), "1");
  EXPECT_EQ(driver_index("cuda", ""), "0");
  EXPECT_EQ(driver_index("cuda:1", "3,5"), "5");
  EXPECT_EQ(driver_index("cuda:0", "GPU-1234"), "GPU-1234");
  EXPECT_EQ(driver_index("cuda:4", "3,5"), "4");
}

in::Telemetry read_once(Sensors& sensors, std::promise<in::Telemetry>& promise) {
  sensors.sample();
  return promise.get_future().get();
}

TEST(Sensors, a_processor_is_read_on_request_with_what_its_allocator_says) {
  std::promise<in::Telemetry> promise;
  Sensors sensors("cpu", [&](in::Telemetry reading) { promise.set_value(std::move(reading)); });
  sensors.tell({Bytes{75}, Bytes{100}, Bytes{25}, 1, 2});
  const in::Telemetry reading = read_once(sensors, promise);
  EXPECT_EQ(reading.used, Bytes{75});
  EXPECT_EQ(reading.fragmentation.value, 0.25);
  ASSERT_TRUE(reading.diagnostics.allocator.has_value());
  EXPECT_EQ(reading.diagnostics.allocator->out_of_memory, 2u);
  ASSERT_TRUE(reading.diagnostics.process_memory.has_value());
  EXPECT_GT(*reading.diagnostics.process_memory, Bytes{});
  EXPECT_FALSE(reading.diagnostics.driver_version.has_value());
}

TEST(Sensors, a_gpu_without_a_driver_has_no_readings_of_its_own) {
  std::promise<in::Telemetry> promise;
  Sensors sensors("cuda:99", [&](in::Telemetry reading) { promise.set_value(std::move(reading)); });
  sensors.tell({.allocated = Bytes{75}});
  const in::Telemetry reading = read_once(sensors, promise);
  EXPECT_EQ(reading.used, Bytes{75});
  EXPECT_FALSE(reading.health.temperature.has_value());
  EXPECT_FALSE(reading.diagnostics.memory_total.has_value());
}

Result<DeviceCapabilityDiscovered> probe_once(Sensors& sensors) {
  std::promise<Result<DeviceCapabilityDiscovered>> promise;
  sensors.probe([&](Result<DeviceCapabilityDiscovered> found) { promise.set_value(std::move(found)); });
  return promise.get_future().get();
}

// §1.1 capability detection, at the start and at each calibration
TEST(Sensors, a_gpu_is_probed_through_its_driver) {
  Sensors sensors("cuda:0", [](const in::Telemetry&) {}, LOCKSTEP_FAKE_NVML);
  const auto found = probe_once(sensors);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->device_name, "Fake GPU");
  EXPECT_EQ(found->driver_version, "570.10");
  EXPECT_EQ(found->new_capabilities, (std::vector<std::string>{"fp16_inference", "tensor_core_acceleration",
                                                               "bf16_inference", "fp8_inference", "nvenc_encoding"}));
  EXPECT_EQ(*found->capability_scores.find("compute"), 5);           // 50 TFLOPS
  EXPECT_EQ(*found->capability_scores.find("memory_bandwidth"), 2);  // 1 TB/s
}

TEST(Sensors, a_driver_that_was_not_there_is_asked_again_at_each_probe) {
  ::setenv("FAKE_NVML", "broken", 1);
  Sensors sensors("cuda:0", [](const in::Telemetry&) {}, LOCKSTEP_FAKE_NVML);
  const auto none = probe_once(sensors);
  ::unsetenv("FAKE_NVML");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::unavailable);
  EXPECT_NE(none.error().message.find("Driver Not Loaded"), std::string::npos);
  EXPECT_TRUE(probe_once(sensors).has_value());
}

TEST(Sensors, a_processor_is_measured_again_at_each_probe) {
  Sensors sensors("cpu", [](const in::Telemetry&) {});
  for (int i = 0; i < 2; ++i) {
    const auto found = probe_once(sensors);
    ASSERT_TRUE(found.has_value());
    EXPECT_GT(*found->capability_scores.find("memory_bandwidth"), 0);
  }
}

}  // namespace
}  // namespace lockstep::worker
