#include "env/real/system_memory.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep::real {
namespace {

class SystemMemory : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = cat(std::filesystem::temp_directory_path().string(), "/lockstep_memory_XXXXXX");
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root = name + "/";
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << text;
  }
  std::string root;
};

TEST_F(SystemMemory, the_machine_is_read_from_meminfo_and_pressure) {
  write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:        100 kB\nMemAvailable:    250 kB\n");
  write("proc/pressure/memory",
        "some avg10=50.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=0\n");
  const auto reading = read_memory(root);
  ASSERT_TRUE(reading.has_value());
  EXPECT_EQ(reading->total, 1000_KiB);
  EXPECT_EQ(reading->available, 250_KiB);
  EXPECT_DOUBLE_EQ(reading->stall, 0.125);
  EXPECT_FALSE(reading->group_limit.has_value());
}

TEST_F(SystemMemory, the_groups_file_cache_is_not_counted_as_used) {
  write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\n");
  write("proc/self/cgroup", "1:name=systemd:/x\n0::/pod/one\n");
  write("sys/fs/cgroup/pod/one/memory.max", "1048576\n");
  write("sys/fs/cgroup/pod/one/memory.current", "900000\n");
  write("sys/fs/cgroup/pod/one/memory.stat", "anon 1\ninactive_file 300000\n");
  const auto reading = read_memory(root);
  ASSERT_TRUE(reading.has_value() && reading->group_limit.has_value());
  EXPECT_EQ(reading->group_limit->value, 1048576u);
  EXPECT_EQ(reading->group_used.value, 600000u);
}

TEST_F(SystemMemory, a_group_without_a_limit_has_none) {
  write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\n");
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "max\n");
  write("sys/fs/cgroup/memory.current", "900000\n");
  EXPECT_FALSE(read_memory(root)->group_limit.has_value());
}

TEST_F(SystemMemory, without_meminfo_it_says_so) {
  const auto reading = read_memory(root);
  ASSERT_FALSE(reading.has_value());
  EXPECT_EQ(reading.error().code, ErrorCode::unavailable);
}

// The real files of this machine.
TEST(SystemMemoryHere, this_machine_can_be_read) {
  const auto reading = read_memory();
  ASSERT_TRUE(reading.has_value());
  EXPECT_GT(reading->total, reading->available);
  EXPECT_GT(reading->available.value, 0u);
}

}  // namespace
}  // namespace lockstep::real
