#include "base/digest.h"

#include <gtest/gtest.h>
#include <boost/crc.hpp>

namespace lockstep {
namespace {

TEST(Digest, sha256_of_known_texts) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, pieces_hash_like_the_whole) {
  Sha256 pieces;
  pieces.add("a");
  pieces.add("");
  pieces.add("bc");
  EXPECT_EQ(pieces.hex(), sha256_hex("abc"));
}

TEST(Digest, only_64_lower_case_hex_digits_are_a_digest) {
  const std::string good = sha256_hex("abc");
  EXPECT_TRUE(is_sha256_hex(good));
  EXPECT_FALSE(is_sha256_hex(""));
  EXPECT_FALSE(is_sha256_hex(good.substr(1)));
  EXPECT_FALSE(is_sha256_hex(good + "0"));
  EXPECT_FALSE(is_sha256_hex("B" + good.substr(1)));
  EXPECT_FALSE(is_sha256_hex("/" + good.substr(1)));
}

// The chain: a row's checksum depends on every row before it.
TEST(Digest, a_chained_checksum_notices_a_missing_or_swapped_row) {
  const std::uint32_t one = crc32c("one");
  const std::uint32_t two = crc32c("two");
  EXPECT_NE(crc32c("two", one), two);
  EXPECT_NE(crc32c("two", one), crc32c("one", two));
  EXPECT_EQ(crc32c("two", one), crc32c("two", crc32c("one")));
}

// docs/formats/journal.md; lengths around the words that the processor takes at once.
TEST(Digest, a_checksum_is_crc_32c_of_the_one_before_and_the_bytes) {
  EXPECT_EQ(crc32c("body", crc32c("1")), 3105965402u);
  std::string text;
  for (int length = 0; length < 40; ++length) {
    boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
    crc.process_bytes("\x78\x56\x34\x12", 4);
    crc.process_bytes(text.data(), text.size());
    EXPECT_EQ(crc32c(text, 0x12345678), crc.checksum()) << length;
    text += static_cast<char>(length * 37);
  }
}

TEST(Digest, a_checksum_notices_any_flipped_bit) {
  const std::string text = "a journal record";
  const std::uint32_t whole = crc32c(text);
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(crc32c(damaged), whole) << bit;
  }
}

}  // namespace
}  // namespace lockstep
