#pragma once

// What the orchestrator's step is configured with. Read once, at start; docs/configuration.md.

#include <cstdint>
#include <string>
#include <vector>

#include "base/units.h"
#include "domains/device/types.h"
#include "liveness/breaker.h"
#include "liveness/timing.h"
#include "operations/accept.h"

namespace lockstep {

struct WorkerSettings {
  WorkerId worker_id;
  DeviceId device_id;
  device::Kind kind = device::Kind::cpu;
  Bytes memory_budget;
  std::uint32_t gpu = 0;  // which of the machine's GPUs, for cuda
};

struct Settings {
  std::string version;
  std::vector<WorkerSettings> workers;
  std::string schema_digest;  // events/packed.h; workers that announce the same get packed frames. Empty: JSON only
  Bytes cache_limit{16ULL << 30};  // RAM for segments
  Bytes disk_low_water = 512_MiB;  // of the data directory's disk; with less nothing new is accepted
  Nanos prepare_deadline = seconds(5);
  LivenessTiming timing;
  BreakerPolicy breaker;
  AcceptSettings accept;
};

}  // namespace lockstep
