#include "cli/show.h"

#include <gtest/gtest.h>

#include "cli/generate.h"
#include "cli/progress.h"
#include "events/model_events.h"

namespace lockstep::cli {
namespace {

template <class Body>
http::EventLine line(const Body& body) {
  return {std::nullopt, "2025-01-01T00:00:00.000Z", std::string(Body::event_type), "req_1",
          RawJson{json::to_text(body)}};
}

TEST(CliShow, columns_are_as_wide_as_their_longest_cell) {
  EXPECT_EQ(table_text({{"A", "BB"}, {"long", "x"}, {"\xC3\xA4", "y"}}), "A     BB\nlong  x\n\xC3\xA4     y\n");
}

TEST(CliShow, a_servers_text_cannot_drive_the_terminal) {
  EXPECT_EQ(harmless("a\x1b[31mb\nc\x7f"), "a [31mb c ");
  EXPECT_EQ(harmless("\xC2\x9b"
                     "31m"),
            "  31m");
  EXPECT_EQ(harmless("\xC3\xA4"), "\xC3\xA4");
}

TEST(CliShow, progress_is_told_in_words) {
  ModelLoadingProgress loading;
  loading.model_id = ModelId("tiny-sdxl");
  loading.loading_stage = "loading_unet";
  loading.progress_percentage = {40};
  EXPECT_EQ(step_of(line(loading), 1), (Step{"loading tiny-sdxl 40 %", 40}));

  InferenceProgress inference;
  inference.request_id = "inf:req_1/01:2";
  inference.execution_metrics = {3, 8, 0.1, {}};
  EXPECT_EQ(step_of(line(inference), 1), (Step{"inference step 3/8", 37.5}));
  EXPECT_EQ(step_of(line(inference), 4)->words, "[2/4] inference step 3/8");

  PostprocessingProgress post;
  post.pipeline_progress = {"upscaling", 0, 2, {50}};
  EXPECT_EQ(step_of(line(post), 1)->words, "upscaling 50 %");

  PostprocessingCompleted done;
  done.final_results.safety_analysis = SafetyAnalysis{0.998, "safe", {}};
  EXPECT_EQ(step_of(line(done), 1)->words, "safety check: safe (0.998)");

  http::EventLine completed;
  completed.type = "request_completed";
  EXPECT_EQ(step_of(completed, 1)->words, "stored");
  completed.type = "worker_gone";
  EXPECT_FALSE(step_of(completed, 1));
  completed.type = "inference_progress";
  completed.body.text = "[]";  // a newer server's
  EXPECT_FALSE(step_of(completed, 1));
}

TEST(CliShow, a_status_names_what_is_wrong) {
  StatusView view;
  view.version = "1.2.3";
  view.not_ready_because = "no worker is ready yet";
  view.workers.push_back({WorkerId("w0"), DeviceId("cpu_0"), "gone", Incarnation{2}, 0, "", "signal 9 (Killed)", 0});
  view.devices.push_back({});
  view.devices.back().device_id = DeviceId("cpu_0");
  view.devices.back().memory_budget = 2_GiB;
  view.models.push_back({});
  view.models.back().model.model_id = ModelId("tiny");
  view.models.back().model.reason = "no index";
  const std::string text = text_of(view);
  for (const std::string part : {"lockstep 1.2.3", "not ready: no worker is ready yet", "gone: signal 9 (Killed)",
                                 "0B of 2GB", "broken: no index"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(CliShow, an_event_fits_its_row) {
  const http::EventLine event{Rev{3}, "t", "worker_gone", "w0", RawJson{R"({"how":"killed"})"}};
  EXPECT_EQ(text_of(event, 100), R"(t  3  worker_gone  w0  {"how":"killed"})");
  EXPECT_EQ(text_of(event, 20), "t  3  worker_gone...");
}

TEST(CliProgress, the_bar_never_wraps) {
  const Step step{"inference step 4/8", 50};
  EXPECT_EQ(bar_text(step, {.terminal = true, .color = false, .width = 80}),
            "[============            ] inference step 4/8");
  EXPECT_EQ(bar_text(step, {.terminal = true, .color = false, .width = 11}), "inference ");
  for (std::size_t width = 1; width < 100; ++width) {
    EXPECT_LT(bar_text(step, {.terminal = true, .color = false, .width = width}).size(),
              std::max<std::size_t>(width, 2));
  }
  EXPECT_NE(bar_text(step, {.terminal = true, .color = true, .width = 80}).find("\x1b[32m"), std::string::npos);
}

TEST(CliGenerate, the_number_goes_before_the_extension) {
  const RequestId id("req_1");
  EXPECT_EQ(file_name("", id, 2, 1), "lockstep-req_1-2.png");
  EXPECT_EQ(file_name("a.png", id, 0, 1), "a.png");
  EXPECT_EQ(file_name("dir.x/a.png", id, 1, 2), "dir.x/a-1.png");
  EXPECT_EQ(file_name("", id, 0, 1, "jpeg"), "lockstep-req_1-0.jpg");
  EXPECT_EQ(file_name("a", id, 1, 2), "a-1");
}

TEST(CliGenerate, the_extension_says_the_format_and_must_not_lie) {
  const auto asked = [](std::optional<std::string> named, const std::string& file) {
    const auto format = format_to_ask(named, file);
    return format ? format->value_or("-") : "refused";
  };
  EXPECT_EQ(asked({}, ""), "-");
  EXPECT_EQ(asked({}, "a.bmp"), "-");
  EXPECT_EQ(asked({}, "dir.webp/a"), "-");
  EXPECT_EQ(asked({}, "a.JPEG"), "jpeg");
  EXPECT_EQ(asked({}, "a.webp"), "webp");
  EXPECT_EQ(asked("webp", ""), "webp");
  EXPECT_EQ(asked("jpeg", "a.jpg"), "jpeg");
  EXPECT_EQ(asked("webp", "a.png"), "refused");
}

}  // namespace
}  // namespace lockstep::cli
