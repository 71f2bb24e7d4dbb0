#pragma once

// `lockstep bench propagation`: an event from a worker's process through the orchestrator's to another worker's, beside
// the same bytes over the same hops without any check, and beside Redis and NATS where they are installed, in one run.
// docs/performance.md says how to read the rows.

#include "base/result.h"
#include "bench/report.h"

namespace lockstep::bench {

/// samples   latency samples for each row
/// messages  for each throughput row
Result<Report> propagation(int samples, int messages);

}  // namespace lockstep::bench
