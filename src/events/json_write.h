#pragma once

// The one JSON writer. A described struct is its own schema (events/described.h): members are written in declaration
// order under their own names, an empty optional is left out, numbers are shortest round-trip and a double always
// looks like one (7.0, not 7). Strings must be UTF-8; a broken byte is written as U+FFFD so that output is always
// valid JSON. Everything is appended to one string: a caller that keeps it pays for its memory once.

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "events/described.h"
#include "events/ordered.h"

namespace lockstep {

/// A JSON value kept as its canonical text: bodies that are passed on without being understood.
struct RawJson {
  std::string text = "null";
  friend bool operator==(const RawJson&, const RawJson&) = default;
};

namespace json {

void write_string(std::string& out, std::string_view text);
void write_double(std::string& out, double number);
void write_integer(std::string& out, std::uint64_t number);
void write_integer(std::string& out, std::int64_t number);

template <class T>
void write(std::string& out, const T& value);

namespace detail {

template <class T>
void write_one(std::string& out, const std::vector<T>& values) {
  out += '[';
  bool first = true;
  for (const T& value : values) {
    if (!first) out += ',';
    first = false;
    json::write(out, value);
  }
  out += ']';
}
template <class Pairs>
void write_pairs(std::string& out, const Pairs& pairs) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : pairs) {
    if (!first) out += ',';
    first = false;
    write_string(out, key);
    out += ':';
    json::write(out, value);
  }
  out += '}';
}
template <class T>
void write_one(std::string& out, const std::map<std::string, T>& values) {
  write_pairs(out, values);
}
template <class T>
void write_one(std::string& out, const Ordered<T>& values) {
  write_pairs(out, values.items);
}
inline void write_one(std::string& out, const std::string& text) { write_string(out, text); }
inline void write_one(std::string& out, const RawJson& raw) { out += raw.text; }
inline void write_one(std::string& out, const SizeText& size) { write_string(out, size.text); }
inline void write_one(std::string& out, const DurationText& duration) { write_string(out, duration.text); }
inline void write_one(std::string& out, const Timestamp& time) { write_string(out, time.text); }
inline void write_one(std::string& out, const Ratio& ratio) { write_double(out, ratio.value); }
inline void write_one(std::string& out, const Percent& percent) { write_double(out, percent.value); }
inline void write_one(std::string& out, const Bytes& bytes) { write_integer(out, bytes.value); }
inline void write_one(std::string& out, const WallTime& time) { write_integer(out, time.ms); }
template <class Tag>
void write_one(std::string& out, const Id<Tag>& id) {
  write_string(out, id.str());
}
template <class Tag>
void write_one(std::string& out, const Number<Tag>& number) {
  write_integer(out, number.value);
}

/// `,"name":value` for each member; the caller opened the object and says whether something stands before.
template <class T>
void write_members(std::string& out, const T& value, bool& first) {
  boost::mp11::mp_for_each<Members<T>>([&](auto member) {
    using Key = KeyText<decltype(member)>;
    const auto& field = value.*member.pointer;
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (is_optional<Field>) {
      if (!field) return;
    }
    out += first ? Key::first : Key::after_another;
    first = false;
    if constexpr (is_optional<Field>) {
      json::write(out, *field);
    } else {
      json::write(out, field);
    }
  });
}

/// About how long the text of a T is when its strings are short: one allocation instead of a doubling series.
template <class T>
constexpr std::size_t size_hint() {
  if constexpr (is_optional<T>) {
    return size_hint<typename T::value_type>();
  } else if constexpr (is_struct<T>) {
    std::size_t sum = 2;
    if constexpr (requires { T::event_type; }) sum += T::event_type.size() + 16;
    boost::mp11::mp_for_each<Members<T>>([&](auto member) {
      sum += KeyText<decltype(member)>::size +
             size_hint<std::remove_cvref_t<decltype(std::declval<T>().*member.pointer)>>();
    });
    return sum;
  } else {
    return 16;
  }
}

}  // namespace detail

template <class T>
void write(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? std::string_view("true") : std::string_view("false");
  } else if constexpr (std::is_floating_point_v<T>) {
    write_double(out, value);
  } else if constexpr (std::unsigned_integral<T>) {
    write_integer(out, static_cast<std::uint64_t>(value));
  } else if constexpr (std::signed_integral<T>) {
    write_integer(out, static_cast<std::int64_t>(value));
  } else if constexpr (is_described_enum<T>) {
    write_string(out, boost::describe::enum_to_string(value, "?"));
  } else if constexpr (is_struct<T>) {
    out += '{';
    bool first = true;
    // A message type names itself: "event_type" comes first (§2.1-2.6).
    if constexpr (requires { T::event_type; }) {
      out += "\"event_type\":\"";
      out += T::event_type;  // a plain name
      out += '"';
      first = false;
    }
    detail::write_members(out, value, first);
    out += '}';
  } else {
    detail::write_one(out, value);
  }
}

/// The wire word of an enumerator.
template <class E>
std::string enum_name(E value) {
  return boost::describe::enum_to_string(value, "?");
}

template <class T>
std::string to_text(const T& value) {
  std::string out;
  if constexpr (is_struct<T>) out.reserve(detail::size_hint<T>());
  write(out, value);
  return out;
}

}  // namespace json
}  // namespace lockstep
