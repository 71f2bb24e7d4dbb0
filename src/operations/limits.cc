#include "operations/limits.h"

namespace lockstep {

DeviceLimit limit_on(const Tables& tables, const DeviceId& device) {
  const device::Device* row = tables.device.devices.find(device.str());
  if (row == nullptr) return {Bytes{}, "memory_budget"};
  const Bytes by_policy = device::grantable(row->memory_budget, tables.device.config_of(device));
  const Bytes limit = memory::device_limit(tables.memory.policy(), by_policy);
  if (limit < by_policy) return {limit, "vram_reservation_limit"};
  return {limit, by_policy < row->memory_budget ? "memory_allocation_policy" : "memory_budget"};
}

}  // namespace lockstep
