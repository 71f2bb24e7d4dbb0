#pragma once

// What the first bytes of an image file say: its format and size. The pixels are a worker's to decode. This is the one
// list of formats that a picture can be delivered in (§1.6), with what each is called on disk and on the web.

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace lockstep {

struct ImageFormat {
  std::string_view name;  // of OutputRequirements.format, §2.6
  std::string_view suffix;
  std::string_view media_type;
  std::uint32_t side_max;  // pixels; what the format can say, or 16384, the most that a worker writes
  bool lossless;           // can keep every pixel as it is
  bool lossy;              // can make a smaller file of almost the same picture
};
inline constexpr ImageFormat image_formats[] = {
    {"png", ".png", "image/png", 16'384, true, false},
    {"jpeg", ".jpg", "image/jpeg", 16'384, false, true},
    {"webp", ".webp", "image/webp", 16'383, true, true},
};
inline constexpr std::string_view image_format_names = "png, jpeg or webp";

/// nullptr for a word that is none of them.
const ImageFormat* image_format(std::string_view name);

/// By the first bytes alone; nullptr when they are of none.
const ImageFormat* image_format_of(std::string_view bytes);

struct ImageHeader {
  std::string_view format;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};

/// Bounds-checked. invalid_argument when it is none of the formats, is cut short, or has a side of 0 or more than the
/// format's side_max.
Result<ImageHeader> read_image_header(std::string_view bytes);

}  // namespace lockstep
