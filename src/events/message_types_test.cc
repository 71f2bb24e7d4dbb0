// Properties of all messages, on values made from their own descriptions.

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "events/device_events.h"
#include "events/inference_events.h"
#include "events/json_read.h"
#include "events/memory_events.h"
#include "events/message_types.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"
#include "events/processing_events.h"

namespace lockstep {
namespace {

/// splitmix64: the same seed gives the same messages everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9E37'79B9'7F4A'7C15;
    std::uint64_t z = state_;
    z = (z ^ z >> 30) * 0xBF58'476D'1CE4'E5B9;
    z = (z ^ z >> 27) * 0x94D0'49BB'1331'11EB;
    return z ^ z >> 31;
  }
  std::uint64_t below(std::uint64_t end) { return next() % end; }

 private:
  std::uint64_t state_;
};

std::string any_text(Random& random) {
  static constexpr std::string_view pieces[] = {"a",
                                                "gpu_0",
                                                "\"",
                                                "\\",
                                                "/",
                                                "\n",
                                                "\x01",
                                                "\xC3\xBC",
                                                "\xF0\x9F\x90\x88",
                                                " ",
                                                "~",
                                                "",
                                                "a long piece of plain text, longer than a short string"};
  std::string out;
  for (std::uint64_t i = random.below(4); i > 0; --i) out += pieces[random.below(std::size(pieces))];
  return out;
}

double any_double(Random& random, double min, double max) {
  if (!std::isfinite(min)) min = -1e6;
  if (!std::isfinite(max)) max = 1e9;
  switch (random.below(5)) {
    case 0: return min;
    case 1: return max;
    case 2: return std::clamp(static_cast<double>(random.below(1000)) / 100, min, max);  // few decimals
    case 3: return std::clamp(static_cast<double>(random.below(100)), min, max);
    default: return min + (max - min) * (static_cast<double>(random.next() >> 11) * 0x1p-53);
  }
}

template <class T>
void fill(T& out, Random& random, const json::Rule& rule = json::no_rule) {
  if constexpr (json::is_optional<T>) {
    out.reset();
    if (random.below(3) != 0) fill(out.emplace(), random, rule);
  } else if constexpr (json::is_vector<T>) {
    out.resize(random.below(4));
    for (auto& each : out) fill(each, random, rule);
  } else if constexpr (std::is_same_v<T, bool>) {
    out = random.below(2) == 1;
  } else if constexpr (std::is_floating_point_v<T>) {
    out = any_double(random, rule.min, rule.max);
  } else if constexpr (std::is_same_v<T, Ratio>) {
    out.value = any_double(random, 0, 1);
  } else if constexpr (std::is_same_v<T, Percent>) {
    out.value = any_double(random, 0, 100);
  } else if constexpr (std::unsigned_integral<T>) {
    const std::uint64_t step = std::max(1u, rule.multiple_of);
    const auto most = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
    out = static_cast<T>((1 + random.next() % (random.below(2) == 0 ? 1000 : most / step)) * step);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    out.value = 1 + (random.next() >> 1) % (random.below(2) == 0 ? 1000 : INT64_MAX - 1);
  } else if constexpr (json::is_described_enum<T>) {
    const std::uint64_t chosen = random.below(boost::mp11::mp_size<boost::describe::describe_enumerators<T>>::value);
    std::uint64_t index = 0;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>([&](auto each) {
      if (index++ == chosen) out = each.value;
    });
  } else if constexpr (std::is_same_v<T, SizeText>) {
    out = SizeText::of(Bytes{random.next() >> (random.below(60) + 4)});
  } else if constexpr (std::is_same_v<T, DurationText>) {
    out.text = cat(random.below(1000), random.below(2) == 0 ? "ms" : "min");
  } else if constexpr (std::is_same_v<T, Timestamp>) {
    out = Timestamp::of(WallTime{static_cast<std::int64_t>(random.below(4'000'000'000'000))});
  } else if constexpr (std::is_same_v<T, std::string>) {
    out = any_text(random);
  } else if constexpr (std::is_same_v<T, RawJson>) {
    out.text = json::to_text(any_text(random));
  } else if constexpr (json::is_struct<T>) {
    boost::mp11::mp_for_each<json::Members<T>>(
        [&](auto member) { fill(out.*member.pointer, random, json::rule_of<T, decltype(member)>()); });
  } else if constexpr (requires { out.items; }) {
    out.items.clear();
    for (std::uint64_t i = random.below(24); i > 0; --i) {
      auto& [name, value] = out.items.emplace_back();
      name = cat(i * 7 % 24, "_", any_text(random));
      fill(value, random, rule);
    }
  } else if constexpr (json::is_map<T>) {
    out.clear();
    for (std::uint64_t i = random.below(4); i > 0; --i) fill(out[cat(i, "_", any_text(random))], random, rule);
  } else {
    out = T(any_text(random));  // an Id
  }
}

template <class Message>
class EveryMessage : public testing::Test {};
using Messages =
    testing::Types<DeviceConfigUpdate, DeviceRoutingUpdate, DeviceHealthUpdate, DeviceCapabilityDiscovered,
                   SystemMemoryAllocated, MemoryPolicyUpdate, VramUsageUpdate, MemoryAllocationRequest,
                   ModelLoadRequest, ModelCacheUpdate, ModelLoadingProgress, ModelRuntimeUpdate,
                   ProcessingSessionCreated, SessionControlCommand, SessionProgressUpdate, CrossDomainCoordination,
                   InferenceRequest, InferenceOrchestration, InferenceProgress, InferenceCompleted,
                   PostprocessingRequest, SafetyPolicyUpdate, PostprocessingProgress, PostprocessingCompleted>;
TYPED_TEST_SUITE(EveryMessage, Messages);

TYPED_TEST(EveryMessage, what_is_written_is_read_and_written_the_same) {
  Random random(4711);
  TypeParam reused;  // holds what the message before left
  for (int i = 0; i < 300; ++i) {
    TypeParam message;
    fill(message, random);
    const std::string text = json::to_text(message);
    const auto again = json::from_text<TypeParam>(text);
    ASSERT_TRUE(again.has_value()) << again.error().pointer << ": " << again.error().message << "\n" << text;
    ASSERT_EQ(json::to_text(*again), text);
    ASSERT_TRUE(json::read_text(text, reused).has_value());
    ASSERT_EQ(json::to_text(reused), text) << "something of an earlier message was left";
    ASSERT_EQ(json::from_text<RawJson>(text)->text, text) << "not canonical";
  }
}

// A cut or changed byte never crashes and is never taken for something else than what is then written.
TYPED_TEST(EveryMessage, a_changed_byte_is_refused_or_read_for_what_it_says) {
  Random random(4712);
  TypeParam message;
  fill(message, random);
  const std::string text = json::to_text(message);
  for (std::size_t at = 0; at < text.size(); ++at) {
    ASSERT_FALSE(json::from_text<TypeParam>(text.substr(0, at)).has_value()) << at;
    for (const char c : {'"', '\\', '}', ',', '0', '-', '\xFF', '\0', 'e'}) {
      std::string changed = text;
      changed[at] = c;
      const auto read = json::from_text<TypeParam>(changed);
      if (!read) continue;
      const std::string canonical = json::to_text(*read);
      ASSERT_EQ(json::to_text(*json::from_text<TypeParam>(canonical)), canonical);
    }
  }
}

// The short way of writing numbers with few decimals gives what std::to_chars gives.
TEST(JsonWriter, every_double_is_its_shortest_text) {
  Random random(7);
  const auto expected = [](double number) {
    char buffer[40];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
    std::string text(buffer, end.ptr);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
  };
  for (int i = 0; i < 200'000; ++i) {
    double number = 0;
    const double sign = random.below(2) == 0 ? 1 : -1;
    switch (random.below(4)) {
      case 0: number = static_cast<double>(random.below(2'000'000)) / 10; break;
      case 1: number = static_cast<double>(random.below(2'000'000)) / 1e5; break;
      case 2: number = static_cast<double>(random.below(2'000'000'000)) / 1e4; break;
      default: number = std::bit_cast<double>(random.next()); break;
    }
    if (!std::isfinite(number)) continue;
    const std::string text = json::to_text(sign * number);
    ASSERT_EQ(text, expected(sign * number));
    ASSERT_EQ(json::from_text<double>(text), sign * number) << text;
  }
}

TEST(JsonReader, a_number_is_the_nearest_double) {
  for (const std::string_view text :
       {"0.1", "123456789012345", "999999999999999.9", "0.000000000000001", "9007199254740993", "1e22", "1e23",
        "0.30000000000000004", "179769313486231570000", "-0.0", "4.35"}) {
    double expected = 0;
    std::from_chars(text.data(), text.data() + text.size(), expected);
    EXPECT_EQ(std::bit_cast<std::uint64_t>(*json::from_text<double>(text)), std::bit_cast<std::uint64_t>(expected))
        << text;
  }
}

TEST(JsonReader, many_free_keys_are_read_and_a_repeated_one_is_found) {
  std::string text = "{";
  for (int i = 0; i < 500; ++i) text += cat(i == 0 ? "" : ",", "\"k", 499 - i, "\":", i, ".0");
  const auto map = json::from_text<Ordered<double>>(text + "}");
  ASSERT_TRUE(map.has_value()) << map.error().message;
  EXPECT_EQ(map->items.size(), 500u);
  EXPECT_EQ(map->items.front().first, "k499");
  EXPECT_EQ(*map->find("k0"), 499.0);
  EXPECT_EQ(map->find("k500"), nullptr);
  EXPECT_EQ(json::to_text(*map), text + "}");
  for (const std::string_view repeated : {"k499", "k490", "k3"}) {
    const std::string twice = cat(text, ",\"", repeated, "\":1}");
    EXPECT_EQ(json::from_text<Ordered<double>>(twice).error().pointer, cat("/", repeated));
    EXPECT_EQ(json::from_text<RawJson>(twice).error().pointer, cat("/", repeated));
  }
}

TEST(JsonSchema, a_rule_stands_in_it) {
  json::Schema schema;
  schema.add_document<InferenceRequest>("§2.5");
  const std::string text = schema.text("t");
  const auto compact = json::from_text<RawJson>(text);
  ASSERT_TRUE(compact.has_value()) << compact.error().message;
  const auto has = [&](std::string_view piece) { return compact->text.find(piece) != std::string::npos; };
  EXPECT_TRUE(
      has(R"("width":{"type":"integer","minimum":8,"maximum":4294967295,"multipleOf":8,"description":"pixels"})"));
  EXPECT_TRUE(has(R"("guidance_scale":{"type":"number","minimum":0.0})"));
  EXPECT_TRUE(has(R"("AllocationPriority":{"enum":["critical","high","normal","low"]})"));
  EXPECT_TRUE(has(R"("inference_type":{"type":"string","x-open-words":["text_to_image"]})"));
  EXPECT_TRUE(has(R"("required":["prompt","steps","guidance_scale","width","height"],"additionalProperties":true)"));
  EXPECT_TRUE(
      has(R"("seed":{"anyOf":[{"type":"integer","minimum":0,"maximum":18446744073709551615},{"type":"null"}]})"));
  EXPECT_TRUE(has(R"("$ref":"#/$defs/InferenceRequest","description":"§2.5","$defs":{)"));
}

}  // namespace
}  // namespace lockstep
