#include "events/packed.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "events/all_events.h"
#include "events/envelope.h"
#include "events/message_types.h"

namespace lockstep::packed {
namespace {

template <class Message>
Message example() {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/tests/examples/", Message::event_type, ".json"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Message message;
  EXPECT_TRUE(json::read_text(text, message).has_value()) << Message::event_type;
  return message;
}

template <class Message>
class Packed_messages : public testing::Test {};

using All = boost::mp11::mp_rename<AllEvents, testing::Types>;
TYPED_TEST_SUITE(Packed_messages, All);

// The JSON of what was read from the bytes is the JSON of what was packed: nothing is lost or changed.
TYPED_TEST(Packed_messages, the_example_goes_both_ways) {
  const TypeParam message = example<TypeParam>();
  TypeParam again;
  const Status read = read_bytes(to_bytes(message), again);
  ASSERT_TRUE(read.has_value()) << read.error().pointer << ": " << read.error().message;
  EXPECT_EQ(json::to_text(again), json::to_text(message));
}

TYPED_TEST(Packed_messages, cut_at_any_byte_it_is_refused) {
  const std::string bytes = to_bytes(example<TypeParam>());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    TypeParam again;
    const Status read = read_bytes(std::string_view(bytes).substr(0, length), again);
    ASSERT_FALSE(read.has_value()) << length;
    EXPECT_EQ(read.error().code, ErrorCode::invalid_argument);
  }
}

// Any byte may be anything: it is read as a valid message, which then goes both ways, or refused.
TYPED_TEST(Packed_messages, damaged_bytes_are_refused_or_are_another_valid_message) {
  const std::string good = to_bytes(example<TypeParam>());
  EXPECT_TRUE(rc::check([&] {
    std::string bytes = good;
    const auto hits = *rc::gen::container<std::vector<std::pair<std::size_t, char>>>(
        rc::gen::pair(rc::gen::inRange<std::size_t>(0, bytes.size()), rc::gen::arbitrary<char>()));
    for (const auto& [at, value] : hits) bytes[at] = value;
    TypeParam message;
    if (!read_bytes(bytes, message)) return;
    const auto by_json = json::from_text<TypeParam>(json::to_text(message));
    RC_ASSERT(by_json.has_value());
    RC_ASSERT(json::to_text(*by_json) == json::to_text(message));
  }));
}

TEST(Packed, a_rule_of_the_struct_is_a_rule_here_with_its_place) {
  InferenceCompleted message = example<InferenceCompleted>();
  message.result_metadata.result_quality_score = 11;
  InferenceCompleted again;
  const Status read = read_bytes(to_bytes(message), again);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().pointer, "/result_metadata/result_quality_score");
  EXPECT_EQ(read.error().message, "11 is not a number from 0 to 10");
}

TEST(Packed, a_count_cannot_ask_for_more_than_its_message_pays_for) {
  std::string bytes;
  write(bytes, std::uint32_t{0xFFFF'FFFF});
  std::vector<std::string> out;
  Reader in(bytes);
  EXPECT_FALSE(read(in, out));
  EXPECT_TRUE(out.empty());
}

TEST(Packed, text_is_utf8_or_refused) {
  std::string out;
  EXPECT_TRUE(read_bytes(to_bytes(std::string("gr\xC3\xBC\xC3\x9F dich, eight and more")), out).has_value());
  EXPECT_FALSE(read_bytes(to_bytes(std::string("eight and more \xC3")), out).has_value());
}

// Random envelopes: what the link carries beside every event.
TEST(Packed, any_envelope_goes_both_ways) {
  EXPECT_TRUE(rc::check([] {
    const auto word = rc::gen::container<std::string>(rc::gen::inRange('a', 'z'));
    Envelope envelope;
    envelope.id = *word;
    envelope.type = *word;
    envelope.source = {*rc::gen::element(Side::orchestrator, Side::worker), WorkerId(*word),
                       Incarnation{*rc::gen::arbitrary<std::uint64_t>()}};
    envelope.epoch = Epoch{*rc::gen::arbitrary<std::uint64_t>()};
    envelope.sequence = *rc::gen::arbitrary<std::uint64_t>();
    envelope.urgency = *rc::gen::element(Urgency::p0_critical, Urgency::p3_low);
    envelope.op_id = *word;
    envelope.attempt = *rc::gen::arbitrary<std::uint32_t>();
    if (*rc::gen::arbitrary<bool>()) envelope.correlation.transaction = TransactionId(*word);
    if (*rc::gen::arbitrary<bool>()) envelope.correlation.session = *word;
    Envelope again;
    RC_ASSERT(read_bytes(to_bytes(envelope), again).has_value());
    RC_ASSERT(json::to_text(again) == json::to_text(envelope));
  }));
}

TEST(Packed, the_digest_is_one_of_the_schema) {
  EXPECT_EQ(schema_digest().size(), 64u);
  EXPECT_EQ(schema_digest(), schema_digest());
}

}  // namespace
}  // namespace lockstep::packed
