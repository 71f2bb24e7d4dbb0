// The message examples of the specification (tests/examples, copied to the letter) are our messages.

#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "events/device_events.h"
#include "events/inference_events.h"
#include "events/json_read.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"

namespace lockstep {
namespace {

std::string example(std::string_view name) {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/tests/examples/", name, ".json"));
  EXPECT_TRUE(file.is_open()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Decodes the example into its struct and encodes that: key order and kind of number must be the example's own.
template <class Message>
void round_trip() {
  const std::string text = example(Message::event_type);
  const auto canonical = json::from_text<RawJson>(text);
  ASSERT_TRUE(canonical.has_value()) << canonical.error().message;
  json::ReadNotes notes;
  const auto message = json::from_text<Message>(text, &notes);
  ASSERT_TRUE(message.has_value()) << message.error().pointer << ": " << message.error().message;
  EXPECT_EQ(notes.unknown_keys, 0) << notes.first_unknown;
  EXPECT_EQ(json::to_text(*message), canonical->text);
}

// §2.1
TEST(Design_2_1_device_messages, device_health_update_is_the_specifications) { round_trip<DeviceHealthUpdate>(); }
// §2.2
TEST(Design_2_2_memory_messages, vram_usage_update_is_the_specifications) { round_trip<VramUsageUpdate>(); }
// §2.3
TEST(Design_2_3_model_messages, model_load_request_is_the_specifications) { round_trip<ModelLoadRequest>(); }
TEST(Design_2_3_model_messages, model_loading_progress_is_the_specifications) { round_trip<ModelLoadingProgress>(); }
// §2.5
TEST(Design_2_5_inference_messages, inference_request_is_the_specifications) { round_trip<InferenceRequest>(); }
TEST(Design_2_5_inference_messages, inference_progress_is_the_specifications) { round_trip<InferenceProgress>(); }
TEST(Design_2_5_inference_messages, inference_completed_is_the_specifications) { round_trip<InferenceCompleted>(); }
// §2.6
TEST(Design_2_6_postprocessing_messages, postprocessing_request_is_the_specifications) {
  round_trip<PostprocessingRequest>();
}
TEST(Design_2_6_postprocessing_messages, postprocessing_progress_is_the_specifications) {
  round_trip<PostprocessingProgress>();
}
TEST(Design_2_6_postprocessing_messages, postprocessing_completed_is_the_specifications) {
  round_trip<PostprocessingCompleted>();
}

}  // namespace
}  // namespace lockstep
