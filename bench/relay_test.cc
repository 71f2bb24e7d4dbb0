#include "bench/relay.h"

#include <gtest/gtest.h>

#include "propagation/framing.h"
#include "propagation/packed_frame.h"

namespace lockstep::bench {
namespace {

constexpr Incarnation teller{7};

FrameReader::View view_of(const std::string& bytes) {
  const auto* const at = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const auto header = decode_header(std::span<const std::uint8_t, frame_header_size>(at, frame_header_size));
  EXPECT_TRUE(header.has_value());
  return {header.value_or(FrameHeader{}), std::string_view(bytes).substr(frame_header_size)};
}

class Relay_of_each_form : public testing::TestWithParam<Form> {
 protected:
  std::string told() {
    std::string out;
    teller_.append(out);
    return out;
  }
  Teller teller_{GetParam(), teller};
  Relay relay_{GetParam(), teller, 2};
  std::vector<std::string> out_{2};
};
INSTANTIATE_TEST_SUITE_P(Forms, Relay_of_each_form, testing::Values(Form::json, Form::packed));

TEST_P(Relay_of_each_form, an_event_reaches_every_subscriber_as_it_was_told) {
  for (int i = 1; i <= 3; ++i) {
    const std::string frame = told();
    out_ = std::vector<std::string>(2);
    ASSERT_TRUE(relay_.pass_on(view_of(frame), out_).has_value());
    for (const std::string& each : out_) {
      EXPECT_EQ(view_of(each).header.sequence, static_cast<std::uint64_t>(i));
      EXPECT_FALSE(each.empty());
    }
  }
  Listener listener(GetParam(), Side::orchestrator, teller);
  Relay again(GetParam(), teller, 2);
  Teller first(GetParam(), teller);
  std::string frame;
  first.append(frame);
  std::vector<std::string> out(2);
  ASSERT_TRUE(again.pass_on(view_of(frame), out).has_value());
  ASSERT_TRUE(listener.take(view_of(out[1])).has_value());
  EXPECT_EQ(listener.event().execution_metrics.current_step, 1u);
  EXPECT_EQ(listener.event().execution_metrics.total_steps, 30u);
}

TEST_P(Relay_of_each_form, what_the_orchestrator_owns_is_not_passed_on) {
  const std::string frame = told();
  FrameReader::View view = view_of(frame);
  view.header.type = static_cast<std::uint16_t>(FrameType::device_config_update);
  const Status refused = relay_.pass_on(view, out_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::not_owner);
  EXPECT_TRUE(out_[0].empty());
}

TEST_P(Relay_of_each_form, a_frame_that_was_seen_is_not_passed_on_again) {
  const std::string frame = told();
  ASSERT_TRUE(relay_.pass_on(view_of(frame), out_).has_value());
  const std::vector<std::string> before = out_;
  EXPECT_FALSE(relay_.pass_on(view_of(frame), out_).has_value());
  EXPECT_EQ(out_, before);
}

TEST_P(Relay_of_each_form, a_body_cut_short_is_not_passed_on) {
  const std::string frame = told();
  FrameReader::View view = view_of(frame);
  view.body.remove_suffix(1);
  EXPECT_FALSE(relay_.pass_on(view, out_).has_value());
  EXPECT_TRUE(out_[0].empty());
}

// What the server's own functions make of the same message is the same bytes.
TEST(Relay_frames, a_json_frame_is_what_the_server_would_send) {
  std::string out;
  Teller(Form::json, teller).append(out);
  const FrameReader::View view = view_of(out);
  const auto envelope = from_frame(Frame{view.header, std::string(view.body)});
  ASSERT_TRUE(envelope.has_value()) << envelope.error().message;
  const Frame again = to_frame(FrameType::inference_progress, *envelope, 0);
  EXPECT_EQ(again.header, view.header);
  EXPECT_EQ(again.body, view.body);
}

}  // namespace
}  // namespace lockstep::bench
