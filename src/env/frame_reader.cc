#include "env/frame_reader.h"

#include <cstdint>
#include <span>

namespace lockstep {

Result<std::optional<FrameHeader>> FrameReader::header() const {
  if (buffer_.size() < frame_header_size) return std::optional<FrameHeader>();
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(buffer_.data());
  const auto header = decode_header(std::span<const std::uint8_t, frame_header_size>(bytes, frame_header_size));
  if (!header) return std::unexpected(header.error());
  return std::optional(*header);
}

Result<std::optional<Frame>> FrameReader::next() {
  const auto begun = LOCKSTEP_TRY(header());
  if (!begun || buffer_.size() < frame_header_size + begun->body_length) return std::optional<Frame>();
  Frame frame{*begun, buffer_.substr(frame_header_size, begun->body_length)};
  buffer_.erase(0, frame_header_size + begun->body_length);
  return std::optional(std::move(frame));
}

}  // namespace lockstep
