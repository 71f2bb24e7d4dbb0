#pragma once

// What the kernel says of the processor and its memory: the counterpart of nvml.h for a `cpu` device. Virtual machines
// and containers show little of it; what they do not show is absent.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/units.h"

namespace lockstep::real {

struct HostReading {
  std::optional<double> temperature;           // degrees Celsius, the hottest zone
  std::optional<double> power_draw;            // watts of all packages, since the reading before
  std::optional<std::uint64_t> memory_errors;  // uncorrected, since boot
  std::optional<std::uint64_t> throttled;      // times that any core was slowed down for heat, since boot
  Bytes memory_total;
  Bytes memory_used;     // what is not available to a new process
  Bytes process_memory;  // resident, of this process
};

/// Keeps the reading before. One thread.
class HostSensors {
 public:
  /// root: where sys/ and proc/ are; a test has its own.
  explicit HostSensors(std::string root = "/");
  HostReading read();
  std::string name() const;  // of the processor

 private:
  std::string root_;
  std::optional<double> energy_before_;  // joules
  std::chrono::steady_clock::time_point read_before_;
};

}  // namespace lockstep::real
