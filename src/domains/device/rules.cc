#include "domains/device/rules.h"

#include "base/text.h"

namespace lockstep::device {

Status may_reserve(const Tables& tables, const DeviceId& device) {
  const Device* row = tables.devices.find(device.str());
  if (row == nullptr) return fail(ErrorCode::not_found, cat("there is no device ", device.str()));
  if (row->availability != Availability::online) {
    return fail(ErrorCode::unavailable, cat("device ", device.str(), " is not online: ", row->reason));
  }
  if (const Reservation* held = tables.reservations.find(device.str())) {
    return fail(ErrorCode::resource_exhausted, cat("device ", device.str(), " is reserved for ", held->operation_type,
                                                   " of ", held->model_id.str()));
  }
  return {};
}

Device with_availability(Device device, Availability availability, std::string reason) {
  device.availability = availability;
  device.reason = std::move(reason);
  return device;
}

}  // namespace lockstep::device
