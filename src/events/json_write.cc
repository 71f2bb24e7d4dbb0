#include "events/json_write.h"

#include <charconv>
#include <cmath>

#include "base/check.h"
#include "events/plain_text.h"
#include "events/utf8.h"

namespace lockstep::json {

void write_string(std::string& out, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  out += '"';
  std::size_t at = 0;
  for (;;) {
    const std::size_t plain = plain_prefix(text.substr(at));
    out.append(text, at, plain);
    at += plain;
    if (at == text.size()) break;
    const auto c = static_cast<unsigned char>(text[at]);
    if (c >= 0x80) {
      const std::size_t length = utf8_sequence_length(text.substr(at));
      if (length == 0) {
        out += "\xEF\xBF\xBD";
        ++at;
      } else {
        out.append(text, at, length);
        at += length;
      }
      continue;
    }
    ++at;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        out += "\\u00";
        out += digits[c >> 4];
        out += digits[c & 15];
    }
  }
  out += '"';
}

namespace {

/// Most numbers in messages have few decimals. `number` times 10^k is looked at for k = 0, 1, ... 4: where the nearest
/// whole number, divided again, gives the same double, these are the digits of the shortest text that reads back
/// (division of two exact doubles rounds once, as reading does). Returns the end of the text, or nullptr for numbers
/// that std::to_chars would write in scientific form or that have more decimals.
char* few_decimals(char* out, char* end, double number) {
  static constexpr double powers[] = {1, 10, 100, 1000, 10000};
  const double size = std::fabs(number);
  if (!(size >= 0.001 && size < 99'999)) return nullptr;
  for (int decimals = 0; decimals < 5; ++decimals) {
    const auto scaled = static_cast<std::int64_t>(size * powers[decimals] + 0.5);
    if (static_cast<double>(scaled) / powers[decimals] != size) continue;
    if (number < 0) *out++ = '-';
    const auto power = static_cast<std::int64_t>(powers[decimals]);
    out = std::to_chars(out, end, scaled / power).ptr;
    *out++ = '.';
    std::int64_t rest = scaled % power;
    if (decimals == 0) {
      *out++ = '0';
      return out;
    }
    for (int i = decimals - 1; i >= 0; --i, rest /= 10) out[i] = static_cast<char>('0' + rest % 10);
    return out + decimals;
  }
  return nullptr;
}

}  // namespace

void write_double(std::string& out, double number) {
  LOCKSTEP_CHECK(std::isfinite(number));  // readers refuse NaN, and nothing of ours divides by zero
  char buffer[40];
  if (char* done = few_decimals(buffer, buffer + sizeof buffer, number)) {
    out.append(buffer, done);
    return;
  }
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  const std::string_view digits(buffer, static_cast<std::size_t>(end.ptr - buffer));
  out += digits;
  if (digits.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void write_integer(std::string& out, std::uint64_t number) {
  char buffer[24];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  out.append(buffer, end.ptr);
}

void write_integer(std::string& out, std::int64_t number) {
  char buffer[24];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  out.append(buffer, end.ptr);
}

}  // namespace lockstep::json
