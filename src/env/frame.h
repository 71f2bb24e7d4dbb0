#pragma once

// A frame on a worker link: a fixed header of 32 bytes, then a body of JSON or packed bytes; descriptors ride beside it
// by SCM_RIGHTS. Little-endian, no padding. docs/formats/wire.md has the bytes and a worked example.

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "base/urgency.h"

namespace lockstep {

struct FrameHeader {
  std::uint32_t body_length = 0;
  std::uint16_t type = 0;  // events/link_messages.h FrameType; below 0x8000
  bool packed = false;     // the body's form; the highest bit beside the type
  Urgency urgency = Urgency::p2_normal;
  std::uint8_t descriptors = 0;  // how many ride with this frame
  Epoch epoch;                   // of the orchestrator; 0 in a worker's hello
  Incarnation incarnation;       // of the worker
  std::uint64_t sequence = 0;    // per direction, link and urgency, from 1, without gaps

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

struct Frame {
  FrameHeader header;
  std::string body;
};

inline constexpr std::size_t frame_header_size = 32;
inline constexpr std::uint32_t frame_body_max = 1 << 20;
inline constexpr std::uint8_t frame_descriptors_max = 64;

std::array<std::uint8_t, frame_header_size> encode_header(const FrameHeader& header);
/// invalid_argument for a body over frame_body_max or too many descriptors: the link must be closed.
Result<FrameHeader> decode_header(std::span<const std::uint8_t, frame_header_size> bytes);

}  // namespace lockstep
