#pragma once

// Limits that two domains make together: what may be granted on a device is its budget, less what its allocation
// policy keeps free (device), and at most the reservation limit (memory). §1.1, §1.2.

#include <string>

#include "operations/tables.h"

namespace lockstep {

struct DeviceLimit {
  Bytes bytes;
  std::string name;  // which one it is: "memory_budget", "memory_allocation_policy", "vram_reservation_limit"
};

DeviceLimit limit_on(const Tables& tables, const DeviceId& device);

}  // namespace lockstep
