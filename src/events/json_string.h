#pragma once

// The inside of a JSON string: where it ends, and what its escapes mean. Finding the end checks everything (escapes,
// surrogate pairs, control characters, UTF-8), so decoding cannot fail.

#include <cstddef>
#include <string>
#include <string_view>

namespace lockstep::json {

struct StringEnd {
  std::size_t size = 0;  // bytes before the closing quote
  bool escaped = false;
  const char* problem = nullptr;  // a sentence; nullptr when the string is good
};

/// `text` begins behind the opening quote.
StringEnd find_string_end(std::string_view text);

/// Appends what `inside`, which find_string_end has accepted, means.
void append_decoded(std::string& out, std::string_view inside);

}  // namespace lockstep::json
