#pragma once

// `lockstep bench propagation`: an event from a worker's process through the orchestrator's to another worker's, beside
// the same bytes over the same hops without any check, and beside Redis and NATS where they are installed, in one run.
// docs/performance.md says how to read the rows.

#include <array>
#include <string_view>

#include "base/result.h"
#include "bench/report.h"

namespace lockstep::bench {

/// samples   latency samples for each row
/// messages  for each throughput row
/// only      the one row to measure, with those that are measured beside it; empty for all
Result<Report> propagation(int samples, int messages, std::string_view only);
/// What `only` can be.
inline constexpr std::array propagation_rows = {"volatile_one_core", "volatile_two_cores", "throughput_1",
                                                "throughput_8",      "p0_behind_p3",       "durable_1",
                                                "durable_64",        "idle_2000_cpu"};

}  // namespace lockstep::bench
