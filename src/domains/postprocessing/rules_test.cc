#include "domains/postprocessing/rules.h"

#include <gtest/gtest.h>

namespace lockstep::postprocessing {
namespace {

const PipelineOperation upscaling{"upscaling", ModelId("up"), "4096x4096", std::nullopt};
const PipelineOperation check{"safety_check", ModelId("safe"), std::nullopt, "moderate"};

PostprocessingCompleted with_verdict(std::string classification) {
  PostprocessingCompleted completed;
  completed.final_results.safety_analysis = SafetyAnalysis{0.31, std::move(classification), {"violence", "gore"}};
  return completed;
}

// §2.6: silence is never a pass.
TEST(PostprocessingRules, without_the_verdict_that_was_ordered_nothing_is_delivered) {
  const Status status = may_deliver({upscaling, check}, PostprocessingCompleted{});
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::internal);
}

// §1.6, §2.6: a format, and a quality that it has.
TEST(PostprocessingRules, a_format_is_known_and_its_quality_is_possible) {
  using Words = std::pair<std::string, std::string>;
  const auto read = [](std::optional<std::string> format, std::optional<std::string> quality) {
    const auto output = read_output(format, quality);
    return output ? Words{output->format, output->quality} : Words{output.error().pointer, output.error().message};
  };
  EXPECT_EQ(read({}, {}), Words("png", "lossless"));
  EXPECT_EQ(read("webp", {}), Words("webp", "lossless"));
  EXPECT_EQ(read("webp", "low"), Words("webp", "low"));
  EXPECT_EQ(read("jpeg", {}), Words("jpeg", "high"));
  EXPECT_EQ(read("jpeg", "medium"), Words("jpeg", "medium"));
  EXPECT_EQ(read("gif", {}), Words("/output_format", R"(output_format is "gif"; it must be png, jpeg or webp)"));
  EXPECT_EQ(read("png", "high"), Words("/output_quality", R"(output_quality is "high"; png is always lossless)"));
  EXPECT_EQ(read("jpeg", "lossless"),
            Words("/output_quality",
                  R"(output_quality is "lossless"; jpeg cannot be; it must be high, medium or low)"));
  EXPECT_EQ(read("webp", "best"),
            Words("/output_quality", R"(output_quality is "best"; it must be lossless, high, medium or low)"));
}

TEST(PostprocessingRules, an_output_is_not_larger_than_its_format_can_say) {
  EXPECT_TRUE(validate_output_size({"png", "lossless"}, 16'384, 64).has_value());
  const Status wide = validate_output_size({"webp", "high"}, 16'384, 64);
  ASSERT_FALSE(wide.has_value());
  EXPECT_NE(wide.error().message.find("at most 16383 pixels; the output would be 16384x64"), std::string::npos)
      << wide.error().message;
}

TEST(PostprocessingRules, only_safe_is_safe) {
  EXPECT_TRUE(may_deliver({check}, with_verdict("safe")).has_value());
  for (const char* word : {"unsafe", "", "Safe", "unknown", "safe "}) {
    const Status status = may_deliver({check}, with_verdict(word));
    ASSERT_FALSE(status.has_value()) << word;
    EXPECT_EQ(status.error().code, ErrorCode::safety_blocked);
  }
}

TEST(PostprocessingRules, a_block_says_the_score_and_the_flags) {
  const Status status = may_deliver({check}, with_verdict("unsafe"));
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("0.31"), std::string::npos) << status.error().message;
  EXPECT_NE(status.error().message.find("violence, gore"), std::string::npos) << status.error().message;
}

TEST(PostprocessingRules, a_pipeline_without_a_check_delivers) {
  EXPECT_TRUE(may_deliver({upscaling}, PostprocessingCompleted{}).has_value());
}

TEST(PostprocessingRules, a_bad_operation_is_refused_with_its_place) {
  EXPECT_TRUE(validate({upscaling, check}).has_value());
  EXPECT_TRUE(validate(std::vector<PipelineOperation>{}).has_value());
  const auto place = [](PipelineOperation second) { return validate({upscaling, std::move(second)}).error().pointer; };
  PipelineOperation unknown = check;
  unknown.operation = "colorize";
  EXPECT_EQ(place(unknown), "/postprocessing_pipeline/1/operation");
  PipelineOperation nameless = check;
  nameless.model = ModelId();
  EXPECT_EQ(place(nameless), "/postprocessing_pipeline/1/model");
  PipelineOperation lax = check;
  lax.strictness = "off";
  EXPECT_EQ(place(lax), "/postprocessing_pipeline/1/strictness");
}

}  // namespace
}  // namespace lockstep::postprocessing
