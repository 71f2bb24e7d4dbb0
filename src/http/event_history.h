#pragma once

// The newest committed events, so that a stream can go on where it was cut. They are the journal's, shown again: filled
// at recovery from its records, then by every publish. Bounded by events and by bytes; what is older is told as such,
// never skipped in silence. docs/decisions/0016-event-history.md.

#include <cstddef>
#include <deque>
#include <memory>

#include "base/ids.h"
#include "orchestrator/effect.h"

namespace lockstep::http {

struct HistorySettings {
  std::size_t events_max = 10'000;
  std::size_t bytes_max = 16u << 20;  // of types, subjects and bodies
};

/// Invariant: entries in rising rev order, all events of one commit in one entry, and none is missing after floor().
class EventHistory {
 public:
  using Entry = std::shared_ptr<const out::Publish>;

  explicit EventHistory(HistorySettings settings) : settings_(settings) {}

  /// Empties it: what was committed up to `floor` is not here.
  void begin_after(Rev floor);
  /// The events of one commit; its rev is above newest(). The oldest entries go where the limits ask for it.
  void add(Entry entry);

  /// Every event of the revs after this one is here.
  Rev floor() const { return floor_; }
  /// The newest rev that was added, floor() at first.
  Rev newest() const { return newest_; }
  /// The first entry above `rev`; nullptr when there is none.
  Entry after(Rev rev) const;
  /// Newest first, as long as `wanted` returns true.
  template <class F>
  void backwards(F&& wanted) const {
    for (auto at = entries_.rbegin(); at != entries_.rend() && wanted(**at); ++at) {
    }
  }

  std::size_t events() const { return events_; }
  std::size_t bytes() const { return bytes_; }

 private:
  HistorySettings settings_;
  Rev floor_;
  Rev newest_;
  std::size_t events_ = 0;
  std::size_t bytes_ = 0;
  std::deque<Entry> entries_;
};

}  // namespace lockstep::http
