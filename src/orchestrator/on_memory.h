#pragma once

// The memory domain at the orchestrator (§1.2, §2.2): the ledger of RAM, policies, pressure and what is done about it,
// and what workers ask for. Each function is called from one line of the file that owns the input.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "orchestrator/turn.h"

namespace lockstep {

/// The cache's limit now: the smallest of what is configured, what the policy allows, and what its reserve leaves.
Bytes cache_limit(const Turn& turn);
memory::CacheLimit cache_limit_of(const Turn& turn);
/// What the last sample says there is, for this machine or for its group of processes; 0 before the first.
Bytes ram_of(const SystemRam& ram);

/// What a worker may hold beyond its ledger: a framework's own context and caches.
inline constexpr Bytes leak_tolerance = 256_MiB;

/// What is tolerated where all of `load` bytes must be gone: one that left everything must not pass for a framework.
constexpr Bytes leak_tolerance_of(Bytes load) { return std::min(leak_tolerance, Bytes{load.value / 2}); }

/// What models are in use on the device. A load that copies and a grant may hold less than their rows say: what they
/// leave proves nothing of anybody else's bytes.
Bytes models_on(const Turn& turn, const DeviceId& device);
/// The most that a device's allocator may count when nothing of a failed load of `bytes` is left beside the models.
/// before: what it counted when the load began; absent: it is not known to have held more than its models
Bytes released_at_most(Bytes models, Bytes bytes, const std::optional<QuietSample>& before);

/// A sample of a device's memory: pressure, high-water mark, and what its worker holds beyond its ledger.
/// first: of this life of its worker.
void vram_sampled(Turn& turn, const WorkerRecord& worker, const VramUsageUpdate& update, bool first);
/// memory_allocation_request: answered now, or queued until something is released.
Status memory_asked(Turn& turn, const WorkerRecord& worker, const MemoryAllocationRequest& request);
/// Memory that a worker asks for, on its device or (by its purpose) in system RAM. session_id: it goes with its end.
struct MemoryDemand {
  Bytes bytes;
  std::string purpose;
  Nanos lasts = 0;
  std::optional<std::string> session_id;
};
/// Whether it may be granted now, and if not, whether waiting helps.
memory::Admission admission_of(const Turn& turn, const WorkerRecord& worker, const MemoryDemand& demand);
/// Workers whose models alone are in the way of memory of their device that they asked for, in the order of grants.
std::vector<WorkerId> short_of_room(const Turn& turn);
/// Writes the grant of a demand that was admitted.
GrantedReservation reserve_memory(Turn& turn, const OpenRequest& request, const WorkerRecord& worker,
                                  const MemoryDemand& demand);
/// When the demand may be granted, by what will be released until then: grants when they lapse, and idle models when
/// what the worker runs is done. Absent where that is not enough, or not known.
std::optional<WallTime> room_expected(const Turn& turn, const WorkerRecord& worker, const MemoryDemand& demand);
/// The session has ended.
void release_grants_of(Turn& turn, const std::string& session);
Status reservation_updated(Turn& turn, const WorkerRecord& worker, const ReservationUpdate& update);
/// "grant:<allocation>" fired: it was not renewed.
void grant_lapsed(Turn& turn, const std::string& allocation);
/// The worker is proven gone: what it was granted is free.
void grants_lost(Turn& turn, const WorkerId& worker);
/// After a start: grants count on, and what has lapsed is free; the collection of idle segments counts from now.
void rearm_memory(Turn& turn);
/// "collect:" fired: segments that lie idle for too long are dropped.
void collect_idle(Turn& turn);

/// The worker is ready: it is told the policy, what is cached, and which devices are short of memory.
void tell_memory_facts(Turn& turn, const WorkerRecord& worker);
/// A worker's answer to the newest policy; nothing for an answer about something else.
void memory_change_confirmed(Turn& turn, const WorkerRecord& worker, const AppliedResult& answer);
void memory_lost(Turn& turn, const WorkerRecord& worker);

/// "memory/policy". False when the path is not of this domain.
bool set_memory(Turn& turn, const in::Set& input);
/// "memory" and "memory/policy".
std::optional<std::string> memory_view_text(const Turn& turn, const std::string& path);

bool step_is_on(const Turn& turn, memory::EmergencyStep step);
/// Why nothing new is accepted; empty when it is.
std::string no_admission_because(const Turn& turn);
/// Whether this image waits because batches are paused.
bool is_paused(const Turn& turn, const processing::Job& job);
/// Whether no model is brought in for the request's images, however long they wait, because memory is short.
bool loads_nothing(const Turn& turn, const processing::Request& request);

}  // namespace lockstep
