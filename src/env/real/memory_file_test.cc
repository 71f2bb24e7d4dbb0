#include "env/real/memory_file.h"

#include <cstring>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/digest.h"

namespace lockstep::real {
namespace {

Result<Fd> file_of(std::string_view text) {
  return make_sealed("test", Bytes{text.size()}, [&](std::span<std::uint8_t> bytes) -> Status {
    std::memcpy(bytes.data(), text.data(), text.size());
    return {};
  });
}

TEST(MemoryFile, promised_bytes_are_read_back) {
  const auto file = file_of("pixels");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(*size_of(file->get()), Bytes{6});
  EXPECT_EQ(*read_verified(file->get(), 6, sha256_hex("pixels")), "pixels");
}

TEST(MemoryFile, another_length_or_digest_than_promised_is_data_loss) {
  const auto file = file_of("pixels");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  for (const std::uint64_t length : {0u, 5u, 7u}) {
    const auto read = read_verified(file->get(), length, sha256_hex("pixels"));
    ASSERT_FALSE(read.has_value()) << length;
    EXPECT_EQ(read.error().code, ErrorCode::data_loss);
  }
  const auto read = read_verified(file->get(), 6, sha256_hex("pixelz"));
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::data_loss);
}

TEST(MemoryFile, a_filling_that_fails_gives_no_file) {
  const auto file = make_sealed(
      "test", 4_KiB, [](std::span<std::uint8_t>) -> Status { return fail(ErrorCode::data_loss, "the disk said no"); });
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().message, "the disk said no");
}

// A worker's promise is a number that costs it nothing.
TEST(MemoryFile, what_is_too_large_or_not_sealed_is_not_read) {
  const Fd holes(::memfd_create("holes", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::uint64_t promised = 8ULL << 40;
  ASSERT_EQ(::ftruncate(holes.get(), static_cast<off_t>(promised)), 0);
  const auto large = read_verified(holes.get(), promised, sha256_hex(""));
  ASSERT_FALSE(large.has_value());
  EXPECT_EQ(large.error().code, ErrorCode::too_large);
  EXPECT_NE(large.error().message.find("8796093022208"), std::string::npos);

  const Fd open_to_change(::memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::pwrite(open_to_change.get(), "pixels", 6, 0), 6);
  const auto unsealed = read_verified(open_to_change.get(), 6, sha256_hex("pixels"));
  ASSERT_FALSE(unsealed.has_value());
  EXPECT_NE(unsealed.error().message.find("not sealed"), std::string::npos);
}

TEST(MemoryFile, an_empty_file_is_a_file) {
  const auto file = file_of("");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(*read_verified(file->get(), 0, sha256_hex("")), "");
}

}  // namespace
}  // namespace lockstep::real
