#pragma once

// Several messages of §2 say only what is to be different. What a worker shall know is then all of them together: a
// worker that was away, or a new process, is told the sum and not the last difference.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "events/device_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"

namespace lockstep {

namespace merge_detail {
template <class T>
void keep(std::optional<T>& now, const std::optional<T>& before) {
  if (!now) now = before;
}
/// `list` and what is in `more`, without what is in `less`; in order of first appearance.
inline std::vector<ModelId> sum(std::vector<ModelId> list, const std::vector<ModelId>& more,
                                const std::vector<ModelId>& less) {
  for (const ModelId& each : more) {
    if (std::ranges::find(list, each) == list.end()) list.push_back(each);
  }
  std::erase_if(list, [&](const ModelId& each) { return std::ranges::find(less, each) != less.end(); });
  return list;
}
}  // namespace merge_detail

/// A message that says everything replaces the one before it.
template <class Body>
Body merged(const Body&, Body now) {
  return now;
}
inline DeviceConfigUpdate merged(const DeviceConfigUpdate& before, DeviceConfigUpdate now) {
  merge_detail::keep(now.changes.optimization_profile, before.changes.optimization_profile);
  merge_detail::keep(now.changes.power_limit, before.changes.power_limit);
  merge_detail::keep(now.changes.memory_allocation_policy, before.changes.memory_allocation_policy);
  return now;
}
inline MemoryPolicyUpdate merged(const MemoryPolicyUpdate& before, MemoryPolicyUpdate now) {
  merge_detail::keep(now.policy_changes.max_model_cache_size, before.policy_changes.max_model_cache_size);
  merge_detail::keep(now.policy_changes.vram_reservation_limit, before.policy_changes.vram_reservation_limit);
  merge_detail::keep(now.policy_changes.emergency_cleanup_threshold,
                     before.policy_changes.emergency_cleanup_threshold);
  return now;
}
inline ModelCacheUpdate merged(const ModelCacheUpdate& before, ModelCacheUpdate now) {
  CacheChanges& changes = now.cache_changes;
  const CacheChanges& old = before.cache_changes;
  const std::vector<ModelId> added = merge_detail::sum(old.added, changes.added, changes.removed);
  changes.removed = merge_detail::sum(old.removed, changes.removed, changes.added);
  changes.added = added;
  return now;
}

}  // namespace lockstep
