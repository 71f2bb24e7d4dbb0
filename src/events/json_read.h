#pragma once

// The one JSON reader: text straight into described structs, without a tree between. It refuses, with the JSON
// pointer, the value and what was expected: malformed text, a missing or mistyped key, a duplicate key, a number out
// of its type's range, NaN, nesting deeper than 32, text larger than 1 MiB. Unknown keys are skipped and counted.

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::json {

struct Limits {
  std::size_t size_max = 1 << 20;  // bytes; a frame is at most 1 MiB
  int depth_max = 32;
};

/// What a reading saw beside the value.
struct ReadNotes {
  int unknown_keys = 0;
  std::string first_unknown;  // JSON pointer
};

/// The cursor over one text. Every function returns false after the first failure; error() says what it was.
class Reader {
 public:
  explicit Reader(std::string_view text, Limits limits = {});

  bool string(std::string& out);
  bool number(double& out);
  bool integer(std::int64_t& out, std::int64_t min, std::int64_t max);
  bool unsigned_integer(std::uint64_t& out, std::uint64_t max);
  bool boolean(bool& out);
  bool null_if_there();
  /// Any value, as compact canonical text.
  bool raw(std::string& out);
  bool skip();

  bool open_object();
  /// True with the next key in `key`, false at the end of the object or on failure (then failed() is true).
  bool next_key(std::string& key, bool& first);
  bool open_array();
  bool next_element(bool& first);
  bool end_of_text();

  void push_key(std::string_view key) { path_.push_back({false, std::string(key), 0}); }
  void push_index(std::size_t index) { path_.push_back({true, std::string(), index}); }
  void pop() { path_.pop_back(); }

  bool fail_here(std::string message);
  /// "expected X, got <the value at the cursor>"
  bool expected(std::string_view what);
  bool failed() const { return error_.has_value(); }
  Error error() const;

  /// The key at the cursor is nobody's.
  void note_unknown();
  const ReadNotes& notes() const { return notes_; }

 private:
  struct Step {
    bool in_array;
    std::string key;
    std::size_t index;
  };
  void space();
  bool eat(char c);
  bool literal(std::string_view word);
  bool number_text(std::string_view& out, bool& integral);
  bool close_depth();
  std::string pointer() const;

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  Limits limits_;
  std::vector<Step> path_;
  std::optional<Error> error_;
  ReadNotes notes_;
};

template <class T>
bool read(Reader& in, T& out);

namespace detail {

inline bool read_one(Reader& in, std::string& out) { return in.string(out); }
inline bool read_one(Reader& in, RawJson& out) { return in.raw(out.text); }
inline bool read_one(Reader& in, Bytes& out) {
  return in.unsigned_integer(out.value, std::numeric_limits<std::int64_t>::max());
}
inline bool read_one(Reader& in, WallTime& out) {
  return in.integer(out.ms, std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max());
}
inline bool read_one(Reader& in, Ratio& out) {
  if (!in.number(out.value)) return false;
  return (out.value >= 0 && out.value <= 1) || in.fail_here(cat(out.value, " is outside 0 to 1"));
}
inline bool read_one(Reader& in, Percent& out) {
  if (!in.number(out.value)) return false;
  return (out.value >= 0 && out.value <= 100) || in.fail_here(cat(out.value, " is outside 0 to 100"));
}
/// A text form with a checker that returns a Result: size, duration, time.
template <class Text, class Check>
bool read_checked(Reader& in, Text& out, Check check) {
  if (!in.string(out.text)) return false;
  const auto parsed = check(out.text);
  return parsed.has_value() || in.fail_here(parsed.error().message);
}
inline bool read_one(Reader& in, SizeText& out) { return read_checked(in, out, bytes_from_text); }
inline bool read_one(Reader& in, DurationText& out) { return read_checked(in, out, duration_from_text); }
inline bool read_one(Reader& in, Timestamp& out) { return read_checked(in, out, wall_from_rfc3339); }
template <class Tag>
bool read_one(Reader& in, Id<Tag>& out) {
  std::string text;
  if (!in.string(text)) return false;
  out = Id<Tag>(std::move(text));
  return true;
}
template <class Tag>
bool read_one(Reader& in, Number<Tag>& out) {
  return in.unsigned_integer(out.value, std::numeric_limits<std::uint64_t>::max());
}
template <class T>
bool read_one(Reader& in, std::vector<T>& out) {
  if (!in.open_array()) return false;
  out.clear();
  bool first = true;
  while (in.next_element(first)) {
    in.push_index(out.size());
    if (!json::read(in, out.emplace_back())) return false;
    in.pop();
  }
  return !in.failed();
}
template <class T>
bool read_one(Reader& in, std::map<std::string, T>& out) {
  if (!in.open_object()) return false;
  out.clear();
  bool first = true;
  std::string key;
  while (in.next_key(key, first)) {
    in.push_key(key);
    const auto [place, inserted] = out.try_emplace(key);
    if (!inserted) return in.fail_here("this key stands twice");
    if (!json::read(in, place->second)) return false;
    in.pop();
  }
  return !in.failed();
}

template <class T>
bool read_struct(Reader& in, T& out) {
  using List = Members<T>;
  constexpr std::size_t count = boost::mp11::mp_size<List>::value;
  std::array<bool, count + 1> seen{};
  bool event_type_seen = false;
  if (!in.open_object()) return false;
  bool first = true;
  std::string key;
  while (in.next_key(key, first)) {
    in.push_key(key);
    bool known = false;
    bool good = true;
    if constexpr (requires { T::event_type; }) {
      if (key == "event_type") {
        known = true;
        std::string type;
        if (event_type_seen) return in.fail_here("this key stands twice");
        event_type_seen = true;
        good = in.string(type);
        if (good && type != T::event_type) {
          return in.fail_here(cat("expected \"", T::event_type, "\", got \"", shortened(type), "\""));
        }
      }
    }
    boost::mp11::mp_for_each<boost::mp11::mp_iota_c<count>>([&](auto index) {
      constexpr auto member = boost::mp11::mp_at_c<List, index>{};
      if (known || key != member.name) return;
      known = true;
      if (seen[index]) {
        good = in.fail_here("this key stands twice");
        return;
      }
      seen[index] = true;
      auto& field = out.*member.pointer;
      if constexpr (is_optional<std::remove_cvref_t<decltype(field)>>) {
        if (in.null_if_there()) {
          field.reset();
        } else {
          good = json::read(in, field.emplace());
        }
      } else {
        good = json::read(in, field);
      }
    });
    if (!good) return false;
    if (!known) {
      in.note_unknown();
      if (!in.skip()) return false;
    }
    in.pop();
  }
  if (in.failed()) return false;
  if constexpr (requires { T::event_type; }) {
    if (!event_type_seen) {
      in.push_key("event_type");
      return in.fail_here("this key is missing");
    }
  }
  bool complete = true;
  boost::mp11::mp_for_each<boost::mp11::mp_iota_c<count>>([&](auto index) {
    constexpr auto member = boost::mp11::mp_at_c<List, index>{};
    using Field = std::remove_cvref_t<decltype(out.*member.pointer)>;
    if (!complete || seen[index] || is_optional<Field>) return;
    in.push_key(member.name);
    complete = in.fail_here("this key is missing");
  });
  return complete;
}

}  // namespace detail

template <class T>
bool read(Reader& in, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    return in.boolean(out);
  } else if constexpr (std::is_floating_point_v<T>) {
    return in.number(out);
  } else if constexpr (std::unsigned_integral<T>) {
    std::uint64_t wide = 0;
    if (!in.unsigned_integer(wide, std::numeric_limits<T>::max())) return false;
    out = static_cast<T>(wide);
    return true;
  } else if constexpr (std::signed_integral<T>) {
    std::int64_t wide = 0;
    if (!in.integer(wide, std::numeric_limits<T>::min(), std::numeric_limits<T>::max())) return false;
    out = static_cast<T>(wide);
    return true;
  } else if constexpr (is_described_enum<T>) {
    std::string name;
    if (!in.string(name)) return false;
    bool found = false;
    std::string words;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>([&](auto each) {
      if (name == each.name) {
        out = each.value;
        found = true;
      }
      if (!words.empty()) words += ", ";
      words += each.name;
    });
    if (found) return true;
    return in.fail_here(cat("\"", shortened(name), "\" is none of: ", words));
  } else if constexpr (is_struct<T>) {
    return detail::read_struct(in, out);
  } else {
    return detail::read_one(in, out);
  }
}

/// The whole text as one T, or invalid_argument with pointer and sentence.
template <class T>
Result<T> from_text(std::string_view text, ReadNotes* notes = nullptr, Limits limits = {}) {
  Reader in(text, limits);
  T value{};
  if (!read(in, value) || !in.end_of_text()) return in.error();
  if (notes != nullptr) *notes = in.notes();
  return value;
}

}  // namespace lockstep::json
