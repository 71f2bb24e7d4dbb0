#include "events/json_read.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "events/json_string.h"

namespace lockstep::json {

Reader::Reader(std::string_view text, Limits limits)
    : at_(text.data()), end_(text.data() + text.size()), depth_max_(limits.depth_max) {
  LOCKSTEP_CHECK(limits.depth_max <= depth_ceiling);
  if (text.size() > limits.size_max) {
    error_ = fail(ErrorCode::too_large, cat("the text has ", text.size(), " bytes; the limit is ", limits.size_max));
  }
}

// ---- failures -----------------------------------------------------------------------------------------

namespace {

void append_token(std::string& pointer, std::string_view key) {
  for (const char c : shortened(key, 128)) {  // RFC 6901 escapes
    if (c == '~') {
      pointer += "~0";
    } else if (c == '/') {
      pointer += "~1";
    } else {
      pointer += c;
    }
  }
}

}  // namespace

std::string Reader::pointer() const {
  std::string out;
  for (int i = 0; i < depth_; ++i) {
    const Step& step = path_[static_cast<std::size_t>(i)];
    if (step.at == At::nothing) continue;
    out += '/';
    if (step.at == At::index) {
      out += cat(step.size_or_index);
      continue;
    }
    std::string key;
    append_decoded(key, {step.key, step.size_or_index});
    append_token(out, key);
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

bool Reader::fail_at_key(std::string_view key, std::string message) {
  if (error_) return false;
  std::string place = pointer() + "/";
  append_token(place, key);
  error_ = fail(ErrorCode::invalid_argument, std::move(message), std::move(place));
  return false;
}

bool Reader::expected(std::string_view what) {
  if (error_) return false;
  space();
  if (at_ >= end_) return fail_here(cat("expected ", what, ", but the text ends"));
  const std::string_view rest(at_, left());
  const std::size_t end = rest.find_first_of(",}] \n\t\r");
  const std::size_t length = end == std::string_view::npos || end == 0 ? 1 : end;
  return fail_here(cat("expected ", what, ", got ", shortened(rest.substr(0, length))));
}

// ---- words and numbers --------------------------------------------------------------------------------

bool Reader::eat(char c) {
  space();
  if (at_ >= end_ || *at_ != c) return false;
  ++at_;
  return true;
}

bool Reader::literal(std::string_view word) {
  space();
  if (left() < word.size() || std::memcmp(at_, word.data(), word.size()) != 0) return false;
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
  const char* end = at_;
  const auto digits = [&] {
    const char* from = end;
    while (end < end_ && *end >= '0' && *end <= '9') ++end;
    return end > from;
  };
  integral = true;
  if (end < end_ && *end == '-') ++end;
  const char* whole = end;
  if (!digits()) return expected("a number");
  if (*whole == '0' && end > whole + 1) return fail_here("a number must not begin with 0");
  if (end < end_ && *end == '.') {
    integral = false;
    ++end;
    if (!digits()) return fail_here("a digit must follow the decimal point");
  }
  if (end < end_ && (*end == 'e' || *end == 'E')) {
    integral = false;
    ++end;
    if (end < end_ && (*end == '+' || *end == '-')) ++end;
    if (!digits()) return fail_here("a digit must follow the exponent");
  }
  out = {at_, static_cast<std::size_t>(end - at_)};
  at_ = end;
  return true;
}

namespace {

/// Up to 15 digits and no exponent: both the digits and the power of ten are exact doubles, so one division rounds as
/// a full conversion does. False for anything longer.
bool short_number(std::string_view digits, double& out) {
  static constexpr double powers[] = {1,   1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  if (digits.size() > 16) return false;  // with the point
  std::uint64_t number = 0;
  std::size_t decimals = 0;
  bool point = false;
  for (const char c : digits.substr(digits[0] == '-' ? 1 : 0)) {
    if (c == '.') {
      point = true;
    } else if (c == 'e' || c == 'E') {
      return false;
    } else {
      number = number * 10 + static_cast<std::uint64_t>(c - '0');
      decimals += point ? 1 : 0;
    }
  }
  if (number >= std::uint64_t{1} << 53) return false;
  out = static_cast<double>(number) / powers[decimals];
  if (digits[0] == '-') out = -out;
  return true;
}

std::string out_of_range(std::string_view digits, double min, double max) {
  if (std::isinf(max)) return cat(shortened(digits), " is below ", min);
  if (std::isinf(min)) return cat(shortened(digits), " is above ", max);
  return cat(shortened(digits), " is outside ", min, " to ", max);
}

}  // namespace

bool Reader::number(double& out, double min, double max) {
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  if (!short_number(digits, out)) {
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    if (end.ec != std::errc{} || !std::isfinite(out)) {
      return fail_here(cat(shortened(digits), " does not fit a double"));
    }
  }
  return (out >= min && out <= max) || fail_here(out_of_range(digits, min, max));
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

bool Reader::unsigned_integer(std::uint64_t& out, std::uint64_t min, std::uint64_t max) {
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  if (!integral) return fail_here(cat("expected a whole number, got ", shortened(digits)));
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end.ec != std::errc{} || end.ptr != digits.data() + digits.size() || out < min || out > max) {
    return fail_here(cat(shortened(digits), " is outside ", min, " to ", max));
  }
  return true;
}

// ---- strings ------------------------------------------------------------------------------------------

bool Reader::scan_string(std::string_view& raw, bool& escaped) {
  if (failed()) return false;
  space();
  if (at_ >= end_ || *at_ != '"') return expected("a string");
  const std::string_view rest(at_ + 1, left() - 1);
  const StringEnd end = find_string_end(rest);
  if (end.problem != nullptr) return fail_here(end.problem);
  raw = rest.substr(0, end.size);
  escaped = end.escaped;
  at_ += end.size + 2;
  return true;
}

bool Reader::text(std::string_view& out) {
  bool escaped = false;
  if (!scan_string(out, escaped)) return false;
  if (escaped) {
    scratch_.clear();
    append_decoded(scratch_, out);
    out = scratch_;
  }
  return true;
}

bool Reader::string(std::string& out) {
  std::string_view raw;
  bool escaped = false;
  if (!scan_string(raw, escaped)) return false;
  if (!escaped) {
    out.assign(raw);
    return true;
  }
  out.clear();
  append_decoded(out, raw);
  return true;
}

// ---- objects and arrays -------------------------------------------------------------------------------

bool Reader::open(char c, std::string_view what) {
  if (failed()) return false;
  if (!eat(c)) return expected(what);
  if (depth_ == depth_max_) return fail_here(cat("nested deeper than ", depth_max_));
  path_[static_cast<std::size_t>(depth_++)].at = At::nothing;
  return true;
}

bool Reader::open_object() { return open('{', "an object"); }
bool Reader::open_array() { return open('[', "an array"); }

bool Reader::next(char close, bool& more) {
  more = false;
  if (failed()) return false;
  Step& step = path_[static_cast<std::size_t>(depth_ - 1)];
  const bool first = step.at == At::nothing;
  space();
  if (at_ < end_ && *at_ == close) {
    ++at_;
    --depth_;
    return true;
  }
  if (!first && !eat(',')) {
    step.at = At::nothing;  // the object's own place, not that of its last member
    return expected(close == '}' ? "',' or '}'" : "',' or ']'");
  }
  more = true;
  return true;
}

bool Reader::next_key(std::string_view& key) {
  bool more = false;
  if (!next('}', more) || !more) return false;
  Step& step = path_[static_cast<std::size_t>(depth_ - 1)];
  step.at = At::nothing;
  bool escaped = false;
  if (!scan_string(key, escaped)) return false;
  if (!eat(':')) return expected("':' after the key");
  step = {key.data(), static_cast<std::uint32_t>(key.size()), At::key};
  if (escaped) {
    std::string decoded;
    append_decoded(decoded, key);
    scratch_ = std::move(decoded);
    key = scratch_;
  }
  return true;
}

bool Reader::next_element() {
  bool more = false;
  if (!next(']', more) || !more) return false;
  Step& step = path_[static_cast<std::size_t>(depth_ - 1)];
  step.size_or_index = step.at == At::nothing ? 0 : step.size_or_index + 1;
  step.at = At::index;
  return true;
}

bool Reader::this_key(std::string_view key_text) {
  Step& step = path_[static_cast<std::size_t>(depth_ - 1)];
  const char* from = at_;
  if (step.at != At::nothing) {
    if (from == end_ || *from != ',') return false;
    ++from;
  }
  if (static_cast<std::size_t>(end_ - from) < key_text.size() ||
      std::memcmp(from, key_text.data(), key_text.size()) != 0) {
    return false;
  }
  step = {from + 1, static_cast<std::uint32_t>(key_text.size() - 3), At::key};
  at_ = from + key_text.size();
  return true;
}

bool Reader::check_event_type(std::string_view wanted, bool& seen) {
  std::string_view type;
  if (seen) return stands_twice();
  seen = true;
  if (!text(type)) return false;
  return type == wanted || fail_here(cat("expected \"", wanted, "\", got \"", shortened(type), "\""));
}

bool Reader::struct_members(void* object, std::span<const MemberReader> members, std::string_view event_type) {
  if (!open_object()) return false;
  std::uint64_t seen = 0;
  std::size_t expect = 0;
  bool type_seen = event_type.empty();
  const auto take = [&](std::size_t index) {
    const std::uint64_t bit = std::uint64_t{1} << index;
    if ((seen & bit) != 0) return stands_twice();
    seen |= bit;
    expect = index + 1;
    return members[index].read(*this, object);
  };
  if (!type_seen && this_key("\"event_type\":") && !check_event_type(event_type, type_seen)) return false;
  for (;;) {
    // The usual case: the next member in order, or one behind optional members that are left out.
    std::size_t candidate = expect;
    bool found = false;
    while (candidate < members.size() && !found) {
      found = this_key(members[candidate].key_text);
      if (found || members[candidate].clear == nullptr) break;
      ++candidate;
    }
    if (found) {
      if (!take(candidate)) return false;
      continue;
    }
    std::string_view key;
    if (!next_key(key)) break;
    std::size_t index = 0;
    while (index < members.size() && members[index].name != key) ++index;
    if (index < members.size()) {
      if (!take(index)) return false;
    } else if (!event_type.empty() && key == "event_type") {
      if (!check_event_type(event_type, type_seen)) return false;
    } else {
      note_unknown();
      if (!skip()) return false;
    }
  }
  if (failed()) return false;
  if (!type_seen) return fail_at_key("event_type", "this key is missing");
  for (std::size_t i = 0; i < members.size(); ++i) {
    if ((seen & std::uint64_t{1} << i) != 0) continue;
    if (members[i].clear == nullptr) return fail_at_key(members[i].name, "this key is missing");
    members[i].clear(object);
  }
  return true;
}

// ---- values that nobody understands here --------------------------------------------------------------

bool Reader::append_raw_object(std::string& out) {
  struct Written {
    std::size_t at;
    std::size_t size;
  };
  constexpr std::size_t few = 16;  // above, a set finds a repeated key, so that many keys stay cheap
  std::array<Written, few> keys;
  std::set<std::string, std::less<>> more_keys;
  std::size_t count = 0;
  if (!open_object()) return false;
  out += '{';
  std::string_view key;
  while (next_key(key)) {
    if (count > 0) out += ',';
    const std::size_t at = out.size();
    write_string(out, key);
    // Equal keys have equal canonical text, so what was written is what is compared.
    const std::string_view written = std::string_view(out).substr(at);
    for (std::size_t i = 0; i < count && i < few; ++i) {
      if (std::string_view(out).substr(keys[i].at, keys[i].size) == written) return stands_twice();
    }
    if (count < few) {
      keys[count] = {at, written.size()};
    } else if (!more_keys.emplace(written).second) {
      return stands_twice();
    }
    ++count;
    out += ':';
    if (!append_raw(out)) return false;
  }
  out += '}';
  return !failed();
}

bool Reader::append_raw(std::string& out) {
  if (failed()) return false;
  space();
  const char c = at_ < end_ ? *at_ : '\0';
  if (c == '{') return append_raw_object(out);
  if (c == '[') {
    if (!open_array()) return false;
    out += '[';
    for (bool first = true; next_element(); first = false) {
      if (!first) out += ',';
      if (!append_raw(out)) return false;
    }
    out += ']';
    return !failed();
  }
  if (c == '"') {
    std::string_view value;
    if (!text(value)) return false;
    write_string(out, value);
    return true;
  }
  for (const std::string_view word : {"true", "false", "null"}) {
    if (literal(word)) {
      out += word;
      return true;
    }
  }
  std::string_view digits;
  bool integral = false;
  if (!number_text(digits, integral)) return false;
  out += digits;
  return true;
}

bool Reader::raw(std::string& out) {
  out.clear();
  return append_raw(out);
}

bool Reader::skip() {
  std::string ignored;
  return append_raw(ignored);
}

bool Reader::slice(std::string_view& out) {
  if (failed()) return false;
  space();
  const char* const begin = at_;
  int open = 0;
  do {
    if (at_ == end_) return expected(open == 0 ? "a value" : "the end of a value");
    std::string_view text;
    bool escaped = false;
    switch (*at_) {
      case '"':
        if (!scan_string(text, escaped)) return false;
        break;
      case '{':
      case '[':
        ++open;
        ++at_;
        break;
      case '}':
      case ']':
        if (open-- == 0) return expected("a value");
        ++at_;
        break;
      case ',':
      case ':':
        if (open == 0) return expected("a value");
        [[fallthrough]];
      default:
        for (++at_; at_ < end_ && std::string_view("\"{}[],: \n\t\r").find(*at_) == std::string_view::npos;) ++at_;
    }
  } while (open > 0);
  out = std::string_view(begin, static_cast<std::size_t>(at_ - begin));
  return true;
}

bool Reader::end_of_text() {
  if (failed()) return false;
  space();
  return at_ == end_ || expected("the end of the text");
}

}  // namespace lockstep::json
