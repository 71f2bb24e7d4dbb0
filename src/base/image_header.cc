#include "base/image_header.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace lockstep {

namespace {

constexpr std::string_view png_start("\x89PNG\r\n\x1a\n", 8);
constexpr std::string_view jpeg_start("\xff\xd8\xff", 3);

struct Size {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};

std::uint32_t byte(std::string_view bytes, std::size_t at) { return static_cast<unsigned char>(bytes[at]); }

std::uint32_t big_endian(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | byte(bytes, at + i);
  return value;
}

std::uint32_t little_endian(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value |= byte(bytes, at + i) << (8 * i);
  return value;
}

std::optional<Size> png_size(std::string_view bytes) {
  if (bytes.size() < 33 || bytes.substr(8, 8) != std::string_view("\0\0\0\rIHDR", 8)) return std::nullopt;
  return Size{big_endian(bytes, 16, 4), big_endian(bytes, 20, 4)};
}

/// From the frame header, behind segments that say their own length (ITU T.81, B.1 and B.2.2).
std::optional<Size> jpeg_size(std::string_view bytes) {
  std::size_t at = 2;
  while (at + 9 < bytes.size() && byte(bytes, at) == 0xFF) {
    const std::uint32_t marker = byte(bytes, at + 1);
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) return Size{big_endian(bytes, at + 7, 2), big_endian(bytes, at + 5, 2)};
    if (marker == 0xD9 || marker == 0xDA) return std::nullopt;  // pixels, and no frame header before them
    const std::uint32_t length = big_endian(bytes, at + 2, 2);
    if (length < 2) return std::nullopt;
    at += 2 + length;
  }
  return std::nullopt;
}

/// RFC 9649: the first chunk is VP8 (lossy), VP8L (lossless) or VP8X (either, with metadata).
std::optional<Size> webp_size(std::string_view bytes) {
  if (bytes.size() < 30 || std::uint64_t{little_endian(bytes, 4, 4)} + 8 > bytes.size()) return std::nullopt;
  const std::string_view chunk = bytes.substr(12, 4);
  if (chunk == "VP8X") return Size{little_endian(bytes, 24, 3) + 1, little_endian(bytes, 27, 3) + 1};
  if (chunk == "VP8L" && byte(bytes, 20) == 0x2F) {
    const std::uint32_t packed = little_endian(bytes, 21, 4);
    return Size{(packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1};
  }
  if (chunk == "VP8 " && bytes.substr(23, 3) == "\x9d\x01\x2a") {
    return Size{little_endian(bytes, 26, 2) & 0x3FFF, little_endian(bytes, 28, 2) & 0x3FFF};
  }
  return std::nullopt;
}

}  // namespace

const ImageFormat* image_format(std::string_view name) {
  const auto* const place = std::ranges::find(image_formats, name, &ImageFormat::name);
  return place == std::end(image_formats) ? nullptr : place;
}

const ImageFormat* image_format_of(std::string_view bytes) {
  if (bytes.starts_with(png_start)) return image_format("png");
  if (bytes.starts_with(jpeg_start)) return image_format("jpeg");
  if (bytes.starts_with("RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") return image_format("webp");
  return nullptr;
}

Result<ImageHeader> read_image_header(std::string_view bytes) {
  const ImageFormat* const format = image_format_of(bytes);
  if (format == nullptr) return fail(ErrorCode::invalid_argument, cat("the body is no image: no ", image_format_names));
  const auto size = format->name == "png"    ? png_size(bytes)
                    : format->name == "jpeg" ? jpeg_size(bytes)
                                             : webp_size(bytes);
  if (!size) return fail(ErrorCode::invalid_argument, cat("the image begins as ", format->name, " and is cut short"));
  if (size->width == 0 || size->height == 0 || size->width > format->side_max || size->height > format->side_max) {
    return fail(ErrorCode::invalid_argument,
                cat("the image is ", size->width, "x", size->height, "; each side must be 1 to ", format->side_max));
  }
  return ImageHeader{format->name, size->width, size->height};
}

}  // namespace lockstep
