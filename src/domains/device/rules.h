#pragma once

#include "base/result.h"
#include "domains/device/tables.h"

namespace lockstep::device {

/// Whether the device can be reserved for a load now (§3.1, preparation).
/// not_found, unavailable (not online), resource_exhausted (reserved by another operation).
Status may_reserve(const Tables& tables, const DeviceId& device);

/// The device row after its worker came or went.
Device after(Device device, DeviceEvent event, std::string reason);

}  // namespace lockstep::device
