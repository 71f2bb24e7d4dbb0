#include "base/image_header.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

/// The first bytes of real files of 24x16 pixels.
std::string bytes_of(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return out;
}

const std::string png = bytes_of("89504e470d0a1a0a0000000d4948445200000018000000100802000000834628c2");
// A segment of 16 bytes, one of 4, then the frame header.
const std::string jpeg =
    bytes_of("ffd8ffe000104a46494600010100000100010000ffdb00040000ffc00011080010001803012200021101");
const std::string lossy = bytes_of("524946461600000057454250565038200a000000b002009d012a18001000");
const std::string lossless = bytes_of("5249464616000000574542505650384c0a0000002f17c0030007508a2a14");
const std::string extended = bytes_of("524946461600000057454250565038580a000000080000001700000f0000");

// §1.6: what is delivered is what the file itself says.
TEST(ImageHeader, format_and_size_are_read_from_the_file) {
  for (const auto& [bytes, format] : {std::pair(png, "png"), std::pair(jpeg, "jpeg"), std::pair(lossy, "webp"),
                                      std::pair(lossless, "webp"), std::pair(extended, "webp")}) {
    const auto header = read_image_header(bytes);
    ASSERT_TRUE(header.has_value()) << format << ": " << header.error().message;
    EXPECT_EQ(header->format, format);
    EXPECT_EQ(header->width, 24u) << format;
    EXPECT_EQ(header->height, 16u) << format;
    EXPECT_EQ(image_format_of(bytes)->name, format);
  }
}

TEST(ImageHeader, every_shorter_file_is_refused) {
  for (const std::string& bytes : {png, jpeg.substr(0, 36), lossy, lossless, extended}) {
    for (std::size_t size = 0; size + 1 < bytes.size(); ++size) {
      EXPECT_FALSE(read_image_header(bytes.substr(0, size)).has_value()) << size << " of " << bytes.size();
    }
  }
}

TEST(ImageHeader, what_is_none_or_too_large_is_refused) {
  EXPECT_FALSE(read_image_header("GIF89a and more than thirty-three bytes of it").has_value());
  std::string wide = png;
  wide[18] = '\x40';  // 16408 pixels
  const auto refused = read_image_header(wide);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("1 to 16384"), std::string::npos) << refused.error().message;
  std::string none = jpeg;
  none[32] = '\0';  // no pixels
  EXPECT_FALSE(read_image_header(none).has_value());
  std::string looping = jpeg;
  looping[4] = looping[5] = '\0';  // a segment that would not move on
  EXPECT_FALSE(read_image_header(looping).has_value());
}

}  // namespace
}  // namespace lockstep
