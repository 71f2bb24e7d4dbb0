#pragma once

// Element types of tensors, and the one conversion that a model gets: while its bytes go into the cache (§1.3, cache
// management). Workers then copy what is there. Pure; a machine with little-endian IEEE 754 numbers is assumed.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <boost/describe.hpp>

namespace lockstep::model {

/// What floating-point tensors become in the cache; integers stay as they are.
enum class CacheDtype { as_is, fp16, bf16, fp32 };
BOOST_DESCRIBE_ENUM(CacheDtype, as_is, fp16, bf16, fp32)

/// The safetensors name ("F16") that a tensor of `dtype` has in the cache.
std::string dtype_in_cache(std::string_view dtype, CacheDtype wanted);

/// Bytes of one element of a floating-point dtype that can be converted; 0 for every other.
std::uint64_t float_width(std::string_view dtype);

/// Converts whole elements from one of F64, F32, F16, BF16 to one of F32, F16, BF16. Rounds to the nearest, ties to
/// even; what is too large becomes infinite, NaN stays NaN, what is too small becomes subnormal or zero. `from` has a
/// whole number of elements and `to` room for as many.
void convert(std::span<const std::uint8_t> from, std::string_view from_dtype, std::span<std::uint8_t> to,
             std::string_view to_dtype);

}  // namespace lockstep::model
