#pragma once

// What a measured quantity usually is, and how far a reading departs from it (§1.1, performance baseline and
// deviation): mean and spread over its recent past, forgetting slowly. Pure.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "events/device_events.h"

namespace lockstep::worker {

class Baseline {
 public:
  /// 30 readings before it says anything: fewer give no spread to speak of. About the last 100 count.
  static constexpr std::uint32_t established_after = 30;
  static constexpr double memory = 100;
  /// Four standard deviations: once in 16,000 readings by chance.
  static constexpr double departs_at = 4;

  void add(double reading);
  bool established() const { return readings_ >= established_after; }
  double mean() const { return mean_; }
  double spread() const;
  /// In standard deviations, signed; absent before it is established.
  std::optional<double> deviation(double reading) const;

 private:
  std::uint32_t readings_ = 0;
  double mean_ = 0;
  double variance_ = 0;
};

/// The baselines of one worker by name, and which newest readings depart from theirs.
class Baselines {
 public:
  void add(const std::string& metric, double reading);
  std::vector<Deviation> departing() const;

 private:
  struct Metric {
    Baseline baseline;
    std::optional<Deviation> departs;  // the newest reading
  };
  // As many as there are models times sizes that people ask for; the rest goes unmeasured.
  static constexpr std::size_t metrics_max = 256;
  std::map<std::string, Metric> metrics_;
};

}  // namespace lockstep::worker
