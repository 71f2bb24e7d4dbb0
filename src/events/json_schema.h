#pragma once

// JSON Schema (2020-12) from the same descriptions that the reader checks: what one accepts, the other does. Where the
// two cannot agree it is said here: a schema takes 30.0 for a whole number and does not see a key that stands twice.
//
// Every struct, closed set of words and text form becomes one entry of $defs under its own name. Other keys are
// allowed, because a reader drops what it does not know. "x-open-words" lists what an open text usually says.

#include <algorithm>
#include <concepts>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::json {

namespace detail {
/// Adds the unit (as description) and the usual words of a rule to a schema.
std::string annotated(std::string schema, const Rule& rule);
}  // namespace detail

class Schema {
 public:
  /// The schema of a T for use in another one; what it needs is added to $defs.
  template <class T>
  std::string of(const Rule& rule = no_rule);

  /// One document of one T. `section` of the specification tells people where it comes from.
  template <class T>
  void add_document(std::string_view section) {
    roots_.push_back(detail::annotated(of<T>(), {.unit = section}));
  }

  /// The whole schema, pretty-printed, with a newline at the end. One document: it; several: one of them.
  std::string text(std::string_view title) const;

 private:
  /// Whether `name` must still be described; reserves its place, so that order is that of first use.
  bool begin_definition(std::string_view name);
  void end_definition(std::string_view name, std::string schema);
  std::string text_form(std::string_view name, std::string_view pattern, std::string_view description);
  template <class T>
  std::string struct_schema();
  template <class E>
  std::string words_schema();

  std::vector<std::string> roots_;
  std::vector<std::pair<std::string, std::string>> definitions_;
};

namespace detail {

std::string reference(std::string_view name);
std::string number_schema(double min, double max);
std::string integer_schema(std::string min, std::string max, const Rule& rule);
/// Compact JSON as an indented text.
std::string pretty(std::string_view compact);

template <class Integer>
std::string bounded_integer(const Rule& rule, Integer min, Integer max) {
  const auto text = [](double bound, Integer end) {
    const bool none = bound <= std::numeric_limits<double>::lowest() || bound >= std::numeric_limits<double>::max();
    return to_text(none ? end : static_cast<Integer>(bound));
  };
  return integer_schema(text(rule.min, min), text(rule.max, max), rule);
}

template <class T>
inline constexpr bool is_id_type = false;
template <class Tag>
inline constexpr bool is_id_type<Id<Tag>> = true;
template <class T>
inline constexpr bool is_number_type = false;
template <class Tag>
inline constexpr bool is_number_type<Number<Tag>> = true;

}  // namespace detail

template <class T>
std::string Schema::of(const Rule& rule) {
  using detail::annotated;
  if constexpr (is_optional<T>) {
    return cat("{\"anyOf\":[", of<typename T::value_type>(rule), ",{\"type\":\"null\"}]}");
  } else if constexpr (is_vector<T>) {
    return cat("{\"type\":\"array\",\"items\":", of<typename T::value_type>(rule), "}");
  } else if constexpr (is_map<T>) {
    return cat("{\"type\":\"object\",\"additionalProperties\":", of<typename MapValue<T>::type>(rule), "}");
  } else if constexpr (std::is_same_v<T, bool>) {
    return annotated("{\"type\":\"boolean\"}", rule);
  } else if constexpr (std::is_floating_point_v<T>) {
    return annotated(detail::number_schema(rule.min, rule.max), rule);
  } else if constexpr (std::is_same_v<T, Ratio> || std::is_same_v<T, Percent>) {
    const double end = std::is_same_v<T, Ratio> ? 1 : 100;
    return annotated(detail::number_schema(std::max(rule.min, 0.0), std::min(rule.max, end)), rule);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    constexpr std::uint64_t end = std::numeric_limits<std::int64_t>::max();
    Rule bytes = rule;
    bytes.unit = "bytes";
    return annotated(detail::bounded_integer<std::uint64_t>(rule, 0, end), bytes);
  } else if constexpr (std::is_same_v<T, WallTime>) {
    return annotated(of<std::int64_t>(rule), rule);
  } else if constexpr (std::integral<T>) {
    using Bounds = std::numeric_limits<T>;
    return annotated(detail::bounded_integer<T>(rule, Bounds::min(), Bounds::max()), rule);
  } else if constexpr (detail::is_number_type<T>) {
    return of<std::uint64_t>(rule);
  } else if constexpr (std::is_same_v<T, std::string> || detail::is_id_type<T>) {
    return annotated("{\"type\":\"string\"}", rule);
  } else if constexpr (std::is_same_v<T, RawJson>) {
    return "true";
  } else if constexpr (std::is_same_v<T, SizeText>) {
    return annotated(text_form("SizeText", "^[0-9]+(\\.[0-9]+)?(B|KB|MB|GB|TB)?$", "8GB is 8 * 2^30 bytes"), rule);
  } else if constexpr (std::is_same_v<T, DurationText>) {
    return annotated(text_form("DurationText", "^[0-9]+(\\.[0-9]+)?(ms|s|min|h)$", "a length of time: 30s, 5min"),
                     rule);
  } else if constexpr (std::is_same_v<T, Timestamp>) {
    return annotated(text_form("Timestamp",
                               "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:"
                               "([0-5][0-9]|60)(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$",
                               "RFC 3339"),
                     rule);
  } else if constexpr (is_described_enum<T>) {
    return words_schema<T>();
  } else {
    return struct_schema<T>();
  }
}

template <class E>
std::string Schema::words_schema() {
  constexpr std::string_view name = type_name<E>();
  if (begin_definition(name)) {
    std::string words;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<E>>(
        [&](auto each) { words += cat(words.empty() ? "" : ",", "\"", each.name, "\""); });
    end_definition(name, cat("{\"enum\":[", words, "]}"));
  }
  return detail::reference(name);
}

template <class T>
std::string Schema::struct_schema() {
  constexpr std::string_view name = type_name<T>();
  if (begin_definition(name)) {
    std::string properties;
    std::string required;
    const auto add = [](std::string& list, const std::string& each) { list += cat(list.empty() ? "" : ",", each); };
    if constexpr (requires { T::event_type; }) {
      add(properties, cat("\"event_type\":{\"const\":\"", T::event_type, "\"}"));
      add(required, "\"event_type\"");
    }
    boost::mp11::mp_for_each<Members<T>>([&](auto member) {
      using Field = std::remove_cvref_t<decltype(std::declval<T>().*member.pointer)>;
      add(properties, cat("\"", member.name, "\":", of<Field>(rule_of<T, decltype(member)>())));
      if constexpr (!is_optional<Field>) add(required, cat("\"", member.name, "\""));
    });
    end_definition(name, cat("{\"type\":\"object\",\"properties\":{", properties, "},\"required\":[", required,
                             "],\"additionalProperties\":true}"));
  }
  return detail::reference(name);
}

}  // namespace lockstep::json
