#pragma once

// Memory domain, §1.2: the ledger of every device. Each byte that a worker holds has a row here.

#include <string>
#include <string_view>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/memory/lifecycle.h"
#include "events/memory_events.h"

namespace lockstep::memory {

struct Allocation {
  AllocationId allocation_id;
  DeviceId device_id;
  WorkerId worker_id;
  Incarnation incarnation;
  Bytes bytes;
  std::string purpose;  // "model"
  ModelId model_id;
  AllocationState state = AllocationState::allocated;
};
BOOST_DESCRIBE_STRUCT(Allocation, (),
                      (allocation_id, device_id, worker_id, incarnation, bytes, purpose, model_id, state))

/// A filled cache segment. identity is what the kernel says of this very memory file: a descriptor that a worker gives
/// back after a restart is this segment when its identity is the same, whatever the worker says.
struct Segment {
  ModelId model_id;
  std::string component;
  Bytes bytes;
  std::string sha256;  // of the component's files
  std::string identity;
};
BOOST_DESCRIBE_STRUCT(Segment, (), (model_id, component, bytes, sha256, identity))

/// The pressure in a pool: "system_ram" or a device id. Rows are written when the level changes.
struct Pressure {
  std::string pool;
  PressureLevel level = PressureLevel::low;
  Ratio share;
  WallTime since;
};
BOOST_DESCRIBE_STRUCT(Pressure, (), (pool, level, share, since))

inline constexpr std::string_view system_ram = "system_ram";

inline std::string segment_key(const ModelId& model, const std::string& component) {
  return model.str() + "/" + component;
}

}  // namespace lockstep::memory
