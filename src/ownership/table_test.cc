#include "ownership/table.h"

#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "events/json_write.h"
#include "events/message_types.h"

namespace lockstep::ownership {
namespace {

TEST(Ownership_table, every_fact_has_exactly_one_writer) {
  for (const FactRow& row : fact_table()) {
    const bool by_orchestrator = may_write(Side::orchestrator, row.fact).has_value();
    const bool by_worker = may_write(Side::worker, row.fact).has_value();
    EXPECT_NE(by_orchestrator, by_worker) << json::enum_name(row.fact);
    EXPECT_EQ(by_orchestrator, row.owner == Side::orchestrator);
  }
}

TEST(Ownership_table, a_refusal_names_the_fact_and_both_sides) {
  const Status refused = may_write(Side::worker, Fact::device_policies);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::not_owner);
  EXPECT_EQ(refused.error().message, "device_policies is the orchestrator's, not the worker's (§1.1)");
}

TEST(Ownership_table, every_frame_type_goes_one_way) {
  for (const EventRow& row : event_table()) {
    EXPECT_TRUE(may_send(row.sender, row.type).has_value()) << json::enum_name(row.type);
    const Side other = row.sender == Side::worker ? Side::orchestrator : Side::worker;
    const Status refused = may_send(other, row.type);
    ASSERT_FALSE(refused.has_value()) << json::enum_name(row.type);
    EXPECT_EQ(refused.error().code, ErrorCode::not_owner);
  }
}

TEST(Ownership_table, a_number_that_is_no_frame_type_is_malformed) {
  const Status refused = may_send(Side::worker, static_cast<FrameType>(31));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

// §2.1-2.6: the direction that the specification prints above each message.
TEST(Ownership_table, the_24_events_go_the_way_the_specification_says) {
  const std::set<std::string> from_workers{
      "device_health_update",   "device_capability_discovered", "vram_usage_update",       "memory_allocation_request",
      "model_loading_progress", "model_runtime_update",         "session_progress_update", "cross_domain_coordination",
      "inference_progress",     "inference_completed",          "postprocessing_progress", "postprocessing_completed"};
  std::size_t found = 0;
  for (const EventRow& row : event_table()) {
    const std::string name = json::enum_name(row.type);
    if (!message_type_named(name)) continue;  // of the link
    ++found;
    EXPECT_EQ(row.sender == Side::worker, from_workers.contains(name)) << name;
  }
  EXPECT_EQ(found, message_types().size());
}

TEST(Ownership_table, people_change_only_what_the_orchestrator_owns) {
  for (const FactRow& row : fact_table()) {
    EXPECT_TRUE(!row.people_may_change || row.owner == Side::orchestrator) << json::enum_name(row.fact);
  }
  EXPECT_FALSE(people_may_change(Fact::device_health));
  EXPECT_FALSE(people_may_change(Fact::results));
}

TEST(Ownership_table, each_section_has_four_sync_points) {
  std::map<std::string_view, int> sections;
  for (const SyncRow& row : sync_table()) ++sections[row.section];
  EXPECT_EQ(sections.size(), 6u);
  for (const auto& [section, points] : sections) EXPECT_EQ(points, 4) << section;
}

}  // namespace
}  // namespace lockstep::ownership
