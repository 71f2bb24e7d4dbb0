#include "events/json_schema.h"

#include <cmath>

#include "base/check.h"

namespace lockstep::json {

namespace detail {

std::string reference(std::string_view name) { return cat("{\"$ref\":\"#/$defs/", name, "\"}"); }

std::string annotated(std::string schema, const Rule& rule) {
  std::string added;
  if (!rule.unit.empty()) {
    added += ",\"description\":";
    write_string(added, rule.unit);
  }
  if (!rule.words.empty()) {
    added += ",\"x-open-words\":[";
    for (std::size_t at = 0; at <= rule.words.size();) {
      const std::size_t end = std::min(rule.words.find(", ", at), rule.words.size());
      if (at > 0) added += ',';
      write_string(added, rule.words.substr(at, end - at));
      at = end + 2;
    }
    added += ']';
  }
  schema.insert(schema.size() - 1, added);
  return schema;
}

std::string number_schema(double min, double max) {
  std::string out = "{\"type\":\"number\"";
  if (std::isfinite(min)) out += cat(",\"minimum\":", to_text(min));
  if (std::isfinite(max)) out += cat(",\"maximum\":", to_text(max));
  return out + "}";
}

std::string integer_schema(std::string min, std::string max, const Rule& rule) {
  std::string out = cat("{\"type\":\"integer\",\"minimum\":", min, ",\"maximum\":", max);
  if (rule.multiple_of != 0) out += cat(",\"multipleOf\":", rule.multiple_of);
  return out + "}";
}

std::string pretty(std::string_view compact) {
  std::string out;
  std::size_t depth = 0;
  bool in_string = false;
  const auto line = [&] {
    out += '\n';
    out.append(2 * depth, ' ');
  };
  for (std::size_t i = 0; i < compact.size(); ++i) {
    const char c = compact[i];
    if (in_string) {
      out += c;
      if (c == '\\') {
        out += compact[++i];
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '}' || c == ']') {
      --depth;
      line();
    }
    out += c;
    in_string = c == '"';
    if (c == '{' || c == '[') {
      ++depth;
      line();
    } else if (c == ',') {
      line();
    } else if (c == ':') {
      out += ' ';
    }
  }
  return out + "\n";
}

}  // namespace detail

bool Schema::begin_definition(std::string_view name) {
  for (const auto& [known, schema] : definitions_) {
    if (known == name) return false;
  }
  definitions_.emplace_back(name, "");
  return true;
}

void Schema::end_definition(std::string_view name, std::string schema) {
  for (auto& [known, text] : definitions_) {
    if (known == name) text = std::move(schema);
  }
}

std::string Schema::text_form(std::string_view name, std::string_view pattern, std::string_view description) {
  if (begin_definition(name)) {
    std::string schema = "{\"type\":\"string\",\"pattern\":";
    write_string(schema, pattern);
    schema += ",\"description\":";
    write_string(schema, description);
    end_definition(name, schema + "}");
  }
  return detail::reference(name);
}

std::string Schema::text(std::string_view title) const {
  LOCKSTEP_CHECK(!roots_.empty());
  std::string out = "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"title\":";
  write_string(out, title);
  if (roots_.size() == 1) {
    out += cat(",", roots_.front().substr(1, roots_.front().size() - 2));
  } else {
    out += ",\"oneOf\":[";
    for (std::size_t i = 0; i < roots_.size(); ++i) out += cat(i == 0 ? "" : ",", roots_[i]);
    out += ']';
  }
  out += ",\"$defs\":{";
  for (std::size_t i = 0; i < definitions_.size(); ++i) {
    out += cat(i == 0 ? "" : ",", "\"", definitions_[i].first, "\":", definitions_[i].second);
  }
  return detail::pretty(out + "}}");
}

}  // namespace lockstep::json
