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

std::vector<std::string> words_at(int major, int minor) {
  return gpu_of({.compute_capability = real::ComputeCapability{major, minor}}).new_capabilities;
}

// §1.1, §2.1: what a GPU can do follows from its compute capability.
TEST(Probe, a_gpus_arithmetic_follows_from_its_compute_capability) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words_at(5, 2), Words{});
  EXPECT_EQ(words_at(5, 3), Words{"fp16_inference"});
  EXPECT_EQ(words_at(6, 1), Words{"fp16_inference"});
  EXPECT_EQ(words_at(7, 0), (Words{"fp16_inference", "tensor_core_acceleration"}));
  EXPECT_EQ(words_at(8, 0), (Words{"fp16_inference", "tensor_core_acceleration", "bf16_inference"}));
  EXPECT_EQ(words_at(8, 6), words_at(8, 0));
  EXPECT_EQ(words_at(8, 9), (Words{"fp16_inference", "tensor_core_acceleration", "bf16_inference", "fp8_inference"}));
  EXPECT_EQ(words_at(10, 0), words_at(8, 9));
}

TEST(Probe, a_gpus_scores_are_its_rated_figures) {
  const auto found = gpu_of(
      {.cores = 16384, .clock_max = 2520, .memory_clock_max = 10501, .memory_bus_width = 384, .encodes_h264 = true});
  EXPECT_EQ(found.new_capabilities, (std::vector<std::string>{"nvenc_encoding"}));
  ASSERT_NE(found.capability_scores.find("compute"), nullptr);
  EXPECT_NEAR(*found.capability_scores.find("compute"), 8.26, 0.01);  // 82.6 TFLOPS
  ASSERT_NE(found.capability_scores.find("memory_bandwidth"), nullptr);
  EXPECT_NEAR(*found.capability_scores.find("memory_bandwidth"), 2.016, 0.001);  // 1.008 TB/s
  EXPECT_EQ(
      *gpu_of({.memory_clock_max = 1'000'000, .memory_bus_width = 8192}).capability_scores.find("memory_bandwidth"),
      10);
}

// As its driver tells them, a capacity of an encoder that it does not have included.
TEST(Probe, the_figures_of_a_real_gpu_are_those_of_its_data_sheet) {
  const auto h200 = gpu_of({.compute_capability = real::ComputeCapability{9, 0},
                            .cores = 16896,
                            .clock_max = 1980,
                            .memory_clock_max = 3201,
                            .memory_bus_width = 6016,
                            .encodes_h264 = true});
  EXPECT_EQ(h200.new_capabilities, words_at(8, 9));
  EXPECT_NEAR(*h200.capability_scores.find("compute"), 6.7, 0.05);           // 67 TFLOPS
  EXPECT_NEAR(*h200.capability_scores.find("memory_bandwidth"), 9.6, 0.05);  // 4.8 TB/s
}

TEST(Probe, what_a_driver_does_not_tell_is_left_out) {
  const auto found = gpu_of({.cores = 100, .memory_clock_max = 5000, .encodes_h264 = false});
  EXPECT_TRUE(found.new_capabilities.empty());
  EXPECT_TRUE(found.capability_scores.items.empty());
}

}  // namespace
}  // namespace lockstep::worker
