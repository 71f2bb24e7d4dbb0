#include "worker/real/sensors.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lockstep::worker
