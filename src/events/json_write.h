#pragma once

// The one JSON writer. A described struct is its own schema: members are written in declaration order under their
// own names, an empty optional is left out, numbers are shortest round-trip and a double always looks like one
// (7.0, not 7). Strings must be UTF-8; a broken byte is written as U+FFFD so that output is always valid JSON.

#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <boost/describe.hpp>
#include <boost/mp11/algorithm.hpp>

#include "base/ids.h"
#include "base/units.h"

namespace lockstep {

/// A JSON value kept as its canonical text: bodies that are passed on without being understood.
struct RawJson {
  std::string text = "null";
  friend bool operator==(const RawJson&, const RawJson&) = default;
};

namespace json {

template <class T>
inline constexpr bool is_struct = boost::describe::has_describe_members<T>::value && !std::is_union_v<T>;
template <class T>
inline constexpr bool is_described_enum = boost::describe::has_describe_enumerators<T>::value;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T>
using Members = boost::describe::describe_members<T, boost::describe::mod_public>;

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
template <class T>
void write_one(std::string& out, const std::map<std::string, T>& values) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : values) {
    if (!first) out += ',';
    first = false;
    write_string(out, key);
    out += ':';
    json::write(out, value);
  }
  out += '}';
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
    const auto& field = value.*member.pointer;
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (is_optional<Field>) {
      if (!field) return;
    }
    if (!first) out += ',';
    first = false;
    write_string(out, member.name);
    out += ':';
    if constexpr (is_optional<Field>) {
      json::write(out, *field);
    } else {
      json::write(out, field);
    }
  });
}

}  // namespace detail

template <class T>
void write(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
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
      out += "\"event_type\":";
      write_string(out, T::event_type);
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
  write(out, value);
  return out;
}

}  // namespace json
}  // namespace lockstep
