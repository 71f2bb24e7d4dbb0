#include "sim/shrink.h"

#include <algorithm>
#include <cstddef>

namespace lockstep::sim {

namespace {

std::string without_numbers(std::string text) {
  std::erase_if(text, [](char c) { return c >= '0' && c <= '9'; });
  return text;
}

}  // namespace

std::string first_violation(const Report& report) { return report.violations.empty() ? "" : report.violations.front(); }

std::optional<Shrunk> shrink(Options options, const Judge& judge) {
  options.trace = false;
  Shrunk out;
  const auto run_with = [&](const std::vector<Occurrence>& faults) {
    options.just.emplace(faults.begin(), faults.end());
    ++out.runs;
    return judge(run(options));
  };
  const Report whole = run(options);
  out.what = judge(whole);
  if (out.what.empty()) return std::nullopt;
  out.kept = whole.met;
  const std::string same = without_numbers(out.what);
  // Pieces of halves, then quarters, down to single ones; each that is not needed goes.
  for (std::size_t pieces = 2; !out.kept.empty();) {
    const std::size_t size = (out.kept.size() + pieces - 1) / pieces;
    bool smaller = false;
    for (std::size_t at = 0; at < out.kept.size() && !smaller; at += size) {
      std::vector<Occurrence> rest = out.kept;
      const auto begin = rest.begin() + static_cast<std::ptrdiff_t>(at);
      rest.erase(begin, begin + static_cast<std::ptrdiff_t>(std::min(size, rest.size() - at)));
      const std::string found = run_with(rest);
      if (without_numbers(found) != same) continue;
      out.what = found;
      out.kept = std::move(rest);
      smaller = true;
    }
    if (!smaller && size == 1) break;
    pieces = smaller ? std::max<std::size_t>(pieces - 1, 2) : std::min(pieces * 2, out.kept.size());
  }
  return out;
}

}  // namespace lockstep::sim
