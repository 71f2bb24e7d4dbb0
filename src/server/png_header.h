#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace lockstep::server {

struct PngSize {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};

/// From the first chunk, bounds-checked; the pixels are the worker's to decode. invalid_argument when it is no PNG or
/// has a side over 16384.
Result<PngSize> read_png_size(std::string_view bytes);

}  // namespace lockstep::server
