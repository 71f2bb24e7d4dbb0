#pragma once

// What an NVIDIA driver says of one GPU, through NVML, which is loaded when the program runs: a machine without the
// driver is a normal machine. Calls may take as long as the driver likes, so nobody waits for them on a loop's thread.

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace lockstep::real {

/// A reading that the driver refuses, or that this GPU does not have, is absent.
struct GpuReading {
  std::optional<double> temperature;  // degrees Celsius
  std::optional<double> power_draw;   // watts
  std::optional<double> power_limit;  // watts, as enforced
  std::optional<Percent> utilization;
  std::optional<Bytes> memory_total;
  std::optional<Bytes> memory_used;                          // by everybody
  std::optional<Bytes> process_memory;                       // by this process, as the driver sees it
  std::optional<std::uint64_t> memory_errors;                // uncorrected, since the driver was loaded
  std::optional<std::vector<std::string>> throttle_reasons;  // empty: its clocks are not held down
};

/// Of the GPU's architecture: 8.9 is {8, 9}.
struct ComputeCapability {
  int major = 0;
  int minor = 0;
  friend auto operator<=>(const ComputeCapability&, const ComputeCapability&) = default;
};

/// What a GPU is made for. The clocks are the highest that it can have, not those of the moment.
struct GpuFacts {
  std::optional<ComputeCapability> compute_capability;
  std::optional<unsigned> cores;             // of all multiprocessors
  std::optional<unsigned> clock_max;         // MHz, of the multiprocessors
  std::optional<unsigned> memory_clock_max;  // MHz
  std::optional<unsigned> memory_bus_width;  // bits
  std::optional<bool> encodes_h264;          // it has an encoder, and room in it now
};

/// One GPU. Used by one thread at a time.
class NvmlGpu {
 public:
  /// which    a number in PCI order, or "GPU-<uuid>" (as CUDA_VISIBLE_DEVICES may say)
  /// library  the driver's library by name or path
  /// unavailable when there is no driver or no such GPU, with what was tried.
  static Result<std::unique_ptr<NvmlGpu>> open(const std::string& which,
                                               const std::string& library = "libnvidia-ml.so.1");
  ~NvmlGpu();
  NvmlGpu(const NvmlGpu&) = delete;
  NvmlGpu& operator=(const NvmlGpu&) = delete;

  const std::string& name() const { return name_; }
  const std::string& driver_version() const { return driver_version_; }

  GpuReading read(std::int64_t pid) const;
  /// A fact that this driver or this GPU does not tell is absent.
  GpuFacts facts() const;
  /// not_owner when this process may not (it needs root), invalid_argument outside the GPU's range. §2.1 power_limit
  Status set_power_limit(double watts);
  /// Back to the driver's own; the same errors.
  Status reset_power_limit();

 private:
  struct Library;
  explicit NvmlGpu(std::unique_ptr<Library> library);

  std::unique_ptr<Library> library_;
  void* device_ = nullptr;
  std::string name_;
  std::string driver_version_;
};

}  // namespace lockstep::real
