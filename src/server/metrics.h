#pragma once

// /metrics: what the parts of the server count, in Prometheus' text form (version 0.0.4). Everything is read at the
// moment somebody asks; nothing runs in between. docs/formats/metrics.md lists the families.

#include <cstdint>
#include <string>

#include "base/histogram.h"
#include "http/server.h"
#include "orchestrator/machine.h"
#include "propagation/lanes.h"

namespace lockstep::server {

/// What only the driver sees. Since the start.
struct DriverCounters {
  Histogram sync{sync_bounds};  // of one append, from the call to its return
  std::uint64_t commits = 0;
  std::uint64_t snapshots = 0;
  LanesCounters lanes;  // of all worker links
};

/// Of this process, from /proc/self; what cannot be read is 0.
struct ProcessFacts {
  double cpu_seconds = 0;
  double start_seconds = 0;  // since 1970
  std::uint64_t resident_bytes = 0;
  std::uint64_t virtual_bytes = 0;
  std::uint64_t open_descriptors = 0;
  std::uint64_t descriptors_max = 0;
  std::uint64_t threads = 0;
};
ProcessFacts process_facts();

struct MetricsSource {
  const Orchestrator& machine;
  const Settings& settings;
  const DriverCounters& driver;
  http::HttpCounters http;
  ProcessFacts process;
  std::uint64_t journal_bytes = 0;
  Nanos now = 0;
};

std::string metrics_text(const MetricsSource& source);

}  // namespace lockstep::server
