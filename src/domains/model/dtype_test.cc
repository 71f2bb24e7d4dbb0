#include "domains/model/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lockstep::model {
namespace {

template <class To, class From>
To converted(From value, std::string_view from, std::string_view to) {
  std::vector<std::uint8_t> in(sizeof value);
  std::vector<std::uint8_t> out(sizeof(To));
  std::memcpy(in.data(), &value, sizeof value);
  convert(in, from, out, to);
  To result;
  std::memcpy(&result, out.data(), sizeof result);
  return result;
}
std::uint16_t half(float value) { return converted<std::uint16_t>(value, "F32", "F16"); }
std::uint16_t brain(float value) { return converted<std::uint16_t>(value, "F32", "BF16"); }
float unhalf(std::uint16_t bits) { return converted<float>(bits, "F16", "F32"); }
float unbrain(std::uint16_t bits) { return converted<float>(bits, "BF16", "F32"); }
float bits(std::uint32_t value) { return std::bit_cast<float>(value); }

// Bit patterns of the IEEE 754 interchange formats.
TEST(CacheDtype, known_halves) {
  EXPECT_EQ(half(0.0f), 0x0000);
  EXPECT_EQ(half(-0.0f), 0x8000);
  EXPECT_EQ(half(1.0f), 0x3C00);
  EXPECT_EQ(half(-2.0f), 0xC000);
  EXPECT_EQ(half(65504.0f), 0x7BFF);         // the largest
  EXPECT_EQ(half(0x1p-14f), 0x0400);         // the smallest normal
  EXPECT_EQ(half(0x1p-24f), 0x0001);         // the smallest subnormal
  EXPECT_EQ(half(1023 * 0x1p-24f), 0x03FF);  // the largest subnormal
  EXPECT_EQ(half(0.333251953125f), 0x3555);
}

TEST(CacheDtype, halves_round_to_the_nearest_and_ties_to_even) {
  EXPECT_EQ(half(1.0f + 0x1p-11f), 0x3C00);             // a tie: down to even
  EXPECT_EQ(half(1.0f + 0x1p-10f + 0x1p-11f), 0x3C02);  // a tie: up to even
  EXPECT_EQ(half(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);  // just above the tie
  EXPECT_EQ(half(0x1p-25f), 0x0000);                    // a tie between zero and the smallest
  EXPECT_EQ(half(3 * 0x1p-25f), 0x0002);
  EXPECT_EQ(half(1023.75f * 0x1p-24f), 0x0400);  // up into the normal ones
  EXPECT_EQ(half(65519.0f), 0x7BFF);
  EXPECT_EQ(half(65520.0f), 0x7C00);  // a tie with what would come next: infinity
}

TEST(CacheDtype, too_large_is_infinite_and_nan_stays_nan) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(half(1e6f), 0x7C00);
  EXPECT_EQ(half(-infinity), 0xFC00);
  EXPECT_EQ(brain(infinity), 0x7F80);
  EXPECT_EQ(brain(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_TRUE(std::isnan(unhalf(half(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(unbrain(brain(bits(0x7F80'0001)))));  // a NaN whose upper half is infinity's
}

TEST(CacheDtype, known_brains) {
  EXPECT_EQ(brain(1.0f), 0x3F80);
  EXPECT_EQ(brain(bits(0x3F80'8000)), 0x3F80);  // a tie: down to even
  EXPECT_EQ(brain(bits(0x3F81'8000)), 0x3F82);  // a tie: up to even
  EXPECT_EQ(brain(bits(0x3F80'8001)), 0x3F81);
  EXPECT_EQ(brain(bits(0x0000'8001)), 0x0001);  // subnormal
}

TEST(CacheDtype, every_half_and_brain_survives_the_way_through_fp32) {
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto each = static_cast<std::uint16_t>(i);
    if (!std::isnan(unhalf(each))) {
      EXPECT_EQ(half(unhalf(each)), each);
    }
    if (!std::isnan(unbrain(each))) {
      EXPECT_EQ(brain(unbrain(each)), each);
    }
  }
}

TEST(CacheDtype, a_double_is_rounded_once_and_not_twice) {
  // Just above a tie of halves, by less than a float can tell: through a float it would be the tie, and go down.
  EXPECT_EQ(converted<std::uint16_t>(1.0 + 0x1p-11 + 0x1p-40, "F64", "F16"), 0x3C01);
  EXPECT_EQ(converted<std::uint16_t>(1.0 + 0x1p-11 - 0x1p-40, "F64", "F16"), 0x3C00);
  EXPECT_EQ(converted<std::uint16_t>(1.0 + 0x1p-8 + 0x1p-40, "F64", "BF16"), 0x3F81);
  EXPECT_EQ(converted<float>(0.1, "F64", "F32"), 0.1f);
}

TEST(CacheDtype, integers_stay_and_floats_become_what_is_wanted) {
  EXPECT_EQ(dtype_in_cache("F32", CacheDtype::fp16), "F16");
  EXPECT_EQ(dtype_in_cache("F16", CacheDtype::bf16), "BF16");
  EXPECT_EQ(dtype_in_cache("F64", CacheDtype::fp32), "F32");
  EXPECT_EQ(dtype_in_cache("I64", CacheDtype::fp16), "I64");
  EXPECT_EQ(dtype_in_cache("F8_E4M3", CacheDtype::fp16), "F8_E4M3");
  EXPECT_EQ(dtype_in_cache("F64", CacheDtype::as_is), "F64");
}

}  // namespace
}  // namespace lockstep::model
