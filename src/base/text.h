#pragma once

// Small text helpers that need no library: concatenation, numbers, hex.

#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace lockstep {

namespace text_detail {
inline void add(std::string& out, std::string_view piece) { out.append(piece); }
inline void add(std::string& out, char piece) { out.push_back(piece); }
template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, char> && !std::is_same_v<T, bool>)
void add(std::string& out, T number) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  out.append(buffer, end.ptr);
}
}  // namespace text_detail

/// cat("gpu_", 0, " has ", 3.5) == "gpu_0 has 3.5"
template <class... Pieces>
std::string cat(const Pieces&... pieces) {
  std::string out;
  (text_detail::add(out, pieces), ...);
  return out;
}

std::string to_hex(std::span<const std::uint8_t> bytes);

/// At most `limit` bytes of `text`, cut with "..." so that a hostile value cannot flood a log.
std::string shortened(std::string_view text, std::size_t limit = 64);

/// Whether `text` is a plain name: 1 to 128 of [a-z A-Z 0-9 . _ -], not starting with a dot. Names become file names.
bool is_plain_name(std::string_view text);

}  // namespace lockstep
