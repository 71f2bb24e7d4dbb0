#pragma once

// A P0 behind a queue of P3: how long it takes through the lanes and the link that the server uses.

#include <vector>

#include "base/result.h"
#include "bench/shapes.h"

namespace lockstep::bench {

/// Microseconds from the push of a P0 event until the other process has read and checked it, while `queued` P3 events
/// wait for the same link; 0: nothing waits. One P0 after the other.
Result<std::vector<double>> urgent_us(Placement placement, int queued, int samples);

}  // namespace lockstep::bench
