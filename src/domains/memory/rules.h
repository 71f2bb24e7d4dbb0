#pragma once

#include "base/result.h"
#include "domains/memory/tables.h"

namespace lockstep::memory {

/// Sum of all allocations and grants on the device, whatever their state: bytes count until they are proven free.
Bytes allocated_on(const Tables& tables, const DeviceId& device);

/// What workers were granted at their request, on a device or (empty) in system RAM; of one purpose.
Bytes granted_on(const Tables& tables, const DeviceId& device);
Bytes granted_for(const Tables& tables, const DeviceId& device, std::string_view purpose);

/// What was granted on the device for one session.
Bytes granted_to(const Tables& tables, const std::string& session, const DeviceId& device);

/// Whether `wanted` more bytes fit beside what is allocated and promised (§3.1, preparation).
/// resource_exhausted names the numbers.
Status may_reserve(const Tables& tables, const DeviceId& device, Bytes budget, Bytes promised, Bytes wanted);

/// The allocation after an event; an event its state does not accept is a defect.
Allocation after(Allocation allocation, AllocationEvent event);

}  // namespace lockstep::memory
