#include "worker/real/probe.h"

#include <gtest/gtest.h>

namespace lockstep::worker {
namespace {

TEST(Probe, a_processor_is_read_by_name_and_whole_flags) {
  const auto found = processor_of("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2x avx512f\n");
  EXPECT_EQ(found.device_name, "Some CPU @ 2 GHz");
  EXPECT_EQ(found.new_capabilities, (std::vector<std::string>{"avx512f"}));
}

TEST(Probe, what_the_kernel_does_not_tell_is_left_out) {
  const auto found = processor_of("processor: 0\n");
  EXPECT_FALSE(found.device_name.has_value());
  EXPECT_TRUE(found.new_capabilities.empty());
}

TEST(Probe, a_score_lies_between_0_and_10) {
  EXPECT_EQ(copy_score(0), 0);
  EXPECT_EQ(copy_score(50e9), 5);
  EXPECT_EQ(copy_score(1e15), 10);
}

TEST(Probe, this_processor_has_a_measured_score) {
  const auto found = probe_processor();
  ASSERT_NE(found.capability_scores.find("memory_bandwidth"), nullptr);
  EXPECT_GT(*found.capability_scores.find("memory_bandwidth"), 0);
  EXPECT_TRUE(found.driver_version.has_value());
}

}  // namespace
}  // namespace lockstep::worker
