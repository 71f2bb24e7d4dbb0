#include "server/png_header.h"

#include "base/text.h"

namespace lockstep::server {

Result<PngSize> read_png_size(std::string_view bytes) {
  constexpr std::string_view signature("\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
  constexpr std::uint32_t side_max = 16'384;
  if (bytes.size() < 33 || bytes.substr(0, signature.size()) != signature) {
    return fail(ErrorCode::invalid_argument, "the body is not a PNG image");
  }
  const auto number = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
    return value;
  };
  const PngSize size{number(16), number(20)};
  if (size.width == 0 || size.height == 0 || size.width > side_max || size.height > side_max) {
    return fail(ErrorCode::invalid_argument,
                cat("the image is ", size.width, "x", size.height, "; each side must be 1 to ", side_max));
  }
  return size;
}

}  // namespace lockstep::server
