#pragma once

// What a described struct says about itself. The struct is the schema: its members are listed with Boost.Describe, and
// what a member's type cannot say (its range, its unit, the words an open text usually carries) stands beside them as
// `rules`. The reader (json_read.h), the writer (json_write.h) and the JSON Schema (json_schema.h) are generic over it.
//
//   struct InferenceParameters {
//     std::string prompt;
//     std::uint32_t steps = 30;
//     static constexpr json::Rule rules[] = {{.member = "steps", .min = 1}};
//   };
//   BOOST_DESCRIBE_STRUCT(InferenceParameters, (), (prompt, steps))
//
// Words: a described enum is a closed set, and another word is refused. A std::string is open: `words` lists what it
// usually carries, for people and generated types, and any other word passes.

#include <array>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <boost/describe.hpp>
#include <boost/mp11/algorithm.hpp>

#include "events/ordered.h"

namespace lockstep::json {

/// About one member. For a list, map or optional it is about the values in it.
///
/// min, max     of a number, both included
/// multiple_of  of a whole number; 0 asks nothing
/// unit         "seconds", "pixels", "degrees Celsius"
/// words        usual words of an open text, separated by ", "
struct Rule {
  std::string_view member;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  unsigned multiple_of = 0;
  std::string_view unit = {};
  std::string_view words = {};
};
inline constexpr Rule no_rule{};

template <class T>
inline constexpr bool is_struct = boost::describe::has_describe_members<T>::value && !std::is_union_v<T>;
template <class T>
inline constexpr bool is_described_enum = boost::describe::has_describe_enumerators<T>::value;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_map = false;
template <class T>
inline constexpr bool is_map<std::map<std::string, T>> = true;
template <class T>
inline constexpr bool is_map<Ordered<T>> = true;

template <class T>
struct MapValue;
template <class T>
struct MapValue<std::map<std::string, T>> {
  using type = T;
};
template <class T>
struct MapValue<Ordered<T>> {
  using type = T;
};

template <class T>
using Members = boost::describe::describe_members<T, boost::describe::mod_public>;
template <class T>
inline constexpr std::size_t member_count = boost::mp11::mp_size<Members<T>>::value;

namespace detail {

template <class T>
constexpr bool has_member(std::string_view name) {
  bool found = false;
  boost::mp11::mp_for_each<Members<T>>([&](auto member) { found = found || name == member.name; });
  return found;
}

template <class T>
constexpr Rule rule_named(std::string_view name) {
  for (const Rule& rule : T::rules) {
    if (rule.member == name) return rule;
  }
  return no_rule;
}

template <class T>
constexpr bool rules_name_members() {
  for (const Rule& rule : T::rules) {
    if (!has_member<T>(rule.member)) return false;
  }
  return true;
}

constexpr std::size_t length_of(const char* name) { return std::string_view(name).size(); }

}  // namespace detail

/// The rule of a member, given by its descriptor.
template <class T, class Member>
constexpr Rule rule_of() {
  if constexpr (requires { T::rules; }) {
    static_assert(detail::rules_name_members<T>(), "a rule names no member of its struct");
    return detail::rule_named<T>(Member::name);
  } else {
    return no_rule;
  }
}

/// `,"name":` of a member, ready to be written or compared.
template <class Member>
struct KeyText {
  static constexpr std::size_t size = detail::length_of(Member::name) + 4;
  static constexpr std::array<char, size> text = [] {
    std::array<char, size> out{};
    out[0] = ',';
    out[1] = '"';
    for (std::size_t i = 0; i + 4 < size; ++i) out[i + 2] = Member::name[i];
    out[size - 2] = '"';
    out[size - 1] = ':';
    return out;
  }();
  /// with the comma that stands before every member but the first
  static constexpr std::string_view after_another{text.data(), size};
  static constexpr std::string_view first{text.data() + 1, size - 1};
};

/// The struct's own name, without its namespaces: "InferenceParameters".
template <class T>
constexpr std::string_view type_name() {
  constexpr std::string_view whole = __PRETTY_FUNCTION__;  // "... [with T = lockstep::Name; ...]", clang: "[T = ...]"
  constexpr std::size_t begin = whole.find("T = ") + 4;
  constexpr std::size_t end = whole.find_first_of(";]", begin);
  constexpr std::string_view name = whole.substr(begin, end - begin);
  constexpr std::size_t colon = name.rfind(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

}  // namespace lockstep::json
