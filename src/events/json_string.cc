#include "events/json_string.h"

#include <algorithm>
#include <cstdint>

#include "events/plain_text.h"
#include "events/utf8.h"

namespace lockstep::json {

namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool four_hex(std::string_view text, std::size_t at, std::uint32_t& out) {
  if (at + 4 > text.size()) return false;
  out = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const int value = hex_value(text[at + i]);
    if (value < 0) return false;
    out = out * 16 + static_cast<std::uint32_t>(value);
  }
  return true;
}

void add_utf8(std::string& out, std::uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

struct Escape {
  std::size_t size = 0;  // bytes, with the backslash
  std::uint32_t code_point = 0;
  const char* problem = nullptr;
};

/// The escape that `text` begins with.
Escape escape_at(std::string_view text) {
  constexpr const char* half = "half of a surrogate pair is missing";
  if (text.size() < 2) return {.problem = "the string does not end"};
  switch (text[1]) {
    case '"':
    case '\\':
    case '/': return {2, static_cast<std::uint32_t>(text[1])};
    case 'b': return {2, '\b'};
    case 'f': return {2, '\f'};
    case 'n': return {2, '\n'};
    case 'r': return {2, '\r'};
    case 't': return {2, '\t'};
    case 'u': break;
    default: return {.problem = "unknown escape in a string"};
  }
  std::uint32_t unit = 0;
  if (!four_hex(text, 2, unit)) return {.problem = "\\u must be followed by four hex digits"};
  if (unit < 0xD800 || unit > 0xDFFF) return {6, unit};
  std::uint32_t low = 0;
  if (unit >= 0xDC00 || text.substr(6, 2) != "\\u" || !four_hex(text, 8, low) || low < 0xDC00 || low > 0xDFFF) {
    return {.problem = half};
  }
  return {12, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)};
}

}  // namespace

StringEnd find_string_end(std::string_view text) {
  StringEnd end;
  for (;;) {
    end.size += plain_prefix(text.substr(end.size));
    if (end.size >= text.size()) {
      end.problem = "the string does not end";
      return end;
    }
    const auto c = static_cast<unsigned char>(text[end.size]);
    if (c == '"') return end;
    std::size_t length = 0;
    if (c == '\\') {
      const Escape escape = escape_at(text.substr(end.size));
      end.problem = escape.problem;
      end.escaped = true;
      length = escape.size;
    } else if (c >= 0x80) {
      length = utf8_sequence_length(text.substr(end.size));
      if (length == 0) end.problem = "the string is not valid UTF-8";
    } else {
      end.problem = "a control character must be escaped in a string";
    }
    if (end.problem != nullptr) return end;
    end.size += length;
  }
}

void append_decoded(std::string& out, std::string_view inside) {
  std::size_t at = 0;
  for (;;) {
    const std::size_t escape_begin = std::min(inside.find('\\', at), inside.size());
    out.append(inside, at, escape_begin - at);
    if (escape_begin == inside.size()) return;
    const Escape escape = escape_at(inside.substr(escape_begin));
    add_utf8(out, escape.code_point);
    at = escape_begin + escape.size;
  }
}

}  // namespace lockstep::json
