#pragma once

// What people who only listen cost the server: memory for one more, and processor time of 2,000 who hear nothing.

#include <string>

#include "base/result.h"

namespace lockstep::bench {

struct IdleCost {
  double bytes_each = 0;   // resident memory of the server, by one more event stream
  double cpu_percent = 0;  // of one core, while all of them hear nothing
  double cpu_without = 0;  // the same before they came
};

/// A server of its own below `folder`, without workers. resource_exhausted where not so many descriptors may be open.
Result<IdleCost> idle_streams(const std::string& folder, int clients);

}  // namespace lockstep::bench
