#include "base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/text.h"

namespace lockstep {

namespace {

struct NumberAndUnit {
  double number;
  std::string_view unit;
};

std::optional<NumberAndUnit> split(std::string_view text) {
  const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  double number = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  // "8", "8.25"; not "inf", ".5", "8." or "8e3": the pattern in the JSON Schema says the same.
  if (end.ec != std::errc{} || !std::isfinite(number) || !digit(0)) return std::nullopt;
  if (!digit(static_cast<std::size_t>(end.ptr - text.data()) - 1)) return std::nullopt;
  return NumberAndUnit{number, text.substr(static_cast<std::size_t>(end.ptr - text.data()))};
}

std::optional<int> two_digits(std::string_view text, std::size_t at) {
  if (at + 2 > text.size()) return std::nullopt;
  const char a = text[at];
  const char b = text[at + 1];
  if (a < '0' || a > '9' || b < '0' || b > '9') return std::nullopt;
  return (a - '0') * 10 + (b - '0');
}

// Days since 1970-01-01 of a proleptic Gregorian date, and back (the usual era arithmetic).
std::int64_t days_from_civil(std::int64_t y, int m, int d) {
  y -= m <= 2;
  const std::int64_t era = (y >= 0 ? y : y - 399) / 400;
  const std::int64_t yoe = y - era * 400;
  const std::int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct Civil {
  std::int64_t year;
  int month;
  int day;
};

Civil civil_from_days(std::int64_t z) {
  z += 719468;
  const std::int64_t era = (z >= 0 ? z : z - 146096) / 146097;
  const std::int64_t doe = z - era * 146097;
  const std::int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  const std::int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  const std::int64_t mp = (5 * doy + 2) / 153;
  const int day = static_cast<int>(doy - (153 * mp + 2) / 5 + 1);
  const int month = static_cast<int>(mp < 10 ? mp + 3 : mp - 9);
  return {yoe + era * 400 + (month <= 2), month, day};
}

void pad(std::string& out, std::int64_t number, int width) {
  std::string digits = cat(number);
  while (static_cast<int>(digits.size()) < width) digits.insert(digits.begin(), '0');
  out += digits;
}

}  // namespace

std::string to_text(Bytes bytes) {
  static constexpr std::array<std::pair<std::string_view, int>, 4> units{
      {{"TB", 40}, {"GB", 30}, {"MB", 20}, {"KB", 10}}};
  for (const auto& [name, shift] : units) {
    if (bytes.value >> shift == 0) continue;
    const double tenths = std::round(static_cast<double>(bytes.value) / static_cast<double>(1ULL << shift) * 10);
    const auto whole = static_cast<std::uint64_t>(tenths) / 10;
    const auto rest = static_cast<std::uint64_t>(tenths) % 10;
    return rest == 0 ? cat(whole, name) : cat(whole, ".", rest, name);
  }
  return cat(bytes.value, "B");
}

Result<Bytes> bytes_from_text(std::string_view text) {
  const auto parts = split(text);
  if (parts) {
    static constexpr std::array<std::pair<std::string_view, int>, 6> units{
        {{"", 0}, {"B", 0}, {"KB", 10}, {"MB", 20}, {"GB", 30}, {"TB", 40}}};
    for (const auto& [name, shift] : units) {
      const double value = parts->number * static_cast<double>(1ULL << shift);
      if (parts->unit == name && value < 9.0e18) return Bytes{static_cast<std::uint64_t>(std::llround(value))};
    }
  }
  return fail(ErrorCode::invalid_argument,
              cat("\"", shortened(text), "\" is not a size; expected a number and B, KB, MB, GB or TB, as in \"8GB\""));
}

Result<Nanos> duration_from_text(std::string_view text) {
  const auto parts = split(text);
  if (parts) {
    static constexpr std::array<std::pair<std::string_view, double>, 4> units{
        {{"ms", 1e6}, {"s", 1e9}, {"min", 6e10}, {"h", 3.6e12}}};
    for (const auto& [name, scale] : units) {
      if (parts->unit == name && parts->number * scale < 9.0e18) return static_cast<Nanos>(parts->number * scale);
    }
  }
  return fail(ErrorCode::invalid_argument,
              cat("\"", shortened(text), "\" is not a duration; expected a number and ms, s, min or h, as in \"30s\""));
}

std::string to_rfc3339(WallTime time) {
  std::int64_t days = time.ms / 86'400'000;
  std::int64_t rest = time.ms % 86'400'000;
  if (rest < 0) {
    rest += 86'400'000;
    --days;
  }
  const Civil date = civil_from_days(days);
  std::string out;
  pad(out, date.year, 4);
  out += '-';
  pad(out, date.month, 2);
  out += '-';
  pad(out, date.day, 2);
  out += 'T';
  pad(out, rest / 3'600'000, 2);
  out += ':';
  pad(out, rest / 60'000 % 60, 2);
  out += ':';
  pad(out, rest / 1000 % 60, 2);
  out += '.';
  pad(out, rest % 1000, 3);
  out += 'Z';
  return out;
}

Result<WallTime> wall_from_rfc3339(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorCode::invalid_argument,
                cat("\"", shortened(text), "\" is not a time; expected RFC 3339 as in \"2025-07-12T10:30:45Z\""));
  };
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':') {
    return bad();
  }
  const auto century = two_digits(text, 0);
  const auto year = two_digits(text, 2);
  const auto month = two_digits(text, 5);
  const auto day = two_digits(text, 8);
  const auto hour = two_digits(text, 11);
  const auto minute = two_digits(text, 14);
  const auto second = two_digits(text, 17);
  if (!century || !year || !month || !day || !hour || !minute || !second) return bad();
  if (*month < 1 || *month > 12 || *day < 1 || *day > 31 || *hour > 23 || *minute > 59 || *second > 60) return bad();
  std::size_t at = 19;
  std::int64_t ms = 0;
  if (text[at] == '.') {
    int digits = 0;
    std::int64_t scale = 100;
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, ++digits, scale /= 10) {
      ms += (text[at] - '0') * scale;
    }
    if (digits == 0 || digits > 9) return bad();
  }
  std::int64_t offset_minutes = 0;
  if (at >= text.size()) return bad();
  if (text[at] == 'Z') {
    if (at + 1 != text.size()) return bad();
  } else if (text[at] == '+' || text[at] == '-') {
    const auto hours = two_digits(text, at + 1);
    const auto minutes = two_digits(text, at + 4);
    if (text.size() != at + 6 || text[at + 3] != ':' || !hours || !minutes) return bad();
    offset_minutes = (*hours * 60 + *minutes) * (text[at] == '-' ? -1 : 1);
  } else {
    return bad();
  }
  const std::int64_t days = days_from_civil(*century * 100 + *year, *month, *day);
  const std::int64_t whole = days * 86'400 + *hour * 3600 + *minute * 60 + *second - offset_minutes * 60;
  return WallTime{whole * 1000 + ms};
}

}  // namespace lockstep
