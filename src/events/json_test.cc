#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "events/device_events.h"
#include "events/json_read.h"
#include "events/json_write.h"
#include "events/memory_events.h"

namespace lockstep::json {
namespace {

struct Small {
  std::uint8_t count = 0;
  std::int8_t offset = 0;
  std::optional<std::string> note;
};
BOOST_DESCRIBE_STRUCT(Small, (), (count, offset, note))

struct Outer {
  std::vector<Small> items;
  bool on = false;
};
BOOST_DESCRIBE_STRUCT(Outer, (), (items, on))

struct RatioAndPercent {
  Ratio ratio;
  Percent percent;
};
BOOST_DESCRIBE_STRUCT(RatioAndPercent, (), (ratio, percent))

constexpr std::string_view health =
    R"({"event_type":"device_health_update","device_id":"gpu_0","health_metrics":{"temperature":72.5,)"
    R"("utilization":85.2,"memory_usage":0.78,"error_count":0},"timestamp":"2025-07-12T10:30:45Z",)"
    R"("propagation_urgency":"normal"})";

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string quoted(std::string_view text) {
  std::string out;
  write_string(out, text);
  return out;
}

template <class T>
Error refusal(std::string_view text) {
  const auto value = from_text<T>(text);
  EXPECT_FALSE(value.has_value()) << text;
  return value.has_value() ? Error{} : value.error();
}

TEST(JsonWriter, a_double_always_looks_like_one_and_is_shortest) {
  EXPECT_EQ(to_text(7.0), "7.0");
  EXPECT_EQ(to_text(0.85), "0.85");
  EXPECT_EQ(to_text(-0.0), "-0.0");
  EXPECT_EQ(to_text(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(to_text(1e300), "1e+300");
  EXPECT_EQ(to_text(Ratio{1}), "1.0");
  EXPECT_EQ(to_text(Percent{65.2}), "65.2");
}

TEST(JsonWriter, integers_keep_every_digit) {
  EXPECT_EQ(to_text(std::numeric_limits<std::uint64_t>::max()), "18446744073709551615");
  EXPECT_EQ(to_text(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(json::to_text(Bytes{6442450944}), "6442450944");
}

TEST(JsonWriter, strings_are_escaped_and_nothing_more) {
  EXPECT_EQ(quoted("a\"b\\c/d"), R"("a\"b\\c/d")");
  EXPECT_EQ(quoted("\n\r\t\b\f"), R"("\n\r\t\b\f")");
  EXPECT_EQ(quoted(std::string_view("\0\x1f", 2)), R"("\u0000\u001f")");
  EXPECT_EQ(quoted("\x7f"), "\"\x7f\"");
  EXPECT_EQ(quoted("gr\xC3\xBC\xC3\x9F \xF0\x9F\x90\x88"), "\"gr\xC3\xBC\xC3\x9F \xF0\x9F\x90\x88\"");
}

TEST(JsonWriter, broken_utf8_is_replaced_byte_by_byte) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(quoted("a\xFFz"), "\"a" + mark + "z\"");
  EXPECT_EQ(quoted("\xC3"), "\"" + mark + "\"");                                   // cut short
  EXPECT_EQ(quoted("\xC0\xAF"), "\"" + mark + mark + "\"");                        // overlong
  EXPECT_EQ(quoted("\xED\xA0\x80"), "\"" + mark + mark + mark + "\"");             // a surrogate
  EXPECT_EQ(quoted("\xF4\x90\x80\x80"), "\"" + mark + mark + mark + mark + "\"");  // above U+10FFFF
}

TEST(JsonWriter, an_empty_optional_is_left_out) {
  EXPECT_EQ(to_text(Small{1, -1, std::nullopt}), R"({"count":1,"offset":-1})");
  EXPECT_EQ(to_text(Small{1, -1, ""}), R"({"count":1,"offset":-1,"note":""})");
}

TEST(JsonWriter, a_message_names_itself_first) {
  EXPECT_TRUE(to_text(VramUsageUpdate{}).starts_with(R"({"event_type":"vram_usage_update","device_id":)"));
}

TEST(JsonReader, what_was_read_is_written_back_unchanged) {
  const auto update = from_text<DeviceHealthUpdate>(health);
  ASSERT_TRUE(update.has_value()) << update.error().message;
  EXPECT_EQ(to_text(*update), health);
}

TEST(JsonReader, a_missing_key_is_named) {
  const Error error = refusal<DeviceHealthUpdate>(replaced(std::string(health), R"("memory_usage":0.78,)", ""));
  EXPECT_EQ(error.code, ErrorCode::invalid_argument);
  EXPECT_EQ(error.pointer, "/health_metrics/memory_usage");
  EXPECT_EQ(error.message, "this key is missing");
}

TEST(JsonReader, a_missing_event_type_is_named) {
  const Error error =
      refusal<DeviceHealthUpdate>(replaced(std::string(health), R"("event_type":"device_health_update",)", ""));
  EXPECT_EQ(error.pointer, "/event_type");
}

TEST(JsonReader, another_event_type_is_refused) {
  const Error error =
      refusal<DeviceHealthUpdate>(replaced(std::string(health), R"("device_health_update")", R"("vram_usage_update")"));
  EXPECT_EQ(error.pointer, "/event_type");
  EXPECT_EQ(error.message, R"(expected "device_health_update", got "vram_usage_update")");
}

TEST(JsonReader, a_mistyped_value_is_named_with_what_was_expected) {
  const Error text = refusal<DeviceHealthUpdate>(replaced(std::string(health), "0.78", R"("full")"));
  EXPECT_EQ(text.pointer, "/health_metrics/memory_usage");
  EXPECT_EQ(text.message, R"(expected a number, got "full")");
  const Error number = refusal<DeviceHealthUpdate>(replaced(std::string(health), R"("gpu_0")", "7"));
  EXPECT_EQ(number.pointer, "/device_id");
  EXPECT_EQ(number.message, "expected a string, got 7");
  EXPECT_EQ(refusal<Outer>(R"({"items":[{"count":1,"offset":0},{"count":true,"offset":0}],"on":true})").pointer,
            "/items/1/count");
  EXPECT_EQ(refusal<Outer>(R"({"items":{},"on":true})").message, "expected an array, got {");
  EXPECT_EQ(refusal<Outer>(R"({"items":[],"on":1})").message, "expected true or false, got 1");
  EXPECT_EQ(refusal<DeviceHealthUpdate>("[]").message, "expected an object, got [");
}

TEST(JsonReader, only_an_optional_may_be_null) {
  EXPECT_TRUE(from_text<Small>(R"({"count":1,"offset":0,"note":null})").has_value());
  EXPECT_EQ(refusal<Small>(R"({"count":null,"offset":0})").pointer, "/count");
}

TEST(JsonReader, a_duplicate_key_is_refused) {
  const auto at = [](std::string_view text) {
    const Error error = refusal<Small>(text);
    EXPECT_EQ(error.message, "this key stands twice") << text;
    return error.pointer;
  };
  EXPECT_EQ(at(R"({"count":1,"count":1,"offset":0})"), "/count");
  EXPECT_EQ(at(R"({"count":1,"offset":0,"extra":{"a":1,"a":2}})"), "/extra/a");
  EXPECT_EQ(refusal<DeviceHealthUpdate>(
                replaced(std::string(health), R"("device_id")", R"("event_type":"device_health_update","device_id")"))
                .pointer,
            "/event_type");
  const auto map = from_text<std::map<std::string, double>>(R"({"a":1,"a":2})");
  ASSERT_FALSE(map.has_value());
  EXPECT_EQ(map.error().pointer, "/a");
}

// §2.1 carries a Percent and a Ratio in one message: 85.2 is one and not the other.
TEST(JsonReader, shares_outside_their_range_are_refused) {
  const auto text = [](std::string ratio, std::string percent) {
    return cat(R"({"ratio":)", ratio, R"(,"percent":)", percent, "}");
  };
  EXPECT_TRUE(from_text<RatioAndPercent>(text("0", "0")).has_value());
  EXPECT_TRUE(from_text<RatioAndPercent>(text("1", "100")).has_value());
  EXPECT_EQ(refusal<RatioAndPercent>(text("1.01", "5")).pointer, "/ratio");
  EXPECT_EQ(refusal<RatioAndPercent>(text("-0.01", "5")).pointer, "/ratio");
  EXPECT_EQ(refusal<RatioAndPercent>(text("0.5", "100.1")).pointer, "/percent");
  EXPECT_EQ(refusal<RatioAndPercent>(text("0.5", "-1")).message, "-1 is outside 0 to 100");
}

TEST(JsonReader, integers_outside_their_type_are_refused) {
  EXPECT_EQ(refusal<Small>(R"({"count":256,"offset":0})").message, "256 is outside 0 to 255");
  EXPECT_EQ(refusal<Small>(R"({"count":-1,"offset":0})").pointer, "/count");
  EXPECT_EQ(refusal<Small>(R"({"count":1,"offset":-129})").message, "-129 is outside -128 to 127");
  EXPECT_EQ(refusal<Small>(R"({"count":1.0,"offset":0})").message, "expected a whole number, got 1.0");
  EXPECT_EQ(refusal<Small>(R"({"count":1e1,"offset":0})").message, "expected a whole number, got 1e1");
  EXPECT_EQ(refusal<std::uint64_t>("18446744073709551616").code, ErrorCode::invalid_argument);
  EXPECT_EQ(*from_text<std::uint64_t>("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(*from_text<std::int64_t>("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
}

TEST(JsonReader, numbers_that_are_none_are_refused) {
  for (const char* text : {"NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "-1e999", "01", "1.", ".5", "+1",
                           "1e", "1e+", "0x10", "-", "", "--1", "1_000"}) {
    EXPECT_EQ(refusal<double>(text).code, ErrorCode::invalid_argument) << text;
  }
  EXPECT_EQ(*from_text<double>("-0.5e-3"), -0.5e-3);
}

TEST(JsonReader, an_unknown_enumerator_lists_the_known_ones) {
  const Error error = refusal<PressureLevel>(R"("extreme")");
  EXPECT_EQ(error.message, R"("extreme" is none of: low, moderate, high, critical)");
}

TEST(JsonReader, texts_of_sizes_durations_and_times_are_checked) {
  EXPECT_EQ(from_text<SizeText>(R"("8.2GB")")->text, "8.2GB");
  EXPECT_EQ(refusal<SizeText>(R"("8 GB")").code, ErrorCode::invalid_argument);
  EXPECT_EQ(refusal<DurationText>(R"("soon")").code, ErrorCode::invalid_argument);
  EXPECT_EQ(refusal<Timestamp>(R"("2025-07-12")").code, ErrorCode::invalid_argument);
}

TEST(JsonReader, deeper_than_32_is_refused) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(from_text<RawJson>(nested(32))->text, nested(32));
  EXPECT_EQ(refusal<RawJson>(nested(33)).message, "nested deeper than 32");
  std::string objects;
  for (int i = 0; i < 33; ++i) objects += "{\"a\":";
  EXPECT_EQ(refusal<RawJson>(objects).message, "nested deeper than 32");
  EXPECT_EQ(refusal<RawJson>(std::string(1 << 20, '[')).message, "nested deeper than 32");
}

TEST(JsonReader, a_text_over_one_mebibyte_is_too_large) {
  constexpr std::size_t limit = 1 << 20;
  EXPECT_TRUE(from_text<std::string>("\"" + std::string(limit - 2, 'x') + "\"").has_value());
  EXPECT_EQ(refusal<std::string>("\"" + std::string(limit - 1, 'x') + "\"").code, ErrorCode::too_large);
}

TEST(JsonReader, bad_strings_are_refused) {
  for (const char* text : {R"("\x")", R"("\u12")", R"("\u12g4")", R"("\)", R"("\")", R"("open)", "\"a\nb\"", "\"\x01\"",
                           "\"\xFF\"", "\"\xC3\"", "\"\xED\xA0\x80\"", "'a'"}) {
    EXPECT_EQ(refusal<std::string>(text).code, ErrorCode::invalid_argument) << text;
  }
}

TEST(JsonReader, escapes_are_decoded) {
  EXPECT_EQ(*from_text<std::string>(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC")"), "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC");
  const auto nul = from_text<std::string>(R"("\u0000")");
  EXPECT_EQ(*nul, std::string(1, '\0'));
}

TEST(JsonReader, surrogates_come_in_pairs_or_not_at_all) {
  EXPECT_EQ(*from_text<std::string>(R"("\ud83d\udc08")"), "\xF0\x9F\x90\x88");
  EXPECT_EQ(*from_text<std::string>(R"("\uDBFF\uDFFF")"), "\xF4\x8F\xBF\xBF");
  for (const char* text : {R"("\ud83d")", R"("\ud83dx")", R"("\ud83d\n")", R"("\ud83d\u0041")", R"("\ud83d\ud83d")",
                           R"("\udc08")", R"("\ud83d\u")"}) {
    EXPECT_EQ(refusal<std::string>(text).message, "half of a surrogate pair is missing") << text;
  }
}

TEST(JsonReader, structure_errors_are_refused) {
  for (const char* text : {"{", "}", "[1,]", "[,1]", "[1 2]", R"({"a":1,})", R"({,"a":1})", R"({"a" 1})", R"({a:1})",
                           R"({"a":})", "tru", "nul", "[] []", "{} x", "//", "\xEF\xBB\xBF{}"}) {
    EXPECT_EQ(refusal<RawJson>(text).code, ErrorCode::invalid_argument) << text;
  }
}

TEST(JsonReader, a_text_cut_at_any_byte_is_an_error) {
  for (std::size_t length = 0; length < health.size(); ++length) {
    // A copy on the heap of exactly that length, so that a sanitizer sees a read past the end.
    const std::vector<char> cut(health.begin(), health.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(refusal<DeviceHealthUpdate>(std::string_view(cut.data(), cut.size())).code, ErrorCode::invalid_argument)
        << length;
    EXPECT_EQ(refusal<RawJson>(std::string_view(cut.data(), cut.size())).code, ErrorCode::invalid_argument) << length;
  }
}

TEST(JsonReader, anything_after_the_value_is_refused) {
  EXPECT_EQ(refusal<DeviceHealthUpdate>(cat(health, " x")).message, "expected the end of the text, got x");
  EXPECT_TRUE(from_text<DeviceHealthUpdate>(cat(" \n\t\r", health, "\n")).has_value());
}

TEST(JsonReader, unknown_keys_are_skipped_and_counted_with_the_first_place) {
  ReadNotes notes;
  const std::string text =
      replaced(replaced(std::string(health), R"("error_count":0)", R"("error_count":0,"fan":[1,{}])"), R"("normal"})",
               R"("normal","x":null})");
  const auto update = from_text<DeviceHealthUpdate>(text, &notes);
  ASSERT_TRUE(update.has_value()) << update.error().message;
  EXPECT_EQ(to_text(*update), health);
  EXPECT_EQ(notes.unknown_keys, 2);
  EXPECT_EQ(notes.first_unknown, "/health_metrics/fan");
}

TEST(JsonReader, pointers_are_escaped) {
  const auto map = from_text<std::map<std::string, double>>(R"({"a/b~c":"x"})");
  ASSERT_FALSE(map.has_value());
  EXPECT_EQ(map.error().pointer, "/a~1b~0c");
}

// RFC 6901: the empty key is an empty reference token, not an index.
TEST(JsonReader, an_empty_key_has_an_empty_token) {
  const auto map = from_text<std::map<std::string, double>>(R"({"":"x"})");
  ASSERT_FALSE(map.has_value());
  EXPECT_EQ(map.error().pointer, "/");
}

TEST(JsonReader, raw_values_become_canonical_text) {
  EXPECT_EQ(from_text<RawJson>(" { \"a\" : [ 1.0 , 1 , true , null , \"\\u0041\\/\" ] } ")->text,
            R"({"a":[1.0,1,true,null,"A/"]})");
}

// Places of values that are not read: of each kind, with brackets and quotes in strings, and what ends where it may
// not.
TEST(JsonReader, a_slice_is_a_value_as_it_stands_in_the_text) {
  for (const std::string_view value :
       {R"({"a":[1,{"b":"}]\"\\"}],"c":null})", "[]", "{}", R"(["x",-1.5e3 , true])", "17", "null", R"("a,\"b")"}) {
    const std::string text = cat(R"({"first": )", value, R"( ,"second":)", value, "}");
    const auto map = from_text<std::map<std::string, Slice>>(text);
    ASSERT_TRUE(map.has_value()) << text << ": " << map.error().message;
    EXPECT_EQ(map->at("first").text, value);
    EXPECT_EQ(map->at("second").text, value);
  }
  for (const std::string_view text :
       {R"({"a":})", R"({"a":,"b":1})", R"({"a":[1,2)", R"({"a":"x)", R"({"a":{"b":1})"}) {
    const auto map = from_text<std::map<std::string, Slice>>(text);
    ASSERT_FALSE(map.has_value()) << text;
    EXPECT_EQ(map.error().code, ErrorCode::invalid_argument) << text;
  }
}

}  // namespace
}  // namespace lockstep::json
