#include "events/packed.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "base/digest.h"
#include "events/all_events.h"
#include "events/envelope.h"
#include "events/json_schema.h"
#include "events/message_types.h"
#include "events/packed_messages.h"

namespace lockstep::packed {
namespace {

template <class Message>
Message example() {
  static_assert(Packable<Message>);
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/tests/examples/", Message::event_type, ".json"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Message message;
  EXPECT_TRUE(json::read_text(text, message).has_value()) << Message::event_type;
  return message;
}

template <>
TransactionPrepare example() {
  return {TransactionId("tx_3_17"),
          {ModelId("sdxl"),
           "sdxl",
           "/models/\xC3\xBC",
           8_GiB,
           {{"unet", 4_GiB, std::string(64, 'a'), std::nullopt}, {"configuration", 1_MiB, "", ModelId("folder")}}}};
}
template <>
TransactionVote example() {
  return {TransactionId("tx_3_17"), Vote::vote_abort, "no room"};
}
template <>
TransactionDecision example() {
  return {TransactionId("tx_3_17")};
}
template <>
TransactionAck example() {
  return {TransactionId("tx_3_17")};
}

template <class Message>
class Packed_messages : public testing::Test {};

using AllPacked = boost::mp11::mp_append<AllEvents, PackedLinkMessages>;
using All = boost::mp11::mp_rename<AllPacked, testing::Types>;
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

/// What the schema of one message alone says of it and of all that it holds, a definition each.
template <class Message>
std::vector<std::string> definitions() {
  json::Schema schema;
  schema.add_document<Message>("");
  const std::string text = schema.text("");
  std::vector<std::string> out;
  for (std::size_t at = text.find("\n    \""); at != std::string::npos;) {  // each begins at this depth
    const std::size_t next = text.find("\n    \"", at + 1);
    out.push_back(text.substr(at, text.find("\n    }", at) - at));
    at = next;
  }
  return out;
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Packed, the_digest_covers_each_message_that_may_cross_packed_and_no_other) {
  const std::string schema = packed_schema();
  EXPECT_EQ(schema_digest(), sha256_hex(cat("packed 1\n", schema)));
  std::size_t messages = 0;
  boost::mp11::mp_for_each<boost::mp11::mp_transform<std::type_identity, AllPacked>>(
      [&]<class Message>(std::type_identity<Message>) {
        ++messages;
        const auto parts = definitions<Message>();
        ASSERT_FALSE(parts.empty());
        for (const std::string& each : parts) EXPECT_NE(schema.find(each), std::string::npos) << each;
      });
  const std::string roots = schema.substr(0, schema.find("\"$defs\""));
  EXPECT_EQ(count(roots, "\"$ref\""), messages);
  EXPECT_EQ(messages, message_types().size() + 4);
}

// The same message of another version: its definition is not the one that the digest is of.
namespace newer {
struct TransactionAck {
  TransactionId transaction_id;
  bool late = false;
};
BOOST_DESCRIBE_STRUCT(TransactionAck, (), (transaction_id, late))
struct TransactionVote {
  TransactionId transaction_id;
  std::string reason;
  Vote prepare_result = Vote::vote_abort;
};
BOOST_DESCRIBE_STRUCT(TransactionVote, (), (transaction_id, reason, prepare_result))
struct TransactionDecision {
  std::optional<TransactionId> transaction_id;
};
BOOST_DESCRIBE_STRUCT(TransactionDecision, (), (transaction_id))
enum class Vote { vote_abort, vote_commit };
BOOST_DESCRIBE_ENUM(Vote, vote_abort, vote_commit)
struct Ballot {
  Vote vote = Vote::vote_abort;
};
BOOST_DESCRIBE_STRUCT(Ballot, (), (vote))
}  // namespace newer

TEST(Packed, a_member_its_place_its_absence_or_a_word_changed_is_another_schema) {
  const std::string schema = packed_schema();
  const auto known = [&](std::string_view name, const std::vector<std::string>& all) {
    const auto place = std::ranges::find_if(
        all, [&](const std::string& each) { return each.starts_with(cat("\n    \"", name, "\":")); });
    EXPECT_NE(place, all.end()) << name;
    return place != all.end() && schema.find(*place) != std::string::npos;
  };
  EXPECT_TRUE(known("TransactionAck", definitions<TransactionAck>()));
  EXPECT_FALSE(known("TransactionAck", definitions<newer::TransactionAck>()));
  EXPECT_FALSE(known("TransactionVote", definitions<newer::TransactionVote>()));
  EXPECT_FALSE(known("TransactionDecision", definitions<newer::TransactionDecision>()));
  EXPECT_TRUE(known("Vote", definitions<TransactionVote>()));
  EXPECT_FALSE(known("Vote", definitions<newer::Ballot>()));
}

}  // namespace
}  // namespace lockstep::packed
