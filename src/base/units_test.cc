#include "base/units.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(Units, sizes_are_powers_of_two_as_the_lock_name_of_3_5_says) {
  EXPECT_EQ(bytes_from_text("8GB")->value, 8589934592u);  // vram_allocation_8gb
  EXPECT_EQ(to_text(Bytes{8589934592}), "8GB");
  EXPECT_EQ(to_text(*bytes_from_text("6.2GB")), "6.2GB");
  EXPECT_EQ(to_text(Bytes{0}), "0B");
  EXPECT_EQ(to_text(Bytes{1023}), "1023B");
  EXPECT_EQ(to_text(Bytes{1024}), "1KB");
}

TEST(Units, a_bad_size_is_refused_with_its_text) {
  for (const char* text : {"", "GB", "8 GB", "8gb", "-1GB", "1e30GB", "8GBx", "nan", "inf"}) {
    const auto bytes = bytes_from_text(text);
    ASSERT_FALSE(bytes.has_value()) << text;
    EXPECT_NE(bytes.error().message.find(text), std::string::npos) << bytes.error().message;
  }
}

TEST(Units, durations) {
  EXPECT_EQ(*duration_from_text("30s"), seconds(30));
  EXPECT_EQ(*duration_from_text("5min"), seconds(300));
  EXPECT_EQ(*duration_from_text("250ms"), milliseconds(250));
  EXPECT_FALSE(duration_from_text("5 min").has_value());
  EXPECT_FALSE(duration_from_text("1e30h").has_value());
}

TEST(Units, times_go_both_ways) {
  const auto time = wall_from_rfc3339("2025-07-12T10:30:45.123Z");
  ASSERT_TRUE(time.has_value());
  EXPECT_EQ(time->ms, 1752316245123);
  EXPECT_EQ(to_rfc3339(*time), "2025-07-12T10:30:45.123Z");
  EXPECT_EQ(wall_from_rfc3339("2025-07-12T12:30:45+02:00")->ms, 1752316245000);
  EXPECT_EQ(to_rfc3339({-1}), "1969-12-31T23:59:59.999Z");
  for (const char* text : {"", "2025-07-12", "2025-07-12T10:30:45", "2025-13-12T10:30:45Z", "2025-07-12T10:30:45.Z"}) {
    EXPECT_FALSE(wall_from_rfc3339(text).has_value()) << text;
  }
}

TEST(Units, subtraction_never_wraps) { EXPECT_EQ((1_GiB - 2_GiB).value, 0u); }

}  // namespace
}  // namespace lockstep
