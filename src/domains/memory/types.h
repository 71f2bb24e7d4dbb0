#pragma once

// Memory domain, §1.2: the ledger of every device. Each byte that a worker holds has a row here.

#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/memory/lifecycle.h"

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

}  // namespace lockstep::memory
