#include "env/frame.h"

#include <limits>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

FrameHeader example() {
  FrameHeader header;
  header.body_length = 0x00012345;
  header.type = 0x0201;
  header.urgency = Urgency::p1_high;
  header.descriptors = 3;
  header.epoch = Epoch{0x1112131415161718};
  header.incarnation = Incarnation{0x2122232425262728};
  header.sequence = 0x3132333435363738;
  return header;
}

TEST(Frame, a_header_has_these_bytes) {
  const std::array<std::uint8_t, frame_header_size> expected{
      0x45, 0x23, 0x01, 0x00, 0x01, 0x02, 0x01, 0x03, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
      0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31};
  EXPECT_EQ(encode_header(example()), expected);
}

TEST(Frame, that_the_body_is_packed_is_the_highest_bit_beside_the_type) {
  FrameHeader header = example();
  header.packed = true;
  const auto bytes = encode_header(header);
  EXPECT_EQ(bytes[4], 0x01);
  EXPECT_EQ(bytes[5], 0x82);
  EXPECT_EQ(decode_header(bytes).value(), header);
}

TEST(Frame, a_header_goes_both_ways) {
  const auto header = decode_header(encode_header(example()));
  ASSERT_TRUE(header.has_value());
  EXPECT_EQ(*header, example());
}

TEST(Frame, the_largest_header_that_is_allowed_goes_both_ways) {
  FrameHeader header;
  header.body_length = frame_body_max;
  header.type = 0x7fff;
  header.packed = true;
  header.urgency = Urgency::p3_low;
  header.descriptors = frame_descriptors_max;
  header.sequence = std::numeric_limits<std::uint64_t>::max();
  const auto decoded = decode_header(encode_header(header));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(*decoded, header);
}

TEST(Frame, one_byte_over_the_body_limit_is_refused) {
  FrameHeader header = example();
  header.body_length = frame_body_max + 1;
  const auto decoded = decode_header(encode_header(header));
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().code, ErrorCode::too_large);
  EXPECT_NE(decoded.error().message.find("1048577"), std::string::npos) << decoded.error().message;
}

TEST(Frame, an_unknown_urgency_is_refused) {
  auto bytes = encode_header(example());
  bytes[6] = 4;
  EXPECT_FALSE(decode_header(bytes).has_value());
}

TEST(Frame, one_descriptor_too_many_is_refused) {
  FrameHeader header = example();
  header.descriptors = frame_descriptors_max + 1;
  EXPECT_FALSE(decode_header(encode_header(header)).has_value());
}

}  // namespace
}  // namespace lockstep
