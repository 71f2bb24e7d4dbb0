#include "env/frame.h"

#include "base/text.h"

namespace lockstep {

namespace {

constexpr std::uint16_t packed_bit = 0x8000;

// length u32 | packed bit and type u16 | urgency u8 | descriptors u8 | epoch u64 | incarnation u64 | sequence u64,
// little-endian
void put(std::uint8_t* at, std::uint64_t value, int width) {
  for (int i = 0; i < width; ++i) at[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

std::uint64_t get(const std::uint8_t* at, int width) {
  std::uint64_t value = 0;
  for (int i = 0; i < width; ++i) value |= static_cast<std::uint64_t>(at[i]) << (8 * i);
  return value;
}

}  // namespace

std::array<std::uint8_t, frame_header_size> encode_header(const FrameHeader& header) {
  std::array<std::uint8_t, frame_header_size> out{};
  put(out.data(), header.body_length, 4);
  put(out.data() + 4, header.packed ? header.type | packed_bit : header.type, 2);
  out[6] = static_cast<std::uint8_t>(header.urgency);
  out[7] = header.descriptors;
  put(out.data() + 8, header.epoch.value, 8);
  put(out.data() + 16, header.incarnation.value, 8);
  put(out.data() + 24, header.sequence, 8);
  return out;
}

Result<FrameHeader> decode_header(std::span<const std::uint8_t, frame_header_size> bytes) {
  FrameHeader out;
  out.body_length = static_cast<std::uint32_t>(get(bytes.data(), 4));
  const auto word = static_cast<std::uint16_t>(get(bytes.data() + 4, 2));
  out.type = word & ~packed_bit;
  out.packed = (word & packed_bit) != 0;
  if (out.body_length > frame_body_max) {
    return fail(ErrorCode::too_large, cat("frame body of ", out.body_length, " bytes; the limit is ", frame_body_max));
  }
  if (bytes[6] > static_cast<std::uint8_t>(Urgency::p3_low)) {
    return fail(ErrorCode::invalid_argument, cat("frame urgency ", static_cast<int>(bytes[6]), " is outside 0 to 3"));
  }
  out.urgency = static_cast<Urgency>(bytes[6]);
  out.descriptors = bytes[7];
  if (out.descriptors > frame_descriptors_max) {
    return fail(ErrorCode::invalid_argument,
                cat("frame with ", static_cast<int>(out.descriptors), " descriptors; the limit is ",
                    static_cast<int>(frame_descriptors_max)));
  }
  out.epoch = Epoch{get(bytes.data() + 8, 8)};
  out.incarnation = Incarnation{get(bytes.data() + 16, 8)};
  out.sequence = get(bytes.data() + 24, 8);
  return out;
}

}  // namespace lockstep
