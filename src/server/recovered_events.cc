#include "server/recovered_events.h"

#include <algorithm>

#include "state/commit.h"

namespace lockstep::server {

Result<RecoveredEvents> recovered_events(const Recovered& recovered, std::size_t records_max) {
  RecoveredEvents out;
  const std::size_t all = recovered.past.size() + recovered.records.size();
  const std::size_t skipped = all - std::min(all, records_max);
  out.floor = Rev{recovered.snapshot_at.value - recovered.past.size() + skipped};
  for (std::size_t i = skipped; i < all; ++i) {
    const bool is_past = i < recovered.past.size();
    const Record& record = is_past ? recovered.past[i] : recovered.records[i - recovered.past.size()];
    Commit commit = LOCKSTEP_TRY(decode_commit(record.body));
    if (!commit.events.empty()) out.events.push_back({commit.rev, commit.time, std::move(commit.events)});
  }
  return out;
}

}  // namespace lockstep::server
