#pragma once

// How many bytes of a string stand for themselves in JSON: printable ASCII without the quote and the backslash.
// Both the reader and the writer copy such runs whole; eight bytes are looked at together.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace lockstep::json {

constexpr bool is_plain(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

inline std::size_t plain_prefix(std::string_view text) {
  constexpr std::uint64_t ones = 0x0101'0101'0101'0101;
  constexpr std::uint64_t tops = 0x8080'8080'8080'8080;
  std::size_t at = 0;
  if constexpr (std::endian::native == std::endian::little) {
    for (; text.size() - at >= 8; at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data() + at, 8);
      const std::uint64_t quote = word ^ ones * '"';
      const std::uint64_t backslash = word ^ ones * '\\';
      // A byte's top bit is set where the byte is 0 (for the control characters: below 0x20). A borrow can set wrong
      // ones only above the first right one, and only the lowest is used.
      const std::uint64_t stop =
          (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((word - ones * 0x20) & ~word) | word) &
          tops;
      if (stop != 0) return at + static_cast<std::size_t>(std::countr_zero(stop)) / 8;
    }
  }
  while (at < text.size() && is_plain(text[at])) ++at;
  return at;
}

}  // namespace lockstep::json
