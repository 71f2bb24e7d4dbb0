#pragma once

// model_cache_update says only what is different. What a worker shall know is then all of them together: a worker that
// was away, or a new process, is told the sum and not the last difference. Every other message of §2 that is delivered
// says everything: a setting that is absent is the default again.

#include <algorithm>
#include <vector>

#include "events/model_events.h"

namespace lockstep {

namespace merge_detail {
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
inline ModelCacheUpdate merged(const ModelCacheUpdate& before, ModelCacheUpdate now) {
  CacheChanges& changes = now.cache_changes;
  const CacheChanges& old = before.cache_changes;
  const std::vector<ModelId> added = merge_detail::sum(old.added, changes.added, changes.removed);
  changes.removed = merge_detail::sum(old.removed, changes.removed, changes.added);
  changes.added = added;
  return now;
}

}  // namespace lockstep
