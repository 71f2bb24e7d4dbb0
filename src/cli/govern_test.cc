#include "cli/govern.h"

#include <gtest/gtest.h>

namespace lockstep::cli {
namespace {

TEST(CliGovern, an_answer_is_shown_as_an_outline) {
  EXPECT_EQ(outline_of(R"({"rev":2,"pools":[{"pool":"gpu_0","limit":8},{"pool":"system_ram","purposes":[]}],)"
                       R"("quotas":{"batch":0.5},"routes":{},"names":["a",1]})"),
            "rev: 2\n"
            "pools:\n"
            "  - pool: \"gpu_0\"\n"
            "    limit: 8\n"
            "  - pool: \"system_ram\"\n"
            "    purposes: none\n"
            "quotas:\n"
            "  batch: 0.5\n"
            "routes: none\n"
            "names:\n"
            "  - \"a\"\n"
            "  - 1\n");
}

TEST(CliGovern, an_answer_of_another_shape_is_shown_as_it_is) {
  EXPECT_EQ(outline_of("{\"a\":"), "{\"a\":\n");
  EXPECT_EQ(outline_of("7"), "7\n");
}

TEST(CliGovern, words_become_an_object_and_a_word_that_is_none_is_named) {
  EXPECT_EQ(object_of({"a=1.5", "b=8GB"}).value(), R"({"a":1.5,"b":"8GB"})");
  EXPECT_EQ(object_of({"prompt=1984", "steps=4"}, {"prompt"}).value(), R"({"prompt":"1984","steps":4})");
  const auto refused = object_of({"a=1", "=2"});
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("\"=2\" is no KEY=VALUE"), std::string::npos);
}

// §2.1 step 5: both values are readable; a change that was not answered says so.
TEST(Govern, propagation_shows_what_is_intended_and_what_is_confirmed) {
  PropagationView view;
  Delivery row;
  row.worker_id = WorkerId("w0");
  row.type = "device_config_update";
  row.about = DeviceId("gpu_0");
  row.urgency = Urgency::p1_high;
  row.intended_rev = Rev{12};
  view.deliveries.push_back(row);
  row.confirmed_rev = Rev{12};
  row.outcome = AppliedOutcome::rejected;
  row.reason = "power_limit: it needs rights";
  view.deliveries.push_back(row);
  const std::string text = text_of(view);
  EXPECT_NE(text.find("w0      device_config_update  gpu_0  P1    12        -          pending"), std::string::npos)
      << text;
  EXPECT_NE(text.find("rejected  power_limit: it needs rights"), std::string::npos) << text;
}

// §1.1: what a calibration has changed is what a person asked for it for.
TEST(Govern, a_calibration_shows_the_scores_before_and_after) {
  CalibrationView view;
  view.device_id = DeviceId("gpu_0");
  view.calibrated_at = "2026-01-01T12:00:00.000Z";
  view.scores_before.items = {{"compute", 5}, {"old", 1}};
  view.scores_after.items = {{"compute", 6}, {"memory_bandwidth", 2.5}};
  view.capabilities_gained = {"fp8_inference"};
  view.capabilities_lost = {"nvenc_encoding\x1b[2J"};
  const std::string text = text_of(view);
  for (const std::string_view words :
       {"gpu_0 was measured at 2026-01-01T12:00:00.000Z\n", "compute: 6 (before: 5)\n", "memory_bandwidth: 2.5 (new)\n",
        "old: not known (before: 1)\n", "can now do: fp8_inference\n", "cannot do any more: nvenc_encoding"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << " in " << text;
  }
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace lockstep::cli
