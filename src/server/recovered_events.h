#pragma once

// The events of the newest commits that the journal still has, for the history of the event stream.

#include <vector>

#include "journal/store.h"
#include "orchestrator/effect.h"

namespace lockstep::server {

struct RecoveredEvents {
  Rev floor;                         // commits up to here are not among them
  std::vector<out::Publish> events;  // in rev order; only commits that have events
};

/// From at most `records_max` records. data_loss when a past one is no commit; the others were applied already.
Result<RecoveredEvents> recovered_events(const Recovered& recovered, std::size_t records_max);

}  // namespace lockstep::server
