#include "domains/inference/rules.h"

#include <limits>

#include <gtest/gtest.h>

namespace lockstep::inference {
namespace {

InferenceParameters good() {
  InferenceParameters parameters;
  parameters.prompt = "a lighthouse";
  return parameters;
}

/// The field that is refused, as a pointer; empty when all is within the limits.
std::string refused(const InferenceParameters& parameters, std::uint32_t n = 1) {
  const Status status = validate(parameters, n, Limits{});
  if (status) return "";
  EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
  return status.error().pointer;
}

// §2.5 "Validation": each limit, its last good value and the first bad one.
TEST(InferenceRules, n_is_1_to_10) {
  EXPECT_EQ(refused(good(), 1), "");
  EXPECT_EQ(refused(good(), 10), "");
  EXPECT_EQ(refused(good(), 0), "/n");
  EXPECT_EQ(refused(good(), 11), "/n");
}

TEST(InferenceRules, a_prompt_has_1_to_32768_bytes) {
  InferenceParameters p = good();
  p.prompt = std::string(32'768, 'x');
  EXPECT_EQ(refused(p), "");
  p.prompt += 'x';
  EXPECT_EQ(refused(p), "/prompt");
  p.prompt = "";
  EXPECT_EQ(refused(p), "/prompt");
}

TEST(InferenceRules, a_negative_prompt_may_be_empty_and_has_the_same_limit) {
  InferenceParameters p = good();
  p.negative_prompt = "";
  EXPECT_EQ(refused(p), "");
  p.negative_prompt = std::string(32'769, 'x');
  EXPECT_EQ(refused(p), "/negative_prompt");
}

TEST(InferenceRules, steps_are_1_to_500) {
  InferenceParameters p = good();
  for (const std::uint32_t steps : {1u, 500u}) {
    p.steps = steps;
    EXPECT_EQ(refused(p), "");
  }
  for (const std::uint32_t steps : {0u, 501u}) {
    p.steps = steps;
    EXPECT_EQ(refused(p), "/steps");
  }
}

TEST(InferenceRules, guidance_is_0_to_100_and_a_number) {
  InferenceParameters p = good();
  for (const double guidance : {0.0, 100.0}) {
    p.guidance_scale = guidance;
    EXPECT_EQ(refused(p), "");
  }
  for (const double guidance : {-0.1, 100.1, std::numeric_limits<double>::quiet_NaN()}) {
    p.guidance_scale = guidance;
    EXPECT_EQ(refused(p), "/guidance_scale");
  }
}

TEST(InferenceRules, sides_are_64_to_4096_and_divisible_by_8) {
  InferenceParameters p = good();
  p.width = 64;
  p.height = 4096;
  EXPECT_EQ(refused(p), "");
  for (const std::uint32_t side : {0u, 56u, 63u, 513u, 1028u, 4104u}) {
    p = good();
    p.width = side;
    EXPECT_EQ(refused(p), "/width") << side;
    p = good();
    p.height = side;
    EXPECT_EQ(refused(p), "/height") << side;
  }
}

TEST(InferenceRules, a_picture_has_at_most_four_mebipixels) {
  InferenceParameters p = good();
  p.width = 2048;
  p.height = 2048;
  EXPECT_EQ(refused(p), "");
  p.width = 2056;
  EXPECT_EQ(refused(p), "/size");
}

TEST(InferenceRules, the_sentence_has_the_field_the_value_and_the_limit) {
  InferenceParameters p = good();
  p.width = 1001;
  EXPECT_EQ(validate(p, 1, {}).error().message, "width is 1001; it must be divisible by 8");
  p.width = 5000;
  EXPECT_EQ(validate(p, 1, {}).error().message, "width is 5000; it must be 64 to 4096 pixels");
}

TEST(InferenceRules, a_size_is_width_x_height) {
  InferenceParameters p;
  ASSERT_TRUE(read_size("1024x768", p).has_value());
  EXPECT_EQ(p.width, 1024u);
  EXPECT_EQ(p.height, 768u);
  for (const char* text :
       {"", "1024", "1024x", "x768", "1024X768", "1024x768x3", "1024x768 ", " 1x1", "-8x8", "8x-8", "99999999999x8"}) {
    const Status status = read_size(text, p);
    ASSERT_FALSE(status.has_value()) << text;
    EXPECT_EQ(status.error().pointer, "/size");
  }
}

TEST(InferenceRules, image_i_of_a_request_has_the_seed_plus_i_and_an_id_of_its_own) {
  InferenceRequest request;
  request.inference_parameters = good();
  request.inference_parameters.seed = 40;
  const InferenceRequest third = message_for(request, run_id(JobId("req_1/02"), 3), 2);
  EXPECT_EQ(third.inference_parameters.seed, 42u);
  EXPECT_EQ(third.request_id, "inf:req_1/02:3");
  EXPECT_NE(run_id(JobId("req_1/02"), 3), run_id(JobId("req_1/02"), 4));
}

}  // namespace
}  // namespace lockstep::inference
