#include "env/real/host_sensors.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

/// A root folder with the files a test writes.
class HostSensorsTest : public testing::Test {
 protected:
  HostSensorsTest() {
    std::string pattern = cat(testing::TempDir(), "host-XXXXXX");
    root_ = ::mkdtemp(pattern.data());
  }
  ~HostSensorsTest() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << '\n';
  }
  fs::path root_;
};

TEST_F(HostSensorsTest, what_the_kernel_does_not_show_is_absent) {
  const HostReading reading = HostSensors(root_).read();
  EXPECT_FALSE(reading.temperature.has_value());
  EXPECT_FALSE(reading.power_draw.has_value());
  EXPECT_FALSE(reading.memory_errors.has_value());
  EXPECT_FALSE(reading.throttled.has_value());
  EXPECT_EQ(reading.memory_total, Bytes{});
}

// §1.1: the CPU device reports what the kernel gives.
TEST_F(HostSensorsTest, zones_controllers_and_cores_are_taken_together) {
  write("sys/class/thermal/thermal_zone0/temp", "41000");
  write("sys/class/thermal/thermal_zone1/temp", "72500");
  write("sys/class/thermal/cooling_device0/temp", "99000");
  write("sys/devices/system/edac/mc/mc0/ue_count", "1");
  write("sys/devices/system/edac/mc/mc1/ue_count", "2");
  write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "5");
  write("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "6");
  write("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB");
  write("proc/self/status", "Name:\tx\nVmRSS:\t     30 kB");
  write("proc/cpuinfo", "processor\t: 0\nmodel name\t: A Processor");
  HostSensors sensors(root_);
  const HostReading reading = sensors.read();
  EXPECT_EQ(reading.temperature, 72.5);
  EXPECT_EQ(reading.memory_errors, 3u);
  EXPECT_EQ(reading.throttled, 11u);
  EXPECT_EQ(reading.memory_total, Bytes{1000 * 1024});
  EXPECT_EQ(reading.memory_used, Bytes{600 * 1024});
  EXPECT_EQ(reading.process_memory, Bytes{30 * 1024});
  EXPECT_EQ(sensors.name(), "A Processor");
}

TEST_F(HostSensorsTest, power_is_energy_since_the_reading_before_and_a_wrapped_counter_is_left_out) {
  write("sys/class/powercap/intel-rapl:0/energy_uj", "1000000");
  write("sys/class/powercap/intel-rapl:0:0/energy_uj", "9000000");  // a part of the package
  HostSensors sensors(root_);
  EXPECT_FALSE(sensors.read().power_draw.has_value());
  write("sys/class/powercap/intel-rapl:0/energy_uj", "3000000");
  const auto draw = sensors.read().power_draw;
  ASSERT_TRUE(draw.has_value());
  EXPECT_GT(*draw, 0);
  write("sys/class/powercap/intel-rapl:0/energy_uj", "5");
  EXPECT_FALSE(sensors.read().power_draw.has_value());
}

TEST(HostSensors, this_machine_has_memory_and_this_process_uses_some) {
  const HostReading reading = HostSensors().read();
  EXPECT_GT(reading.memory_total, reading.process_memory);
  EXPECT_GT(reading.process_memory, Bytes{});
}

}  // namespace
}  // namespace lockstep::real
