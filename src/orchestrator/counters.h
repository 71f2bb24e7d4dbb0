#pragma once

// What the orchestrator did since its start, as plain numbers for /metrics. No decision reads them. Most come from the
// commits themselves: a row that changes is an event that is counted, so a new way to change it cannot be forgotten.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/histogram.h"
#include "base/ids.h"
#include "operations/tables.h"

namespace lockstep {

using Count = std::uint64_t;

/// Keys are names of enumerators, of the error table, and of configured workers: a bounded set each.
struct Counters {
  std::map<std::string, Count> requests_accepted;           // by kind
  std::map<std::string, Count> requests_refused;            // by error code
  std::map<std::string, Count> requests_ended;              // by state
  std::map<processing::JobStage, Count> jobs;               // how many there are in each stage now
  std::map<processing::JobStage, Count> jobs_ended;         // since the start
  std::map<processing::JobStage, Histogram> stage_seconds;  // in a stage that was left for the next
  Histogram job_seconds;                                    // accepted to stored
  Histogram load_seconds;                                   // decided to loaded
  Count loads_failed = 0;                                   // decided, and undone before they were loaded
  Count releases = 0;                                       // models that left a worker's memory
  Count transactions_committed = 0;
  Count cache_hits = 0;    // components a load found in the cache
  Count cache_misses = 0;  // components that had to be filled
  Count cache_evictions = 0;
  std::map<WorkerId, Count> worker_starts;
  std::map<std::pair<WorkerId, std::string>, Count> worker_deaths;  // by worker and cause
  std::map<WorkerId, Count> frames_refused;
  std::map<std::pair<WorkerId, std::string>, Count> writes_refused;  // by worker and fact: not its own
  std::map<std::pair<WorkerId, std::string>, Count> events_not_yet;  // by worker and frame type: no effect so far
  Count set_aside = 0;
  Count commands_sent = 0;                         // frames of state changes
  Count commands_throttled = 0;                    // had to wait for room on their link
  std::array<Count, 4> redelivered{};              // changes that were sent again, by lane
  std::map<std::string, Count> requests_answered;  // of workers, by outcome
  Count cache_collected = 0;                       // segments dropped for lying idle, pressure or a smaller limit
  Count leaks_suspected = 0;

  // When what goes on now began; not for work that an earlier life began.
  std::map<JobId, Nanos> job_accepted;
  std::map<JobId, Nanos> stage_entered;
  std::map<std::string, Nanos> load_decided;  // key of the residency
};

/// "signal", "exit", "ended" (by us, for misbehaving), "not_started", "requested" or "other".
std::string_view death_cause(std::string_view how, bool ours, bool ended_for_a_reason);

/// What one commit changes, seen before and after it is applied.
class CommitCount {
 public:
  CommitCount(const Tables& before, const Commit& commit);
  /// now: absent while a journal is replayed, when only what exists is counted.
  void applied(const Tables& after, std::optional<Nanos> now, Counters& counters) const;

 private:
  std::map<std::string, std::optional<processing::JobStage>> jobs_;
  std::map<std::string, std::optional<processing::RequestState>> requests_;
  std::map<std::string, std::optional<model::ResidencyState>> residencies_;
  std::map<std::string, Incarnation> workers_;
  Count decisions_ = 0;  // new ones
};

}  // namespace lockstep
