#include "propagation/event_facts.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "events/json_write.h"
#include "events/message_types.h"
#include "propagation/facts.h"

namespace lockstep {
namespace {

TEST(EventFacts, every_message_of_the_specification_has_the_domain_of_its_section) {
  for (const MessageType& type : message_types()) {
    if (type.recognised_by != "event_type") continue;
    const EventFacts facts = event_facts(type.name, "{}");
    ASSERT_TRUE(facts.domain.has_value()) << type.name;
    EXPECT_EQ(cat("§2.", static_cast<int>(*facts.domain) + 1), type.section) << type.name;
  }
  EXPECT_EQ(event_facts("inference_progress", "{}").domain, Domain::inference);
  EXPECT_EQ(event_facts("vram_usage_update", "{}").domain, Domain::memory);
}

TEST(EventFacts, the_body_decides_where_the_table_asks_for_it) {
  DeviceHealthUpdate update;
  EXPECT_EQ(event_facts("device_health_update", json::to_text(update)).urgency, Urgency::p3_low);
  update.health_metrics.temperature = critical_temperature;
  EXPECT_EQ(event_facts("device_health_update", json::to_text(update)).urgency, Urgency::p0_critical);
}

TEST(EventFacts, a_change_of_level_says_how_urgent_it_is) {
  const std::string body = R"({"device_id":"gpu_0","level":"critical","urgency":"p0_critical"})";
  EXPECT_EQ(event_facts("device_health_changed", body).urgency, Urgency::p0_critical);
  EXPECT_EQ(event_facts("memory_pressure_changed", R"({"urgency":"p1_high"})").urgency, Urgency::p1_high);
  EXPECT_EQ(event_facts("memory_released", R"({"urgency":"p0_critical"})").urgency, EventFacts{}.urgency);
}

TEST(EventFacts, our_own_names_have_a_domain_and_notes_have_none) {
  EXPECT_EQ(event_facts("worker_gone", "{}").urgency, Urgency::p1_high);
  EXPECT_EQ(event_facts("worker_gone", "{}").domain, Domain::device);
  EXPECT_EQ(event_facts("request_accepted", "{}").domain, Domain::processing);
  EXPECT_EQ(event_facts("resync_required", "{}").domain, std::nullopt);
}

}  // namespace
}  // namespace lockstep
