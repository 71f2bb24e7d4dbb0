#pragma once

// What a worker was told and has applied (§2.1 to 2.6): the view that its handlers have of what is decided elsewhere.
// A copy of one moment, for any thread. docs/worker_sdk.md has it in Python.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/device_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"

namespace lockstep::worker {

/// What this worker was told of another device (§2.7). Absent where it was never told.
struct Peer {
  std::optional<DeviceHealthUpdate> health;
  std::optional<VramUsageUpdate> memory;
};
BOOST_DESCRIBE_STRUCT(Peer, (), (health, memory))

/// models            that are whole in the cache in RAM: a load of one of them reads no disk
/// available_models  that there are at all
struct ModelCache {
  std::vector<ModelId> models;
  Ratio cache_utilization;
  std::uint64_t available_models = 0;
};
BOOST_DESCRIBE_STRUCT(ModelCache, (), (models, cache_utilization, available_models))

/// device_id      this worker's own; empty before its first welcome
/// settings       of the device, as it has them: a power limit that the driver refused is not there
/// system_memory  the cache in RAM: what it holds, and what is left of its limit
/// peers          other devices, by their ids
/// Absent where nothing was told: the defaults hold.
struct Told {
  DeviceId device_id;
  DeviceChanges settings;
  MemoryPolicyChanges memory_policy;
  Ordered<DeviceId> routing_table;
  std::optional<SystemMemoryAllocated> system_memory;
  std::optional<ModelCache> model_cache;
  std::optional<SafetyPolicyUpdate> safety_policy;
  std::map<std::string, Peer> peers;
};
BOOST_DESCRIBE_STRUCT(Told, (),
                      (device_id, settings, memory_policy, routing_table, system_memory, model_cache, safety_policy,
                       peers))

}  // namespace lockstep::worker
