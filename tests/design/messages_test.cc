// The message examples of the specification (tests/examples, copied to the letter) are our messages.

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "events/json_read.h"
#include "events/link_messages.h"
#include "events/message_types.h"

namespace lockstep {
namespace {

std::string example(std::string_view name) {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/tests/examples/", name, ".json"));
  EXPECT_TRUE(file.is_open()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// §3.1-3.6, §3.8: the documents of transactions are ours in the same way.
class Design_3_documents : public testing::TestWithParam<MessageType> {};
INSTANTIATE_TEST_SUITE_P(all, Design_3_documents,
                         testing::ValuesIn(transaction_documents().begin(), transaction_documents().end()),
                         [](const auto& type) { return std::string(type.param.name); });

TEST_P(Design_3_documents, the_example_is_ours_and_says_what_it_is) {
  const std::string text = example(GetParam().name);
  const auto compact = json::from_text<RawJson>(text);
  ASSERT_TRUE(compact.has_value()) << compact.error().message;
  const auto type = recognise_message(text);
  ASSERT_TRUE(type.has_value()) << type.error().message;
  EXPECT_EQ((*type)->name, GetParam().name);
  const auto checked = GetParam().check(text);
  ASSERT_TRUE(checked.has_value()) << checked.error().pointer << ": " << checked.error().message;
  EXPECT_EQ(checked->canonical, compact->text);
  EXPECT_EQ(checked->notes.unknown_keys, 0) << checked->notes.first_unknown;
}

class Design_2_messages : public testing::TestWithParam<MessageType> {};
INSTANTIATE_TEST_SUITE_P(all, Design_2_messages, testing::ValuesIn(message_types().begin(), message_types().end()),
                         [](const auto& type) { return std::string(type.param.name); });

// §2.1-2.6: read and written again, the specification's example has its own keys in its own order, its texts byte for
// byte, and its numbers with their kind (350 is whole, 7.0 is not).
TEST_P(Design_2_messages, the_example_is_ours) {
  const std::string text = example(GetParam().name);
  const auto compact = json::from_text<RawJson>(text);
  ASSERT_TRUE(compact.has_value()) << compact.error().message;
  const auto checked = GetParam().check(text);
  ASSERT_TRUE(checked.has_value()) << checked.error().pointer << ": " << checked.error().message;
  EXPECT_EQ(checked->canonical, compact->text);
  EXPECT_EQ(checked->notes.unknown_keys, 0) << checked->notes.first_unknown;
}

// §2.1-2.6: a message says itself what it is.
TEST_P(Design_2_messages, the_example_is_recognised) {
  const auto type = recognise_message(example(GetParam().name));
  ASSERT_TRUE(type.has_value()) << type.error().message;
  EXPECT_EQ((*type)->name, GetParam().name);
}

// §2.1-2.6: every event has a number on the link, under the same word.
TEST_P(Design_2_messages, the_link_can_carry_it) {
  FrameType type{};
  EXPECT_TRUE(boost::describe::enum_from_string(std::string(GetParam().name).c_str(), type)) << GetParam().name;
}

TEST(Design_2, there_are_24_messages_and_an_example_of_each) {
  std::set<std::string_view> names;
  for (const MessageType& type : message_types()) names.insert(type.name);
  EXPECT_EQ(names.size(), 24u);
}

struct Refusal {
  std::string_view type;     // whose example is changed
  std::string_view from;     // this text of it ...
  std::string_view to;       // ... becomes this
  std::string_view pointer;  // and is refused there
  std::string_view message;
};

constexpr Refusal refusals[] = {
    // a closed word
    {"memory_allocation_request", R"("high")", R"("urgent")", "/priority",
     R"("urgent" is none of: critical, high, normal, low)"},
    {"session_control_command", R"("pause_operations")", R"("stop")", "/command",
     R"("stop" is none of: pause_operations, resume_operations, cancel_operations)"},
    {"device_config_update", R"("high")", R"("High")", "/propagation_priority",
     R"("High" is none of: critical, high, normal, low)"},
    {"safety_policy_update", R"("reject")", R"("ignore")", "/enforcement_actions/below_safety_threshold",
     R"("ignore" is none of: reject, flag_for_review, allow)"},
    {"vram_usage_update", R"("moderate")", R"("extreme")", "/pressure_level",
     R"("extreme" is none of: low, moderate, high, critical)"},
    // a range
    {"device_config_update", "350", "0", "/changes/power_limit", "0 is outside 1 to 4294967295"},
    {"device_config_update", "\"requires_confirmation\"", "\"temperature_critical\": 201, \"requires_confirmation\"",
     "/temperature_critical", "201 is outside 0 to 200"},
    {"device_capability_discovered", "8.7", "10.1", "/capability_scores/memory_efficiency", "10.1 is outside 0 to 10"},
    {"memory_policy_update", "0.95", "1.5", "/policy_changes/emergency_cleanup_threshold", "1.5 is outside 0 to 1"},
    {"model_loading_progress", "65.2", "100.5", "/progress_percentage", "100.5 is outside 0 to 100"},
    {"model_runtime_update", "2.3", "-2.3", "/runtime_metrics/average_inference_time", "-2.3 is below 0"},
    {"inference_request", "\"steps\": 30", "\"steps\": 0", "/inference_parameters/steps",
     "0 is outside 1 to 4294967295"},
    {"inference_request", "\"width\": 1024", "\"width\": 1023", "/inference_parameters/width",
     "1023 is not divisible by 8"},
    {"inference_request", "7.5", "-0.5", "/inference_parameters/guidance_scale", "-0.5 is below 0"},
    {"inference_orchestration", "4,", "0,", "/batch_configuration/batch_size", "0 is outside 1 to 4294967295"},
    {"memory_allocation_request", "4294967296", "0", "/requested_bytes", "0 is outside 1 to 9223372036854775807"},
    {"safety_policy_update", "7.0", "70.0", "/safety_thresholds/quality_minimum", "70.0 is outside 0 to 10"},
    {"device_health_update", "72.5", "-300.0", "/health_metrics/temperature", "-300.0 is below -273.15"},
    // a kind
    {"device_config_update", "350", "350.0", "/changes/power_limit", "expected a whole number, got 350.0"},
    {"device_config_update", "350", R"("350")", "/changes/power_limit", R"(expected a number, got "350")"},
    {"device_routing_update", R"("gpu_0")", "0", "/routing_table/inference_primary", "expected a string, got 0"},
    {"model_cache_update", R"(["model_abc_v1"])", R"("model_abc_v1")", "/cache_changes/removed",
     R"(expected an array, got "model_abc_v1")"},
    {"processing_session_created", R"(["gpu_0"])", R"(["gpu_0", 1])", "/resource_allocation/gpu_allocation/1",
     "expected a string, got 1"},
    {"cross_domain_coordination", "{\n    \"requires", "[{\n    \"requires", "/coordination_request",
     "expected an object, got ["},
    {"memory_policy_update", "true", "1", "/effective_immediately", "expected true or false, got 1"},
    {"device_health_update", "0.78", "NaN", "/health_metrics/memory_usage", "expected a number, got NaN"},
    {"device_health_update", "72.5", "1e999", "/health_metrics/temperature", "1e999 does not fit a double"},
    // a text form
    {"memory_policy_update", R"("8GB")", R"("8 GB")", "/policy_changes/max_model_cache_size",
     R"("8 GB" is not a size)"},
    {"memory_allocation_request", R"("5min")", R"("5 minutes")", "/estimated_duration",
     R"("5 minutes" is not a duration)"},
    {"session_progress_update", "2025-07-12T10:35:30Z", "2025-07-12 10:35:30", "/progress_metrics/estimated_completion",
     R"("2025-07-12 10:35:30" is not a time)"},
    // a key
    {"system_memory_allocated", "\"memory_pool\"", "\"memory_pond\"", "/memory_pool", "this key is missing"},
    {"device_routing_update", "\"inference_secondary\"", "\"inference_primary\"", "/routing_table/inference_primary",
     "this key stands twice"},
    {"session_control_command", "\"reason\"", "\"command\"", "/command", "this key stands twice"},
    {"device_config_update", "\"power_limit\": 350", "\"x\": {\"y\": 1, \"\\u0079\": 2}", "/changes/x/y",
     "this key stands twice"},
    {"postprocessing_request", "\"operation\": \"safety_check\"", "\"operate\": 1",
     "/postprocessing_pipeline/1/operation", "this key is missing"},
};

TEST(Design_2, what_breaks_a_rule_is_refused_with_the_place_the_value_and_what_was_expected) {
  for (const Refusal& refusal : refusals) {
    std::string text = example(refusal.type);
    const std::size_t at = text.find(refusal.from);
    ASSERT_NE(at, std::string::npos) << refusal.type << ": no " << refusal.from;
    text.replace(at, refusal.from.size(), refusal.to);
    const auto checked = (*message_type_named(refusal.type))->check(text);
    ASSERT_FALSE(checked.has_value()) << text;
    EXPECT_EQ(checked.error().pointer, refusal.pointer) << text;
    EXPECT_TRUE(checked.error().message.starts_with(refusal.message)) << checked.error().message;
  }
}

TEST_P(Design_2_messages, every_missing_key_is_named) {
  // Each key of the example is given another name in turn. What is optional may go; the rest is named.
  const std::string text = example(GetParam().name);
  int refused = 0;
  for (std::size_t at = text.find('"'); at != std::string::npos; at = text.find('"', at + 1)) {
    const std::size_t end = text.find('"', at + 1);
    const bool is_key = text.compare(end, 2, "\":") == 0;
    const std::string key = text.substr(at + 1, end - at - 1);
    if (is_key) {
      std::string changed = text;
      changed.insert(at + 1, "no_");
      const auto checked = GetParam().check(changed);
      if (!checked) {
        ++refused;
        EXPECT_EQ(checked.error().message, "this key is missing") << changed;
        EXPECT_TRUE(checked.error().pointer.ends_with("/" + key)) << checked.error().pointer << " for " << key;
      }
    }
    at = end;
  }
  EXPECT_GE(refused, 2) << "event_type and at least one more must be there";
}

// §2.1, §2.2: capabilities, purposes and reasons are open: a word that nobody knows passes unchanged.
TEST(Design_2, an_unknown_open_word_passes) {
  for (const auto& [type, from] :
       {std::pair<std::string_view, std::string>{"device_capability_discovered", "nvenc_encoding"},
        {"system_memory_allocated", "model_cache"},
        {"session_control_command", "memory_pressure_detected"}}) {
    std::string text = example(type);
    text.replace(text.find(from), from.size(), "something_new");
    const auto checked = (*message_type_named(type))->check(text);
    ASSERT_TRUE(checked.has_value()) << checked.error().message;
    EXPECT_NE(checked->canonical.find("something_new"), std::string::npos);
  }
}

// §2.1: what was added later by somebody else is dropped, counted, and no reason to refuse.
TEST(Design_2, an_unknown_setting_is_dropped_and_counted) {
  std::string text = example("device_config_update");
  text.replace(text.find("\"power_limit\""), 0, "\"fan_speed\": {\"percent\": [1, 2]}, ");
  const auto checked = (*message_type_named("device_config_update"))->check(text);
  ASSERT_TRUE(checked.has_value()) << checked.error().message;
  EXPECT_EQ(checked->notes.unknown_keys, 1);
  EXPECT_EQ(checked->notes.first_unknown, "/changes/fan_speed");
  EXPECT_EQ(checked->canonical, json::from_text<RawJson>(example("device_config_update"))->text);
}

TEST(Design_2, a_text_that_is_no_message_is_refused_with_the_place) {
  const auto refusal = [](std::string_view text) {
    const auto type = recognise_message(text);
    EXPECT_FALSE(type.has_value()) << text;
    return type ? Error{} : type.error();
  };
  EXPECT_EQ(refusal("[]").message, "expected an object, got [");
  EXPECT_EQ(refusal("").message, "expected an object, but the text ends");
  EXPECT_EQ(refusal("{}").pointer, "/event_type");
  EXPECT_TRUE(refusal("{}").message.starts_with(
      "no key says which message this is; expected \"event_type\", \"operation_type\", "))
      << refusal("{}").message;
  EXPECT_EQ(refusal(R"({"operation_type":"atomic_wish"})").pointer, "/operation_type");
  EXPECT_EQ(refusal(R"({"operation_type":"atomic_wish"})").message,
            "\"atomic_wish\" is none of: atomic_device_memory_allocation, atomic_model_memory_loading, "
            "atomic_processing_inference, atomic_inference_postprocessing");
  EXPECT_EQ(refusal(R"({"event_type":7})").message, "expected a string, got 7");
  const Error unknown = refusal(R"({"a":[{}],"event_type":"device_lost"})");
  EXPECT_EQ(unknown.pointer, "/event_type");
  EXPECT_TRUE(unknown.message.starts_with("\"device_lost\" is none of: device_config_update, ")) << unknown.message;
  EXPECT_EQ(refusal(std::string(2 << 20, ' ')).code, ErrorCode::too_large);
  EXPECT_EQ(refusal("{\"a\":" + std::string(40, '[')).message, "nested deeper than 32");
}

}  // namespace
}  // namespace lockstep
