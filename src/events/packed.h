#pragma once

// The same described structs as bytes, for a link whose two ends announced the same schema digest. There is no second
// schema: members follow each other in declared order, and the rules that the JSON reader checks are checked here.
//
//   bool u8 · integers and enumerators at their width, little-endian · double 8 bytes · text u32 length, UTF-8 ·
//   optional u8 then the value · list and map u32 count, then values, or key and value
//
// Nothing is allocated for a value whose memory is there already: a struct that is read into again costs no memory.
// docs/decisions/0041.

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "base/text.h"
#include "events/json_read.h"
#include "events/json_write.h"

namespace lockstep::packed {

static_assert(std::endian::native == std::endian::little, "packed numbers are copied as they stand");

/// The JSON Schema of every message that may cross packed (events/packed_messages.h), with their rules.
std::string packed_schema();
/// Of that schema, and of this form. Two ends with the same one read each other's bytes.
std::string schema_digest();

/// A cursor over packed bytes. Every function returns false after the first failure; error() says what it was.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <class Number>
  bool number(Number& out) {
    if (rest_.size() < sizeof out) return cut_short();
    std::memcpy(&out, rest_.data(), sizeof out);
    rest_.remove_prefix(sizeof out);
    return true;
  }
  /// Valid UTF-8, where it stands.
  bool text(std::string_view& out);
  /// At most as many as there are bytes: a count cannot ask for memory that its own message does not pay for.
  bool count(std::uint32_t& out);
  bool end() { return rest_.empty() || fail(cat(rest_.size(), " bytes too many")); }
  bool fail(std::string message);
  /// The member that was read when it failed; called from the inside out.
  bool within(std::string_view member);
  Error error() const { return *error_; }
  std::string_view rest() const { return rest_; }

 private:
  bool cut_short();
  std::string_view rest_;
  std::optional<Error> error_;
};

template <class T>
void write(std::string& out, const T& value);
template <class T>
bool read(Reader& in, T& out, const json::Rule& rule = json::no_rule);

namespace detail {

template <class Number>
void put(std::string& out, Number number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof bytes);
}
inline void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint32_t>(text.size()));
  out.append(text);
}

inline void write_one(std::string& out, const std::string& text) { put_text(out, text); }
inline void write_one(std::string& out, const RawJson& raw) { put_text(out, raw.text); }
inline void write_one(std::string& out, const SizeText& size) { put_text(out, size.text); }
inline void write_one(std::string& out, const DurationText& duration) { put_text(out, duration.text); }
inline void write_one(std::string& out, const Timestamp& time) { put_text(out, time.text); }
inline void write_one(std::string& out, const Ratio& ratio) { put(out, ratio.value); }
inline void write_one(std::string& out, const Percent& percent) { put(out, percent.value); }
inline void write_one(std::string& out, const Bytes& bytes) { put(out, bytes.value); }
inline void write_one(std::string& out, const WallTime& time) { put(out, time.ms); }
template <class Tag>
void write_one(std::string& out, const Id<Tag>& id) {
  put_text(out, id.str());
}
template <class Tag>
void write_one(std::string& out, const Number<Tag>& number) {
  put(out, number.value);
}
template <class T>
void write_one(std::string& out, const std::vector<T>& values) {
  put(out, static_cast<std::uint32_t>(values.size()));
  for (const T& value : values) packed::write(out, value);
}
template <class T>
void write_one(std::string& out, const std::map<std::string, T>& values) {
  put(out, static_cast<std::uint32_t>(values.size()));
  for (const auto& [key, value] : values) {
    put_text(out, key);
    packed::write(out, value);
  }
}
template <class T>
void write_one(std::string& out, const Ordered<T>& values) {
  put(out, static_cast<std::uint32_t>(values.items.size()));
  for (const auto& [key, value] : values.items) {
    put_text(out, key);
    packed::write(out, value);
  }
}

template <class N>
bool read_number(Reader& in, N& out, double min, double max) {
  if (!in.number(out)) return false;
  if constexpr (std::is_floating_point_v<N>) {
    if (!(out >= min && out <= max) || out - out != 0)
      return in.fail(cat(out, " is not a number from ", min, " to ", max));
  } else {
    using Bounds = std::numeric_limits<N>;
    const N low = json::detail::bound<N>(min, Bounds::min());
    const N high = json::detail::bound<N>(max, Bounds::max());
    if (out < low || out > high) return in.fail(cat(out, " is not from ", low, " to ", high));
  }
  return true;
}

inline bool read_one(Reader& in, std::string& out, const json::Rule&) {
  std::string_view text;
  if (!in.text(text)) return false;
  out.assign(text);
  return true;
}
inline bool read_one(Reader& in, RawJson& out, const json::Rule&) {
  std::string_view text;
  if (!in.text(text)) return false;
  json::Reader inner(text);
  if (!inner.raw(out.text) || !inner.end_of_text()) return in.fail(inner.error().message);
  return true;
}
template <class Text, class Check>
bool read_checked(Reader& in, Text& out, Check check) {
  std::string_view text;
  if (!in.text(text)) return false;
  if (const auto parsed = check(text); !parsed) return in.fail(parsed.error().message);
  out.text.assign(text);
  return true;
}
inline bool read_one(Reader& in, SizeText& out, const json::Rule&) { return read_checked(in, out, bytes_from_text); }
inline bool read_one(Reader& in, DurationText& out, const json::Rule&) {
  return read_checked(in, out, duration_from_text);
}
inline bool read_one(Reader& in, Timestamp& out, const json::Rule&) { return read_checked(in, out, wall_from_rfc3339); }
inline bool read_one(Reader& in, Ratio& out, const json::Rule& rule) {
  return read_number(in, out.value, std::max(rule.min, 0.0), std::min(rule.max, 1.0));
}
inline bool read_one(Reader& in, Percent& out, const json::Rule& rule) {
  return read_number(in, out.value, std::max(rule.min, 0.0), std::min(rule.max, 100.0));
}
inline bool read_one(Reader& in, Bytes& out, const json::Rule& rule) {
  if (!read_number(in, out.value, rule.min, rule.max)) return false;
  return out.value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
         in.fail(cat(out.value, " bytes are more than there can be"));
}
inline bool read_one(Reader& in, WallTime& out, const json::Rule& rule) {
  return read_number(in, out.ms, rule.min, rule.max);
}
template <class Tag>
bool read_one(Reader& in, Id<Tag>& out, const json::Rule&) {
  std::string_view text;
  if (!in.text(text)) return false;
  out.assign(text);
  return true;
}
template <class Tag>
bool read_one(Reader& in, Number<Tag>& out, const json::Rule& rule) {
  return read_number(in, out.value, rule.min, rule.max);
}
template <class T>
bool read_one(Reader& in, std::vector<T>& out, const json::Rule& rule) {
  std::uint32_t count = 0;
  if (!in.count(count)) return false;
  for (std::size_t i = 0; i < count; ++i) {  // one by one: a false count costs no more than its bytes
    if (i == out.size()) out.emplace_back();
    if (!packed::read(in, out[i], rule)) return in.within(std::to_string(i));
  }
  out.resize(count);
  return true;
}
template <class T>
bool read_one(Reader& in, std::map<std::string, T>& out, const json::Rule& rule) {
  std::uint32_t count = 0;
  if (!in.count(count)) return false;
  out.clear();
  for (std::size_t i = 0; i < count; ++i) {
    std::string_view key;
    if (!in.text(key)) return false;
    const auto [place, inserted] = out.try_emplace(std::string(key));
    if (!inserted) return in.fail("this key stands twice") || in.within(key);
    if (!packed::read(in, place->second, rule)) return in.within(place->first);
  }
  return true;
}
template <class T>
bool read_one(Reader& in, Ordered<T>& out, const json::Rule& rule) {
  std::uint32_t count = 0;
  if (!in.count(count)) return false;
  std::set<std::string, std::less<>> seen;
  for (std::size_t i = 0; i < count; ++i) {
    std::string_view key;
    if (!in.text(key)) return false;
    if (!seen.emplace(key).second) return in.fail("this key stands twice") || in.within(key);
    if (i == out.items.size()) out.items.emplace_back();
    auto& [name, value] = out.items[i];
    name.assign(key);
    if (!packed::read(in, value, rule)) return in.within(name);
  }
  out.items.resize(count);
  return true;
}

template <class T, class Member>
bool read_member(Reader& in, T& out, Member member) {
  static constexpr json::Rule rule = json::rule_of<T, Member>();
  auto& field = out.*member.pointer;
  if constexpr (json::is_optional<std::remove_cvref_t<decltype(field)>>) {
    bool there = false;
    if (!packed::read(in, there)) return in.within(member.name);
    if (!there) {
      field.reset();
      return true;
    }
    if (!field) field.emplace();
    return packed::read(in, *field, rule) || in.within(member.name);
  } else {
    return packed::read(in, field, rule) || in.within(member.name);
  }
}

template <class T, class... Each>
bool read_members(Reader& in, T& out, boost::mp11::mp_list<Each...>) {
  return (read_member(in, out, Each{}) && ...);
}

}  // namespace detail

template <class T>
void write(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    detail::put(out, static_cast<std::uint8_t>(value ? 1 : 0));
  } else if constexpr (std::is_arithmetic_v<T>) {
    detail::put(out, value);
  } else if constexpr (json::is_described_enum<T>) {
    detail::put(out, static_cast<std::uint16_t>(value));
  } else if constexpr (json::is_struct<T>) {
    boost::mp11::mp_for_each<json::Members<T>>([&](auto member) {
      const auto& field = value.*member.pointer;
      if constexpr (json::is_optional<std::remove_cvref_t<decltype(field)>>) {
        write(out, field.has_value());
        if (field) write(out, *field);
      } else {
        write(out, field);
      }
    });
  } else {
    detail::write_one(out, value);
  }
}

template <class T>
bool read(Reader& in, T& out, const json::Rule& rule) {
  if constexpr (std::is_same_v<T, bool>) {
    std::uint8_t byte = 0;
    if (!in.number(byte)) return false;
    out = byte == 1;
    return byte <= 1 || in.fail(cat(static_cast<int>(byte), " is neither 0 nor 1"));
  } else if constexpr (std::is_arithmetic_v<T>) {
    if (!detail::read_number(in, out, rule.min, rule.max)) return false;
    if constexpr (std::unsigned_integral<T>) {
      if (rule.multiple_of != 0 && out % rule.multiple_of != 0) {
        return in.fail(cat(out, " is not divisible by ", rule.multiple_of));
      }
    }
    return true;
  } else if constexpr (json::is_described_enum<T>) {
    std::uint16_t number = 0;
    if (!in.number(number)) return false;
    out = static_cast<T>(number);
    bool known = false;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>(
        [&](auto each) { known = known || each.value == out; });
    return known || in.fail(cat(number, " is no ", json::type_name<T>()));
  } else if constexpr (json::is_struct<T>) {
    return detail::read_members(in, out, boost::mp11::mp_rename<json::Members<T>, boost::mp11::mp_list>{});
  } else {
    return detail::read_one(in, out, rule);
  }
}

/// All of `bytes` into `out`, whose memory is used again; invalid_argument with pointer and sentence.
template <class T>
Status read_bytes(std::string_view bytes, T& out) {
  Reader in(bytes);
  if (!read(in, out) || !in.end()) return in.error();
  return {};
}

template <class T>
std::string to_bytes(const T& value) {
  std::string out;
  write(out, value);
  return out;
}

}  // namespace lockstep::packed
