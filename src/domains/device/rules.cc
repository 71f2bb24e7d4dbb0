#include "domains/device/rules.h"

#include "base/check.h"
#include "base/text.h"

namespace lockstep::device {

Status may_reserve(const Tables& tables, const DeviceId& device) {
  const Device* row = tables.devices.find(device.str());
  if (row == nullptr) return fail(ErrorCode::not_found, cat("there is no device ", device.str()));
  if (row->availability != Availability::online) {
    return fail(ErrorCode::unavailable, cat("device ", device.str(), " is not online: ", row->reason));
  }
  if (const Reservation* held = tables.reservations.find(device.str())) {
    return fail(ErrorCode::resource_exhausted,
                cat("device ", device.str(), " is reserved for ", held->operation_type, " of ", held->model_id.str()));
  }
  return {};
}

Device after(Device device, DeviceEvent event, std::string reason) {
  const auto next = device_lifecycle.next(device.availability, event);
  LOCKSTEP_CHECK(next.has_value());
  const bool still_in_error = device.availability == Availability::error && *next == Availability::error;
  device.availability = *next;
  if (!still_in_error) device.reason = std::move(reason);
  return device;
}

}  // namespace lockstep::device
