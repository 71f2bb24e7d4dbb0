#include "propagation/urgency_table.h"

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <gtest/gtest.h>
#include <boost/mp11.hpp>

#include "base/text.h"
#include "events/inference_events.h"
#include "events/message_types.h"
#include "propagation/facts.h"
#include "propagation/ordering.h"

namespace lockstep {
namespace {

TEST(UrgencyTable, every_frame_type_has_one_row_without_a_condition) {
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([](auto each) {
    int general = 0;
    for (const UrgencyRow& row : urgency_table()) {
      general += row.type == each.value && row.condition == Condition::always ? 1 : 0;
    }
    EXPECT_EQ(general, 1) << each.name;
  });
}

TEST(UrgencyTable, all_24_events_are_frames) {
  std::set<std::string> framed;
  for (const UrgencyRow& row : urgency_table()) framed.insert(json::enum_name(row.type));
  int events = 0;
  for (const MessageType& type : message_types()) {
    if (type.recognised_by != "event_type") continue;
    ++events;
    EXPECT_TRUE(framed.contains(std::string(type.name))) << type.name;
  }
  EXPECT_EQ(events, 24);
}

// §2.7, literally.
TEST(UrgencyTable, the_six_rows_of_the_matrix_stand_in_it) {
  using enum Domain;
  struct Expected {
    std::string_view impact;
    Urgency lane;
    std::vector<Domain> receivers;
  };
  const std::map<std::string_view, Expected> matrix{
      {"Device Health Critical",
       {"All Domains", Urgency::p0_critical, {device, memory, model, processing, inference, postprocessing}}},
      {"Memory Pressure High", {"Model, Inference, Processing", Urgency::p1_high, {model, inference, processing}}},
      {"Model Loading Complete", {"Processing, Inference", Urgency::p2_normal, {processing, inference}}},
      {"Processing Session Progress", {"Resource Planning", Urgency::p3_low, {memory}}},
      {"Inference Progress Update", {"Postprocessing Preparation", Urgency::p3_low, {postprocessing}}},
      {"Postprocessing Quality Results", {"Output Management", Urgency::p3_low, {postprocessing}}},
  };
  std::set<std::string_view> found;
  for (const UrgencyRow& row : urgency_table()) {
    if (row.matrix.empty()) continue;
    const std::string_view name = row.matrix.substr(0, row.matrix.find(" |"));
    ASSERT_TRUE(matrix.contains(name)) << name;
    const Expected& expected = matrix.at(name);
    EXPECT_EQ(row.lane, expected.lane) << name;
    EXPECT_NE(row.matrix.find(expected.impact), std::string_view::npos) << name;
    EXPECT_NE(row.matrix.find(cat("P", static_cast<int>(row.lane), " - ")), std::string_view::npos) << name;
    for (const Domain each : expected.receivers) EXPECT_TRUE(row.receivers.has(each)) << name;
    found.insert(name);
  }
  EXPECT_EQ(found.size(), matrix.size());
}

// §2.7: the sender's own word lowers a lane and never raises it.
TEST(UrgencyTable, a_word_lowers_and_never_raises) {
  EXPECT_EQ(lowered(Urgency::p3_low, AllocationPriority::critical), Urgency::p3_low);
  EXPECT_EQ(lowered(Urgency::p1_high, AllocationPriority::low), Urgency::p3_low);
  EXPECT_EQ(lowered(Urgency::p1_high, AllocationPriority::high), Urgency::p1_high);

  DeviceHealthUpdate calm;
  calm.propagation_urgency = AllocationPriority::critical;
  EXPECT_EQ(place(FrameType::device_health_update, calm, "").lane, Urgency::p3_low);
  InferenceRequest request;
  request.priority = AllocationPriority::low;
  EXPECT_EQ(place(FrameType::inference_request, request, "").lane, Urgency::p3_low);
}

TEST(UrgencyTable, conditions_are_read_from_the_body) {
  DeviceHealthUpdate hot;
  hot.propagation_urgency = AllocationPriority::critical;
  hot.health_metrics.temperature = critical_temperature;
  EXPECT_EQ(place(FrameType::device_health_update, hot, "").lane, Urgency::p0_critical);
  EXPECT_EQ(place(FrameType::device_health_update, hot, "").passage.newer, "") << "an alert is never dropped";
  hot.health_metrics.temperature = critical_temperature - 0.5;
  EXPECT_EQ(place(FrameType::device_health_update, hot, "").lane, Urgency::p3_low);
  hot.diagnostics = DeviceDiagnostics{.temperature_critical = critical_temperature - 5};
  EXPECT_EQ(place(FrameType::device_health_update, hot, "").lane, Urgency::p0_critical) << "its policy's limit";
  hot.diagnostics = DeviceDiagnostics{.throttle_reasons = std::vector<std::string>{"hardware_thermal"}};
  EXPECT_EQ(place(FrameType::device_health_update, hot, "").lane, Urgency::p0_critical);

  VramUsageUpdate usage{.device_id = DeviceId("gpu_0"), .vram_metrics = {}, .pressure_level = PressureLevel::moderate};
  EXPECT_EQ(place(FrameType::vram_usage_update, usage, "").passage.newer, "vram_usage_update:gpu_0");
  usage.pressure_level = PressureLevel::high;
  EXPECT_EQ(place(FrameType::vram_usage_update, usage, "").lane, Urgency::p1_high);
  EXPECT_EQ(place(FrameType::vram_usage_update, usage, "").passage.newer, "");

  ModelLoadingProgress progress{.model_id = ModelId("sdxl"), .loading_stage = "loading_unet"};
  EXPECT_EQ(place(FrameType::model_loading_progress, progress, "").lane, Urgency::p3_low);
  progress.loading_stage = "loaded";
  EXPECT_EQ(place(FrameType::model_loading_progress, progress, "").lane, Urgency::p2_normal);
}

TEST(UrgencyTable, docs_propagation_prints_this_table) {
  std::ifstream file(LOCKSTEP_SOURCE_DIR "/docs/propagation.md");
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(urgency_document()), std::string::npos)
      << "docs/propagation.md differs; print it with `lockstep message urgency`";
  EXPECT_NE(text.str().find(ordering_document()), std::string::npos)
      << "docs/propagation.md differs; print it with `lockstep message urgency`";
}

}  // namespace
}  // namespace lockstep
