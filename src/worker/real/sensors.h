#pragma once

// What a worker reads of its device, measures, and sets: the GPU through its driver, a processor through the kernel. A
// driver can take seconds to answer, or hang; so a thread of its own talks to it, and a request to read while it reads
// is dropped.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "events/device_events.h"
#include "worker/machine.h"

namespace lockstep::worker {

class Sensors {
 public:
  /// device   "cpu", or "cuda:N" with N counted as CUDA_VISIBLE_DEVICES makes this process count
  /// sampled  called on the sensors' thread with each reading
  /// library  the NVIDIA driver's, by name or path
  Sensors(std::string device, std::function<void(in::Telemetry)> sampled, std::string library = "libnvidia-ml.so.1");
  /// Waits for a reading or a measurement under way.
  ~Sensors();
  Sensors(const Sensors&) = delete;
  Sensors& operator=(const Sensors&) = delete;

  /// Reads soon, unless it reads already. Any thread.
  void sample();
  /// Sets the GPU's power limit, or with none the driver's own again; then calls `done` on the sensors' thread with why
  /// it is not set, or with nothing. An order that has not begun is replaced by the next, and its `done` not called.
  /// Any thread.
  void set_power_limit(std::optional<std::uint32_t> watts, std::function<void(std::string refused)> done);
  /// Finds what the device can do (worker/real/probe.h), then calls `done` on the sensors' thread; unavailable when its
  /// driver cannot be asked, which is tried again each time. Any thread.
  void probe(std::function<void(Result<DeviceCapabilityDiscovered>)> done);
  /// What the framework's allocator says, where mappings do not tell. Any thread.
  void tell(AllocatorStatistics statistics);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The GPU that "cuda:N" means to the driver, where `visible` is CUDA_VISIBLE_DEVICES ("" when it is not set).
std::string driver_index(const std::string& device, const std::string& visible);

}  // namespace lockstep::worker
