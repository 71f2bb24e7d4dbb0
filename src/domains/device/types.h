#pragma once

// Device domain, §1.1: which devices there are, what state they are in, and who holds one for an operation.

#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/device/lifecycle.h"
#include "events/ordered.h"

namespace lockstep::device {

enum class Kind { cpu, cuda };
BOOST_DESCRIBE_ENUM(Kind, cpu, cuda)

/// memory_budget is what models on this device may hold together. One worker owns one device.
struct Device {
  DeviceId device_id;
  WorkerId worker_id;
  Kind kind = Kind::cpu;
  Bytes memory_budget;
  Availability availability = Availability::offline;
  std::string reason;  // why it is not online
};
BOOST_DESCRIBE_STRUCT(Device, (), (device_id, worker_id, kind, memory_budget, availability, reason))

/// What a device can do, as its worker found it; the scores are 0 to 10. Its rev is the row's.
/// calibrated_at    when it was last measured because a person asked; a start of its worker measures too
struct Capabilities {
  DeviceId device_id;
  std::string name;
  std::string driver_version;
  std::vector<std::string> capabilities;
  Ordered<double> scores;
  std::optional<WallTime> calibrated_at;
};
BOOST_DESCRIBE_STRUCT(Capabilities, (), (device_id, name, driver_version, capabilities, scores, calibrated_at))

/// Exclusive per device: one load lane, since copies over one bus only slow each other down (design §7).
struct Reservation {
  DeviceId device_id;
  TransactionId transaction_id;
  std::string operation_type;  // "model_loading"
  ModelId model_id;
};
BOOST_DESCRIBE_STRUCT(Reservation, (), (device_id, transaction_id, operation_type, model_id))

}  // namespace lockstep::device
