#pragma once

// Memory that workers asked for (§2.2 memory_allocation_request): a row of the ledger for each grant, until it lapses,
// is given back, or its worker is proven gone.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "domains/memory/policy.h"
#include "state/table.h"

namespace lockstep::memory {

/// device_id  empty: system RAM
/// lasts      from its grant or its renewal
/// session_id it goes with this session's end, where it was asked for one (§2.4)
/// until      its end on the wall clock, armed again after a start; rows of earlier versions lack it, and a grant
///            without an end
struct Grant {
  AllocationId allocation_id;
  std::string request_id;
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  std::string purpose;
  Bytes bytes;
  Nanos lasts = 0;
  std::optional<std::string> session_id;
  std::optional<WallTime> until;
};
BOOST_DESCRIBE_STRUCT(Grant, (),
                      (allocation_id, request_id, worker_id, incarnation, device_id, purpose, bytes, lasts, session_id,
                       until))

/// One pool as an admission sees it. reserved: what is kept for others (a policy's share, the system's reserve).
struct PoolState {
  std::string name;  // "system_ram" or the device
  Bytes total;
  Bytes used;
  Bytes held_for_purpose;
  std::string limit_name;  // which limit `total` is: "memory_budget", "vram_reservation_limit", ...
};

/// Whether bytes may be granted now. `never` says that waiting does not help.
struct Admission {
  bool granted = false;
  bool never = false;
  std::string reason;
};
Admission admit(const PoolState& pool, Bytes wanted, std::string_view purpose, const Policy& policy);

/// Purposes whose memory is the device's; all others are the system's RAM.
bool is_device_purpose(std::string_view purpose);

}  // namespace lockstep::memory
