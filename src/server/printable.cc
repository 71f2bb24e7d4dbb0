#include "server/printable.h"

#include <cstdint>
#include <span>

#include "base/text.h"
#include "events/utf8.h"

namespace lockstep::server {

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<std::uint8_t>(text[at]);
    const std::size_t length = byte < 0x20 || byte == 0x7F ? 0 : json::utf8_sequence_length(text.substr(at));
    if (length == 0) {
      out += cat("\\x", to_hex(std::span(&byte, 1)));
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

}  // namespace lockstep::server
