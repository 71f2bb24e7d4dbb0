#include "worker/baseline.h"

#include <algorithm>
#include <cmath>

namespace lockstep::worker {

namespace {

// A quantity that hardly varies (an idle GPU's temperature) must not make every flicker a departure.
constexpr double least_relative_spread = 0.02;

}  // namespace

double Baseline::spread() const { return std::max(std::sqrt(variance_), std::abs(mean_) * least_relative_spread); }

std::optional<double> Baseline::deviation(double reading) const {
  if (!established() || spread() == 0) return std::nullopt;
  return (reading - mean_) / spread();
}

void Baseline::add(double reading) {
  // What departs is learned as if it departed just so far: one outlier moves nothing much, a lasting change becomes
  // the new normal.
  if (const auto far = deviation(reading); far && std::abs(*far) > departs_at) {
    reading = mean_ + std::copysign(departs_at * spread(), *far);
  }
  ++readings_;
  const double weight = 1.0 / std::min<double>(readings_, memory);
  const double difference = reading - mean_;
  mean_ += weight * difference;
  variance_ = (1 - weight) * (variance_ + weight * difference * difference);
}

void Baselines::add(const std::string& name, double reading) {
  const auto place = metrics_.find(name);
  if (place == metrics_.end() && metrics_.size() >= metrics_max) return;
  Metric& metric = metrics_[name];
  metric.departs.reset();
  if (const auto far = metric.baseline.deviation(reading); far && std::abs(*far) >= Baseline::departs_at) {
    metric.departs = Deviation{name, reading, metric.baseline.mean(), *far};
  }
  metric.baseline.add(reading);
}

std::vector<Deviation> Baselines::departing() const {
  std::vector<Deviation> out;
  for (const auto& [name, metric] : metrics_) {
    if (metric.departs) out.push_back(*metric.departs);
  }
  return out;
}

}  // namespace lockstep::worker
