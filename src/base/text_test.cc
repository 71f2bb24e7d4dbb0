#include "base/text.h"

#include <array>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(Text, concatenation_writes_numbers_as_numbers) {
  EXPECT_EQ(cat("gpu_", 0, " has ", 3.5, '!', std::string(" ok")), "gpu_0 has 3.5! ok");
  EXPECT_EQ(cat(std::uint8_t{65}), "65");
  EXPECT_EQ(cat(), "");
}

TEST(Text, hex_is_lower_case_and_two_digits_a_byte) {
  const std::array<std::uint8_t, 4> bytes{0x00, 0x0a, 0xf0, 0xff};
  EXPECT_EQ(to_hex(bytes), "000af0ff");
}

TEST(Text, a_long_text_is_cut_and_a_short_one_is_not) {
  EXPECT_EQ(shortened("abcd", 4), "abcd");
  EXPECT_EQ(shortened("abcde", 4), "abcd...");
}

// Names become file names: nothing that leaves a folder, hides, or needs quoting.
TEST(Text, plain_names) {
  for (const char* name : {"a", "tiny-sdxl", "Model_v1.5", "0", "a..b"}) EXPECT_TRUE(is_plain_name(name)) << name;
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "../a", "a b", "a\\b", "\xC3\xBC", "a\n"}) {
    EXPECT_FALSE(is_plain_name(name)) << name;
  }
  EXPECT_FALSE(is_plain_name(std::string_view("a\0b", 3)));
  EXPECT_TRUE(is_plain_name(std::string(128, 'a')));
  EXPECT_FALSE(is_plain_name(std::string(129, 'a')));
}

}  // namespace
}  // namespace lockstep
