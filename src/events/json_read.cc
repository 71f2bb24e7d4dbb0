#include "events/json_read.h"

#include <charconv>

#include "events/utf8.h"

namespace lockstep::json {

Reader::Reader(std::string_view text, Limits limits) : text_(text), limits_(limits) {
  if (text_.size() > limits_.size_max) {
    error_ = fail(ErrorCode::too_large, cat("the text has ", text_.size(), " bytes; the limit is ", limits_.size_max));
  }
}

void Reader::space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
    ++at_;
  }
}

bool Reader::eat(char c) {
  space();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

std::string Reader::pointer() const {
  std::string out;
  for (const Step& step : path_) {
    out += '/';
    if (step.in_array) {
      out += cat(step.index);
      continue;
    }
    for (const char c : shortened(step.key, 128)) {  // RFC 6901 escapes
      if (c == '~') {
        out += "~0";
      } else if (c == '/') {
        out += "~1";
      } else {
        out += c;
      }
    }
  }
  return out;
}

Error Reader::error() const {
  LOCKSTEP_CHECK(error_.has_value());
  return *error_;
}

void Reader::note_unknown() {
  if (notes_.unknown_keys++ == 0) notes_.first_unknown = pointer();
}

bool Reader::fail_here(std::string message) {
  if (!error_) error_ = fail(ErrorCode::invalid_argument, std::move(message), pointer());
  return false;
}

bool Reader::expected(std::string_view what) {
  if (error_) return false;
  space();
  if (at_ >= text_.size()) return fail_here(cat("expected ", what, ", but the text ends"));
  const std::size_t end = text_.find_first_of(",}] \n\t\r", at_);
  const std::size_t length = end == std::string_view::npos || end == at_ ? 1 : end - at_;
  std::string got = shortened(text_.substr(at_, length));
  return fail_here(cat("expected ", what, ", got ", got));
}

bool Reader::literal(std::string_view word) {
  space();
  if (text_.substr(at_, word.size()) != word) return false;
  at_ += word.size();
  return true;
}

bool Reader::boolean(bool& out) {
  if (failed()) return false;
  if (literal("true")) {
    out = true;
    return true;
  }
  if (literal("false")) {
    out = false;
    return true;
  }
  return expected("true or false");
}

bool Reader::null_if_there() { return !failed() && literal("null"); }

bool Reader::number_text(std::string_view& out, bool& integral) {
  if (failed()) return false;
  space();
  std::size_t end = at_;
  const auto digit = [&] { return end < text_.size() && text_[end] >= '0' && text_[end] <= '9'; };
  const auto digits = [&] {
    const std::size_t from = end;
    while (digit()) ++end;
    return end > from;
  };
  integral = true;
  if (end < text_.size() && text_[end] == '-') ++end;
  const std::size_t whole = end;
  if (!digits()) return expected("a number");
  if (text_[whole] == '0' && end > whole + 1) return fail_here("a number must not begin with 0");
  if (end < text_.size() && text_[end] == '.') {
    integral = false;
    ++end;
    if (!digits()) return fail_here("a digit must follow the decimal point");
  }
  if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
    integral = false;
    ++end;
    if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
    if (!digits()) return fail_here("a digit must follow the exponent");
  }
  out = text_.substr(at_, end - at_);
  at_ = end;
  return true;
}

bool Reader::number(double& out) {
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end.ec != std::errc{} || !std::isfinite(out)) {
    return fail_here(cat(shortened(digits), " does not fit a double"));
  }
  return true;
}

bool Reader::integer(std::int64_t& out, std::int64_t min, std::int64_t max) {
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  if (!integral) return fail_here(cat("expected a whole number, got ", shortened(digits)));
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end.ec != std::errc{} || out < min || out > max) {
    return fail_here(cat(shortened(digits), " is outside ", min, " to ", max));
  }
  return true;
}

bool Reader::unsigned_integer(std::uint64_t& out, std::uint64_t max) {
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  if (!integral) return fail_here(cat("expected a whole number, got ", shortened(digits)));
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end.ec != std::errc{} || end.ptr != digits.data() + digits.size() || out > max) {
    return fail_here(cat(shortened(digits), " is outside 0 to ", max));
  }
  return true;
}

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

}  // namespace

bool Reader::string(std::string& out) {
  if (failed()) return false;
  space();
  if (at_ >= text_.size() || text_[at_] != '"') return expected("a string");
  out.clear();
  std::size_t at = at_ + 1;
  for (;;) {
    if (at >= text_.size()) return fail_here("the string does not end");
    const auto c = static_cast<unsigned char>(text_[at]);
    if (c == '"') break;
    if (c < 0x20) return fail_here("a control character must be escaped in a string");
    if (c >= 0x80) {
      const std::size_t length = utf8_sequence_length(text_.substr(at));
      if (length == 0) return fail_here("the string is not valid UTF-8");
      out.append(text_, at, length);
      at += length;
      continue;
    }
    if (c != '\\') {
      out += text_[at++];
      continue;
    }
    if (at + 1 >= text_.size()) return fail_here("the string does not end");
    const char escape = text_[at + 1];
    at += 2;
    switch (escape) {
      case '"': out += '"'; break;
      case '\\': out += '\\'; break;
      case '/': out += '/'; break;
      case 'b': out += '\b'; break;
      case 'f': out += '\f'; break;
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case 'u': {
        std::uint32_t unit = 0;
        if (!four_hex(text_, at, unit)) return fail_here("\\u must be followed by four hex digits");
        at += 4;
        if (unit >= 0xD800 && unit < 0xDC00) {
          std::uint32_t low = 0;
          if (text_.substr(at, 2) != "\\u" || !four_hex(text_, at + 2, low) || low < 0xDC00 || low > 0xDFFF) {
            return fail_here("half of a surrogate pair is missing");
          }
          at += 6;
          unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        } else if (unit >= 0xDC00 && unit < 0xE000) {
          return fail_here("half of a surrogate pair is missing");
        }
        add_utf8(out, unit);
        break;
      }
      default: return fail_here("unknown escape in a string");
    }
  }
  at_ = at + 1;
  return true;
}

bool Reader::open_object() {
  if (failed()) return false;
  if (!eat('{')) return expected("an object");
  return ++depth_ <= limits_.depth_max || fail_here(cat("nested deeper than ", limits_.depth_max));
}

bool Reader::next_key(std::string& key, bool& first) {
  if (failed()) return false;
  if (eat('}')) {
    --depth_;
    return false;
  }
  if (!first && !eat(',')) return expected("',' or '}'");
  first = false;
  if (!string(key)) return false;
  return eat(':') || expected("':' after the key");
}

bool Reader::open_array() {
  if (failed()) return false;
  if (!eat('[')) return expected("an array");
  return ++depth_ <= limits_.depth_max || fail_here(cat("nested deeper than ", limits_.depth_max));
}

bool Reader::next_element(bool& first) {
  if (failed()) return false;
  if (eat(']')) {
    --depth_;
    return false;
  }
  if (!first && !eat(',')) return expected("',' or ']'");
  first = false;
  return true;
}

bool Reader::raw(std::string& out) {
  if (failed()) return false;
  space();
  const char c = at_ < text_.size() ? text_[at_] : '\0';
  if (c == '{') {
    if (!open_object()) return false;
    out = "{";
    bool first = true;
    std::string key;
    std::string value;
    std::map<std::string, bool> seen;
    while (next_key(key, first)) {
      push_key(key);
      if (!seen.try_emplace(key, true).second) return fail_here("this key stands twice");
      if (!raw(value)) return false;
      if (out.size() > 1) out += ',';
      write_string(out, key);
      out += ':';
      out += value;
      pop();
    }
    out += '}';
    return !failed();
  }
  if (c == '[') {
    if (!open_array()) return false;
    out = "[";
    bool first = true;
    std::string value;
    std::size_t index = 0;
    while (next_element(first)) {
      push_index(index++);
      if (!raw(value)) return false;
      if (out.size() > 1) out += ',';
      out += value;
      pop();
    }
    out += ']';
    return !failed();
  }
  if (c == '"') {
    std::string text;
    if (!string(text)) return false;
    out.clear();
    write_string(out, text);
    return true;
  }
  for (const std::string_view word : {"true", "false", "null"}) {
    if (literal(word)) {
      out = word;
      return true;
    }
  }
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  out = digits;
  return true;
}

bool Reader::skip() {
  std::string ignored;
  return raw(ignored);
}

bool Reader::end_of_text() {
  if (failed()) return false;
  space();
  return at_ == text_.size() || expected("the end of the text");
}

}  // namespace lockstep::json
