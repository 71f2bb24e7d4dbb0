#pragma once

// What a processor can do, found at the start of a worker (§1.1 capability detection): its name, the kernel's release,
// the instruction sets that inference profits from, and one short measured score. A GPU's come from its framework.

#include <string_view>

#include "events/device_events.h"

namespace lockstep::worker {

/// Takes about 20 ms: it copies memory. device_id stays empty.
DeviceCapabilityDiscovered probe_processor();

/// From the text of /proc/cpuinfo: name and capabilities.
DeviceCapabilityDiscovered processor_of(std::string_view cpuinfo);

/// 0 to 10 for a rate of copying: 10 is 100 GB/s, what a server's memory gives to one thread at most.
double copy_score(double bytes_per_second);

}  // namespace lockstep::worker
