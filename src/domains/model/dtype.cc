#include "domains/model/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace lockstep::model {

namespace {

template <class Bits>
Bits load(const std::uint8_t* at) {
  Bits bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

/// Drops the low `drop` bits, to the nearest, ties to even. A carry out of the mantissa makes the exponent one more,
/// which is the right number, infinity included.
std::uint32_t rounded(std::uint32_t bits, int drop) {
  const std::uint32_t half = 1u << (drop - 1);
  return (bits + half - 1 + ((bits >> drop) & 1)) >> drop;
}

float from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1F;
  const std::uint32_t mantissa = half & 0x3FF;
  if (exponent == 0) {  // zero and subnormals: mantissa times 2^-24
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign == 0 ? value : -value;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F80'0000 | mantissa << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

std::uint16_t to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000);
  const std::uint32_t magnitude = bits & 0x7FFF'FFFF;
  if (magnitude > 0x7F80'0000) return static_cast<std::uint16_t>(sign | 0x7E00);   // NaN, quiet
  if (magnitude >= 0x4780'0000) return static_cast<std::uint16_t>(sign | 0x7C00);  // 2^16 and more, infinity
  if (magnitude < 0x3880'0000) {                                                   // below 2^-14: subnormal
    // Adding 2^-1 leaves the value in units of 2^-24 in the low bits, rounded by the addition itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign |
                                      (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f)));
  }
  return static_cast<std::uint16_t>(sign | rounded(magnitude - 0x3800'0000, 13));
}

std::uint16_t to_brain(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFF'FFFF) > 0x7F80'0000) return static_cast<std::uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<std::uint16_t>(rounded(bits, 16));
}

/// A double becomes a float by odd rounding: a float that is not exact has its last bit set, so that the second
/// rounding, to a narrower type, cannot round the same number twice.
float narrowed(double value, bool again) {
  const float near = static_cast<float>(value);
  if (!again || !std::isfinite(value) || static_cast<double>(near) == value || !std::isfinite(near)) return near;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(near);
  if (std::abs(static_cast<double>(near)) > std::abs(value)) --bits;  // toward zero
  return std::bit_cast<float>(bits | 1);
}

float read_one(const std::uint8_t* at, std::string_view dtype, bool narrow) {
  if (dtype == "F32") return std::bit_cast<float>(load<std::uint32_t>(at));
  if (dtype == "F64") return narrowed(std::bit_cast<double>(load<std::uint64_t>(at)), narrow);
  if (dtype == "F16") return from_half(load<std::uint16_t>(at));
  return std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(at)) << 16);  // BF16
}

}  // namespace

std::uint64_t float_width(std::string_view dtype) {
  if (dtype == "F64") return 8;
  if (dtype == "F32") return 4;
  return dtype == "F16" || dtype == "BF16" ? 2 : 0;
}

std::string dtype_in_cache(std::string_view dtype, CacheDtype wanted) {
  if (float_width(dtype) == 0) return std::string(dtype);
  switch (wanted) {
    case CacheDtype::fp16: return "F16";
    case CacheDtype::bf16: return "BF16";
    case CacheDtype::fp32: return "F32";
    case CacheDtype::as_is: break;
  }
  return std::string(dtype);
}

void convert(std::span<const std::uint8_t> from, std::string_view from_dtype, std::span<std::uint8_t> to,
             std::string_view to_dtype) {
  const std::uint64_t width = float_width(from_dtype);
  const std::uint64_t target = float_width(to_dtype);
  LOCKSTEP_CHECK(width > 0 && target > 0);
  LOCKSTEP_CHECK(from.size() % width == 0);
  LOCKSTEP_CHECK(to.size() == from.size() / width * target);
  const bool narrow = target == 2;
  const bool half = to_dtype == "F16";
  for (std::size_t i = 0; i < from.size() / width; ++i) {
    const float value = read_one(from.data() + i * width, from_dtype, narrow);
    if (narrow) {
      const std::uint16_t bits = half ? to_half(value) : to_brain(value);
      std::memcpy(to.data() + i * target, &bits, sizeof bits);
    } else {
      std::memcpy(to.data() + i * target, &value, sizeof value);
    }
  }
}

}  // namespace lockstep::model
