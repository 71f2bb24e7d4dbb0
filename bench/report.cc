#include "bench/report.h"

#include <algorithm>
#include <cstdio>

#include "base/text.h"
#include "events/json_write.h"

namespace lockstep::bench {

double percentile(std::vector<double> samples, double share) {
  std::ranges::sort(samples);
  const auto last = static_cast<double>(samples.size() - 1);
  return samples[static_cast<std::size_t>(last * share + 0.5)];
}

namespace {

std::string rounded(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", number);
  return text;
}

}  // namespace

std::string text_of(const Report& report, bool json) {
  if (json) return json::to_text(report) + "\n";
  std::string out = cat(report.machine.cpu, ", ", report.machine.cores, " cores, Linux ", report.machine.kernel, "\n");
  for (const Row& row : report.rows) {
    out += cat(row.name, ": ", rounded(row.value), " ", row.unit);
    if (row.p50) out += cat("   p50 ", rounded(*row.p50));
    if (row.p99) out += cat("   p99 ", rounded(*row.p99));
    if (row.floor) out += cat("   floor ", rounded(*row.floor));
    if (row.peers) {
      for (const auto& [peer, value] : row.peers->items) out += cat("   ", peer, " ", rounded(value));
    }
    if (row.target) out += cat(row.better == "higher" ? "   target >= " : "   target <= ", rounded(*row.target));
    out += cat("   (", row.runs.value_or(0), " runs)\n");
  }
  return out;
}

}  // namespace lockstep::bench
