#pragma once

// The one JSON reader: text straight into described structs, without a tree between. It refuses, with the JSON
// pointer, the value and what was expected: malformed text, a missing or mistyped key, a duplicate key, a number out
// of its declared range, an unknown closed word, NaN, nesting deeper than 32, text larger than 1 MiB. Unknown keys are
// skipped and counted.
//
// Nothing is allocated for a key or a number: the place in the text is a fixed array of views, keys are compared in
// the text itself, and a member that comes where the struct declares it is found by one comparison. A string costs
// what its std::string holds; reading into an object that was used before reuses its memory.

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::json {

struct Limits {
  std::size_t size_max = 1 << 20;  // bytes; a frame is at most 1 MiB
  int depth_max = 32;              // at most Reader::depth_ceiling
};

/// What a reading saw beside the value.
struct ReadNotes {
  int unknown_keys = 0;
  std::string first_unknown;  // JSON pointer
};

/// A value that is not read, but found: its text within what was read, which must outlive it. Only brackets and strings
/// are matched; for text that a checksum vouches for.
struct Slice {
  std::string_view text;
};

class Reader;

/// How one member of a struct is read; the struct's type is erased, so that all structs share one loop.
struct MemberReader {
  std::string_view name;
  std::string_view key_text;  // `"name":`
  bool (*read)(Reader& in, void* object);
  void (*clear)(void* object);  // nullptr: the member must be there
};

/// The cursor over one text. Every function returns false after the first failure; error() says what it was. Open
/// objects and arrays know their current key or index, so the place of a failure is always known.
class Reader {
 public:
  static constexpr int depth_ceiling = 48;

  /// `text` must outlive the reader.
  explicit Reader(std::string_view text, Limits limits = {});

  bool string(std::string& out);
  /// A string without a copy where it has no escapes. Valid until the next call.
  bool text(std::string_view& out);
  bool number(double& out, double min, double max);
  bool integer(std::int64_t& out, std::int64_t min, std::int64_t max);
  bool unsigned_integer(std::uint64_t& out, std::uint64_t min, std::uint64_t max);
  bool boolean(bool& out);
  bool null_if_there();
  /// Any value, as compact canonical text.
  bool raw(std::string& out);
  bool skip();
  bool slice(std::string_view& out);

  bool open_object();
  /// True with the next key in `key` (valid until the next call of anything), false at the end of the object or on
  /// failure (then failed() is true).
  bool next_key(std::string_view& key);
  bool open_array();
  bool next_element();
  bool end_of_text();

  /// An object whose members are `members`, in any order; quickest in theirs. `event_type`: empty, or what the key of
  /// that name must say.
  bool struct_members(void* object, std::span<const MemberReader> members, std::string_view event_type);

  bool fail_here(std::string message);
  /// The same, at a key of the object that was just read.
  bool fail_at_key(std::string_view key, std::string message);
  /// "expected X, got <the value at the cursor>"
  bool expected(std::string_view what);
  bool failed() const { return error_.has_value(); }
  Error error() const;

  const ReadNotes& notes() const { return notes_; }

 private:
  enum class At : std::uint8_t { nothing, key, index };
  /// One open object or array. The key is as it stands in the text: escapes are decoded when somebody asks.
  struct Step {
    const char* key;
    std::uint32_t size_or_index;
    At at;
  };

  void space() {
    while (at_ < end_ && static_cast<unsigned char>(*at_) <= ' ' &&
           (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) {
      ++at_;
    }
  }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }
  bool eat(char c);
  bool open(char c, std::string_view what);
  bool next(char close, bool& more);
  bool literal(std::string_view word);
  bool this_key(std::string_view key_text);
  bool scan_string(std::string_view& raw, bool& escaped);
  bool number_text(std::string_view& out, bool& integral);
  bool append_raw(std::string& out);
  bool append_raw_object(std::string& out);
  bool check_event_type(std::string_view wanted, bool& seen);
  bool stands_twice() { return fail_here("this key stands twice"); }
  void note_unknown();
  std::string pointer() const;

  const char* at_;
  const char* end_;
  int depth_ = 0;
  int depth_max_;
  std::array<Step, depth_ceiling> path_;  // the first depth_ are meant
  std::optional<Error> error_;
  std::string scratch_;  // the last string with escapes
  ReadNotes notes_;
};

template <class T>
bool read_value(Reader& in, T& out, const Rule& rule);

namespace detail {

/// A bound as an integer; a rule's infinity is the type's own end.
template <class Integer>
constexpr Integer bound(double rule, Integer end) {
  return rule <= std::numeric_limits<double>::lowest() || rule >= std::numeric_limits<double>::max()
             ? end
             : static_cast<Integer>(rule);
}

template <class Integer>
bool read_integer(Reader& in, Integer& out, const Rule& rule) {
  using Bounds = std::numeric_limits<Integer>;
  if constexpr (std::unsigned_integral<Integer>) {
    std::uint64_t wide = 0;
    if (!in.unsigned_integer(wide, bound<std::uint64_t>(rule.min, 0), bound<std::uint64_t>(rule.max, Bounds::max()))) {
      return false;
    }
    if (rule.multiple_of != 0 && wide % rule.multiple_of != 0) {
      return in.fail_here(cat(wide, " is not divisible by ", rule.multiple_of));
    }
    out = static_cast<Integer>(wide);
  } else {
    std::int64_t wide = 0;
    if (!in.integer(wide, bound<std::int64_t>(rule.min, Bounds::min()), bound<std::int64_t>(rule.max, Bounds::max()))) {
      return false;
    }
    out = static_cast<Integer>(wide);
  }
  return true;
}

/// Outside these, a share is no share, whatever the rule of the member says.
inline bool read_share(Reader& in, double& out, double end, const Rule& rule) {
  return in.number(out, rule.min > 0 ? rule.min : 0, rule.max < end ? rule.max : end);
}

inline bool read_one(Reader& in, std::string& out, const Rule&) { return in.string(out); }
inline bool read_one(Reader& in, RawJson& out, const Rule&) { return in.raw(out.text); }
inline bool read_one(Reader& in, Slice& out, const Rule&) { return in.slice(out.text); }
inline bool read_one(Reader& in, Bytes& out, const Rule& rule) {
  constexpr std::uint64_t end = std::numeric_limits<std::int64_t>::max();
  return in.unsigned_integer(out.value, bound<std::uint64_t>(rule.min, 0), bound<std::uint64_t>(rule.max, end));
}
inline bool read_one(Reader& in, WallTime& out, const Rule& rule) { return read_integer(in, out.ms, rule); }
inline bool read_one(Reader& in, Ratio& out, const Rule& rule) { return read_share(in, out.value, 1, rule); }
inline bool read_one(Reader& in, Percent& out, const Rule& rule) { return read_share(in, out.value, 100, rule); }
/// A text form with a checker that returns a Result: size, duration, time.
template <class Text, class Check>
bool read_checked(Reader& in, Text& out, Check check) {
  std::string_view text;
  if (!in.text(text)) return false;
  if (const auto parsed = check(text); !parsed) return in.fail_here(parsed.error().message);
  out.text.assign(text);
  return true;
}
inline bool read_one(Reader& in, SizeText& out, const Rule&) { return read_checked(in, out, bytes_from_text); }
inline bool read_one(Reader& in, DurationText& out, const Rule&) { return read_checked(in, out, duration_from_text); }
inline bool read_one(Reader& in, Timestamp& out, const Rule&) { return read_checked(in, out, wall_from_rfc3339); }
template <class Tag>
bool read_one(Reader& in, Id<Tag>& out, const Rule&) {
  std::string_view text;
  if (!in.text(text)) return false;
  out.assign(text);
  return true;
}
template <class Tag>
bool read_one(Reader& in, Number<Tag>& out, const Rule& rule) {
  return read_integer(in, out.value, rule);
}
template <class T>
bool read_one(Reader& in, std::vector<T>& out, const Rule& rule) {
  if (!in.open_array()) return false;
  std::size_t count = 0;
  while (in.next_element()) {                 // elements that are there already are read into, for their memory
    if (out.capacity() == 0) out.reserve(4);  // most lists are short: one allocation
    if (count == out.size()) out.emplace_back();
    if (!read_value(in, out[count++], rule)) return false;
  }
  out.resize(count);
  return !in.failed();
}
template <class T>
bool read_one(Reader& in, std::map<std::string, T>& out, const Rule& rule) {
  if (!in.open_object()) return false;
  out.clear();
  std::string_view key;
  while (in.next_key(key)) {
    const auto [place, inserted] = out.try_emplace(std::string(key));
    if (!inserted) return in.fail_here("this key stands twice");
    if (!read_value(in, place->second, rule)) return false;
  }
  return !in.failed();
}
template <class T>
bool read_one(Reader& in, Ordered<T>& out, const Rule& rule) {
  constexpr std::size_t few = 16;  // above, a set finds a repeated key, so that many keys stay cheap
  std::set<std::string, std::less<>> seen;
  if (!in.open_object()) return false;
  std::size_t count = 0;
  std::string_view key;
  while (in.next_key(key)) {
    for (std::size_t i = 0; i < count && count <= few; ++i) {
      if (out.items[i].first == key) return in.fail_here("this key stands twice");
    }
    if (count == few) {
      for (std::size_t i = 0; i < count; ++i) seen.insert(out.items[i].first);
    }
    if (count >= few && !seen.emplace(key).second) return in.fail_here("this key stands twice");
    if (count == out.items.size()) out.items.emplace_back();
    auto& [name, value] = out.items[count++];
    name.assign(key);
    if (!read_value(in, value, rule)) return false;
  }
  out.items.resize(count);
  return !in.failed();
}

template <class E>
bool read_word(Reader& in, E& out) {
  std::string_view name;
  if (!in.text(name)) return false;
  bool found = false;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<E>>([&](auto each) {
    if (found || name != each.name) return;
    out = each.value;
    found = true;
  });
  if (found) return true;
  std::string words;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<E>>([&](auto each) {
    if (!words.empty()) words += ", ";
    words += each.name;
  });
  return in.fail_here(cat("\"", shortened(name), "\" is none of: ", words));
}

template <class T, class Member>
constexpr MemberReader member_reader() {
  using Field = std::remove_cvref_t<decltype(std::declval<T&>().*Member::pointer)>;
  MemberReader out{Member::name, KeyText<Member>::first, nullptr, nullptr};
  out.read = [](Reader& in, void* object) {
    static constexpr Rule rule = rule_of<T, Member>();
    Field& field = static_cast<T*>(object)->*Member::pointer;
    if constexpr (is_optional<Field>) {
      if (in.null_if_there()) {
        field.reset();
        return true;
      }
      if (!field) field.emplace();
      return read_value(in, *field, rule);
    } else {
      return read_value(in, field, rule);
    }
  };
  if constexpr (is_optional<Field>) {
    out.clear = [](void* object) { (static_cast<T*>(object)->*Member::pointer).reset(); };
  }
  return out;
}

template <class T, class... Each>
constexpr std::array<MemberReader, sizeof...(Each)> member_readers(boost::mp11::mp_list<Each...>) {
  return {member_reader<T, Each>()...};
}

template <class T>
bool read_struct(Reader& in, T& out) {
  static_assert(member_count<T> <= 64, "the reader remembers the members it saw in 64 bits");
  static constexpr auto readers = member_readers<T>(boost::mp11::mp_rename<Members<T>, boost::mp11::mp_list>{});
  if constexpr (requires { T::event_type; }) {
    return in.struct_members(&out, readers, T::event_type);
  } else {
    return in.struct_members(&out, readers, {});
  }
}

}  // namespace detail

template <class T>
bool read_value(Reader& in, T& out, const Rule& rule) {
  if constexpr (std::is_same_v<T, bool>) {
    return in.boolean(out);
  } else if constexpr (std::is_floating_point_v<T>) {
    return in.number(out, rule.min, rule.max);
  } else if constexpr (std::integral<T>) {
    return detail::read_integer(in, out, rule);
  } else if constexpr (is_described_enum<T>) {
    return detail::read_word(in, out);
  } else if constexpr (is_struct<T>) {
    return detail::read_struct(in, out);
  } else {
    return detail::read_one(in, out, rule);
  }
}

template <class T>
bool read(Reader& in, T& out) {
  return read_value(in, out, no_rule);
}

/// The whole text into `out`, whose memory is used again, or invalid_argument with pointer and sentence; `out` is then
/// half read.
template <class T>
Status read_text(std::string_view text, T& out, ReadNotes* notes = nullptr, Limits limits = {}) {
  Reader in(text, limits);
  if (!read(in, out) || !in.end_of_text()) return in.error();
  if (notes != nullptr) *notes = in.notes();
  return {};
}

/// The whole text as one T, or invalid_argument with pointer and sentence.
template <class T>
Result<T> from_text(std::string_view text, ReadNotes* notes = nullptr, Limits limits = {}) {
  Result<T> value(std::in_place);
  if (Status read = read_text(text, *value, notes, limits); !read) return std::move(read).error();
  return value;
}

}  // namespace lockstep::json
