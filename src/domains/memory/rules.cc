#include "domains/memory/rules.h"

#include "base/check.h"
#include "base/text.h"

namespace lockstep::memory {

Bytes allocated_on(const Tables& tables, const DeviceId& device) {
  Bytes sum;
  for (const auto& [key, entry] : tables.allocations.entries()) {
    if (entry.row.device_id == device) sum += entry.row.bytes;
  }
  return sum + granted_on(tables, device);
}

Bytes granted_on(const Tables& tables, const DeviceId& device) {
  Bytes sum;
  for (const auto& [key, entry] : tables.grants.entries()) {
    if (entry.row.device_id == device) sum += entry.row.bytes;
  }
  return sum;
}

Bytes granted_for(const Tables& tables, const DeviceId& device, std::string_view purpose) {
  Bytes sum;
  for (const auto& [key, entry] : tables.grants.entries()) {
    if (entry.row.device_id == device && entry.row.purpose == purpose) sum += entry.row.bytes;
  }
  return sum;
}

Bytes granted_to(const Tables& tables, const std::string& session, const DeviceId& device) {
  Bytes sum;
  for (const auto& [key, entry] : tables.grants.entries()) {
    if (entry.row.session_id == session && entry.row.device_id == device) sum += entry.row.bytes;
  }
  return sum;
}

Status may_reserve(const Tables& tables, const DeviceId& device, Bytes budget, Bytes promised, Bytes wanted) {
  const Bytes taken = allocated_on(tables, device) + promised;
  const Bytes free = budget - taken;
  if (wanted <= free) return {};
  return fail(ErrorCode::resource_exhausted, cat("device ", device.str(), " has ", to_text(free), " of ",
                                                 to_text(budget), " free, ", to_text(wanted), " are needed"));
}

Allocation after(Allocation allocation, AllocationEvent event) {
  const auto next = allocation_lifecycle.next(allocation.state, event);
  LOCKSTEP_CHECK(next.has_value());
  allocation.state = *next;
  return allocation;
}

}  // namespace lockstep::memory
