#include "orchestrator/on_memory.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/limits.h"
#include "operations/model_load.h"
#include "orchestrator/on_saga.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_device.h"
#include "orchestrator/requests.h"
#include "orchestrator/set.h"

namespace lockstep {

namespace {

using memory::EmergencyStep;

constexpr std::uint32_t leak_samples = 5;
constexpr Nanos collect_every = seconds(30);
constexpr double stall_high = 0.20;  // a fifth of the time every task waits: whatever is free, it is not enough

struct PressureChanged {
  std::string pool;
  PressureLevel level = PressureLevel::low;
  PressureLevel before = PressureLevel::low;
  Ratio share;
  Urgency urgency = Urgency::p1_high;
};
BOOST_DESCRIBE_STRUCT(PressureChanged, (), (pool, level, before, share, urgency))

struct EmergencyChanged {
  std::vector<EmergencyStep> steps;
  Ratio share;
};
BOOST_DESCRIBE_STRUCT(EmergencyChanged, (), (steps, share))

struct LeakSuspected {
  DeviceId device_id;
  WorkerId worker_id;
  Bytes used;
  Bytes ledger;
};
BOOST_DESCRIBE_STRUCT(LeakSuspected, (), (device_id, worker_id, used, ledger))

struct PurposeView {
  std::string purpose;
  Bytes used;
  Bytes high_water;
  std::optional<SizeText> quota;
};
BOOST_DESCRIBE_STRUCT(PurposeView, (), (purpose, used, high_water, quota))

struct PoolView {
  std::string pool;
  Bytes limit;
  std::string limited_by;
  Bytes held;  // sum of the purposes: every byte has an owner
  PressureLevel pressure = PressureLevel::low;
  std::optional<Ratio> used_share;
  std::vector<PurposeView> purposes;
};
BOOST_DESCRIBE_STRUCT(PoolView, (), (pool, limit, limited_by, held, pressure, used_share, purposes))

struct MemoryView {
  Rev rev;
  std::vector<PoolView> pools;
  std::vector<memory::Grant> grants;
  std::vector<EmergencyStep> emergency_steps;
};
BOOST_DESCRIBE_STRUCT(MemoryView, (), (rev, pools, grants, emergency_steps))

Bytes cache_used(const Turn& turn) {
  Bytes used;
  for (const auto& [key, segment] : turn.live.segments) used += segment.size;
  return used;
}

/// Who holds what of the system's RAM, by purpose.
std::map<std::string, Bytes> ram_ledger(const Turn& turn) {
  std::map<std::string, Bytes> ledger;
  ledger["model_cache"] = cache_used(turn);
  for (const auto& [job, pixels] : turn.live.pixels) ledger["pixels"] += Bytes{pixels.image.bytes};
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    if (entry.row.device_id.empty()) ledger[entry.row.purpose] += entry.row.bytes;
  }
  return ledger;
}

std::map<std::string, Bytes> device_ledger(const Turn& turn, const DeviceId& device) {
  std::map<std::string, Bytes> ledger;
  for (const auto& [key, entry] : turn.tables.memory.allocations.entries()) {
    if (entry.row.device_id == device) ledger[entry.row.purpose] += entry.row.bytes;
  }
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    if (entry.row.device_id == device) ledger[entry.row.purpose] += entry.row.bytes;
  }
  if (const Bytes promised = promised_on(turn.live.intents, device); promised.value > 0) ledger["promised"] += promised;
  if (const Bytes unproven = unproven_on(turn.tables, device); unproven.value > 0) ledger["unproven"] += unproven;
  return ledger;
}

Bytes sum_of(const std::map<std::string, Bytes>& ledger) {
  Bytes sum;
  for (const auto& [purpose, bytes] : ledger) sum += bytes;
  return sum;
}

/// A level that changed becomes a fact. Returns true when it did.
bool note_pressure(Turn& turn, const std::string& pool, double share, PressureLevel level) {
  const PressureLevel before = turn.tables.memory.level_of(pool);
  if (level == before) return false;
  turn.change.put(turn.tables.memory.pressure, pool, memory::Pressure{pool, level, Ratio{share}, turn.wall});
  turn.change.event(
      "memory_pressure_changed", pool,
      PressureChanged{pool, level, before, Ratio{share},
                      std::max(level, before) >= PressureLevel::high ? Urgency::p1_high : Urgency::p2_normal});
  return true;
}

/// What one grant of `purpose` may come from, for this worker.
memory::PoolState pool_of(const Turn& turn, const WorkerRecord& worker, const std::string& purpose) {
  memory::PoolState pool;
  if (!memory::is_device_purpose(purpose)) {
    pool.name = memory::system_ram;
    const memory::CacheLimit limit = cache_limit_of(turn);
    pool.total = limit.bytes;
    pool.limit_name = limit.name;
    pool.used = sum_of(ram_ledger(turn));
    pool.held_for_purpose = memory::granted_for(turn.tables.memory, {}, purpose);
    if (purpose == "model_cache") pool.held_for_purpose += cache_used(turn);
    return pool;
  }
  const DeviceLimit limit = limit_on(turn.tables, worker.device_id);
  pool.name = worker.device_id.str();
  pool.total = limit.bytes;
  pool.limit_name = limit.name;
  pool.used =
      memory::allocated_on(turn.tables.memory, worker.device_id) + promised_on(turn.live.intents, worker.device_id) +
      unproven_on(turn.tables, worker.device_id);
  pool.held_for_purpose = memory::granted_for(turn.tables.memory, worker.device_id, purpose);
  return pool;
}

/// When its worker has nothing to do, by the speed that it told last; absent where it told none. A release takes
/// milliseconds then.
std::optional<WallTime> idle_from(const Turn& turn, const WorkerRecord& worker) {
  const auto live = turn.live.workers.find(worker.worker_id);
  if (live == turn.live.workers.end() || live->second.task.empty()) return turn.wall;
  const auto samples = turn.live.samples.find(worker.device_id);
  if (samples == turn.live.samples.end() || samples->second.busy_until <= turn.now) return std::nullopt;
  return WallTime{turn.wall.ms + (samples->second.busy_until - turn.now) / milliseconds(1)};
}

void grant(Turn& turn, const OpenRequest& request, const WorkerRecord& worker, const MemoryDemand& demand) {
  ++turn.live.counters.requests_answered["granted"];
  answer_request(turn, request, granted(request, reserve_memory(turn, request, worker, demand)));
}

/// Its time begins, or begins anew.
void begin_grant(Turn& turn, memory::Grant& row) {
  if (row.lasts <= 0) return;
  row.until = WallTime{turn.wall.ms + row.lasts / milliseconds(1)};
  turn.effect(out::ArmTimer{cat("grant:", row.allocation_id.str()), turn.now + row.lasts});
}

void give_back(Turn& turn, const std::string& allocation, std::string_view how) {
  const memory::Grant& row = turn.tables.memory.grants.at(allocation);
  turn.change.event("memory_released", row.worker_id.str(), row, row.session_id);
  turn.change.erase(turn.tables.memory.grants, allocation);
  turn.effect(out::DisarmTimer{cat("grant:", allocation)});
  turn.log(cat(allocation, " of ", row.worker_id.str(), ", ", to_text(row.bytes), " for ", row.purpose, ": ", how));
}

/// An open request with what it asks for.
struct QueuedDemand {
  OpenRequest request;
  const WorkerRecord* worker = nullptr;
  MemoryAllocationRequest asked;

  MemoryDemand demand() const {
    return {asked.requested_bytes, asked.allocation_purpose, asked.estimated_duration.nanos().value_or(0), {}};
  }
};

/// Requests that wait for memory: by priority, or in order of arrival, as the policy says.
std::vector<QueuedDemand> queued_demands(const Turn& turn) {
  std::vector<QueuedDemand> out;
  for (OpenRequest& request : open_requests(turn.tables.requests)) {
    if (request.request_type != MemoryAllocationRequest::event_type) continue;
    const auto asked = json::from_text<MemoryAllocationRequest>(request.body.text);
    LOCKSTEP_CHECK(asked.has_value());  // read when it arrived
    const WorkerRecord& worker = turn.tables.liveness.workers.at(request.worker_id.str());
    out.push_back({std::move(request), &worker, *asked});
  }
  const bool by_priority = turn.tables.memory.policy().grant_order == memory::GrantOrder::priority;
  std::ranges::stable_sort(out, {}, [&](const QueuedDemand& each) {
    return std::pair(by_priority ? each.asked.priority : AllocationPriority{}, each.request.asked.ms);
  });
  return out;
}

/// The first of them that fits now. One a call.
bool grant_one_queued(Turn& turn) {
  for (const QueuedDemand& each : queued_demands(turn)) {
    const MemoryDemand demand = each.demand();
    if (!admission_of(turn, *each.worker, demand).granted) continue;
    grant(turn, each.request, *each.worker, demand);
    return true;
  }
  return false;
}

MemoryPolicyUpdate policy_message(const memory::Policy& policy) {
  return {{policy.max_model_cache_size, policy.vram_reservation_limit, policy.emergency_cleanup_threshold},
          {"all_workers"},
          true};
}

bool is_cached(const Turn& turn, const model::Model& model) {
  const std::vector<model::Part> parts = model::parts_of(turn.tables.model, model);
  return !model.components.empty() && std::ranges::all_of(parts, [&](const model::Part& part) {
    const auto segment = turn.live.segments.find({part.model_id, part.component.name});
    return segment != turn.live.segments.end() && segment->second.state == SegmentState::ready;
  });
}

/// Workers hear how much of the cache is taken, what is left, and which models are in it (§2.2
/// system_memory_allocated, §2.3 model_cache_update): both in one frame.
void tell_cache_to(Turn& turn, const WorkerRecord& worker) {
  Bytes ready;
  for (const auto& [key, segment] : turn.live.segments) {
    if (segment.state == SegmentState::ready) ready += segment.size;
  }
  const Bytes limit = cache_limit(turn);
  const std::string key = delivery_key(worker.worker_id, ModelCacheUpdate::event_type, "");
  const Delivery* before = turn.tables.propagation.deliveries.find(key);
  std::vector<ModelId> known;
  if (before != nullptr) {
    if (const auto body = json::from_text<ModelCacheUpdate>(before->intended.text)) known = body->cache_changes.added;
  }
  ModelCacheUpdate update;
  update.available_models = static_cast<std::uint32_t>(turn.tables.model.models.size());
  update.cache_changes.cache_utilization.value =
      limit.value == 0 ? 0 : std::min(1.0, static_cast<double>(ready.value) / static_cast<double>(limit.value));
  for (const auto& [id, entry] : turn.tables.model.models.entries()) {
    const bool was = std::ranges::find(known, entry.row.model_id) != known.end();
    const bool is = is_cached(turn, entry.row);
    if (is && !was) update.cache_changes.added.push_back(entry.row.model_id);
    if (was && !is) update.cache_changes.removed.push_back(entry.row.model_id);
  }
  for (const ModelId& id : known) {  // models that are no more
    if (!turn.tables.model.models.contains(id.str())) update.cache_changes.removed.push_back(id);
  }
  update.cache_optimization_performed = !update.cache_changes.removed.empty();
  const bool empty = ready.value == 0 && before == nullptr;
  if (empty || !subscribes(worker, urgency_row(FrameType::model_cache_update, Condition::always).receivers)) return;
  tell(turn, worker, FrameType::system_memory_allocated,
       SystemMemoryAllocated{AllocationId("model_cache"), ready, "model_cache", std::string(memory::system_ram),
                             limit - cache_used(turn)});
  tell(turn, worker, FrameType::model_cache_update, update);
}

bool tell_cache(Turn& turn) {
  const auto filling = [](const auto& each) { return each.second.state == SegmentState::filling; };
  if (turn.live.ram.cache_told || std::ranges::any_of(turn.live.segments, filling)) return false;
  turn.live.ram.cache_told = true;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (entry.row.state == WorkerState::ready) tell_cache_to(turn, entry.row);
  }
  return !turn.change.empty();
}

void tell_pressure_to(Turn& turn, const WorkerRecord& worker, VramUsageUpdate update, PressureLevel level) {
  update.pressure_level = level;
  const UrgencyRow& row = urgency_row(FrameType::vram_usage_update, Condition::pressure_high);
  if (subscribes(worker, row.receivers)) tell(turn, worker, update, update.device_id, row.lane);
}

/// A level of a device's memory, to those that share its work and to whoever was told before (§2.7).
void tell_pressure(Turn& turn, const WorkerRecord& worker, const VramUsageUpdate& update, PressureLevel level,
                   bool matters) {
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    const WorkerRecord& other = entry.row;
    if (other.worker_id == worker.worker_id || other.state != WorkerState::ready) continue;
    const bool told = turn.tables.propagation.deliveries.contains(
        delivery_key(other.worker_id, VramUsageUpdate::event_type, worker.device_id.str()));
    if (told || (matters && is_concerned(turn, other, worker.device_id))) tell_pressure_to(turn, other, update, level);
  }
}

PoolView pool_view(const Turn& turn, std::string name, Bytes limit, std::string limited_by,
                   const std::map<std::string, Bytes>& ledger) {
  const memory::Policy policy = turn.tables.memory.policy();
  PoolView view;
  view.pool = std::move(name);
  view.limit = limit;
  view.limited_by = std::move(limited_by);
  view.held = sum_of(ledger);
  view.pressure = turn.tables.memory.level_of(view.pool);
  for (const auto& [purpose, bytes] : ledger) {
    const auto mark = turn.live.ram.high_water.find(cat(view.pool, "/", purpose));
    const auto quota = policy.quotas.find(purpose);
    view.purposes.push_back({purpose, bytes,
                             mark == turn.live.ram.high_water.end() ? bytes : std::max(bytes, mark->second),
                             quota == policy.quotas.end() ? std::nullopt : std::optional(quota->second)});
  }
  return view;
}

double ram_share(const in::SystemMemory& sample) {
  const double machine = share_of(sample.total - sample.available, sample.total);
  return sample.group_limit ? std::max(machine, share_of(sample.group_used, *sample.group_limit)) : machine;
}

void note_high_water(Turn& turn, const std::string& pool, const std::map<std::string, Bytes>& ledger) {
  for (const auto& [purpose, bytes] : ledger) {
    Bytes& mark = turn.live.ram.high_water[cat(pool, "/", purpose)];
    mark = std::max(mark, bytes);
  }
}

}  // namespace

memory::CacheLimit cache_limit_of(const Turn& turn) {
  return memory::cache_limit(turn.tables.memory.policy(), turn.settings.cache_limit, ram_of(turn.live.ram));
}

Bytes cache_limit(const Turn& turn) { return cache_limit_of(turn).bytes; }

Bytes ram_of(const SystemRam& ram) {
  if (!ram.sample) return {};
  return ram.sample->group_limit ? std::min(ram.sample->total, *ram.sample->group_limit) : ram.sample->total;
}

Bytes models_on(const Turn& turn, const DeviceId& device) {
  Bytes in_use;
  for (const auto& [key, entry] : turn.tables.memory.allocations.entries()) {
    const memory::Allocation& row = entry.row;
    if (row.device_id == device && row.state == memory::AllocationState::in_use) in_use += row.bytes;
  }
  return in_use;
}

Bytes released_at_most(Bytes models, Bytes bytes, const std::optional<QuietSample>& before) {
  const QuietSample known = before.value_or(QuietSample{});
  const Bytes tolerated = leak_tolerance_of(bytes);
  // The same models as then: what they really take is known, be it less than their rows or more.
  if (known.models == models) return std::min(models + leak_tolerance, known.used + tolerated);
  // Others came or went, and their rows are all that is known of them; what was beyond the rows before is still there.
  return models + std::min(leak_tolerance, (known.used - known.models) + tolerated);
}

namespace {

void note_quiet_sample(DeviceSamples& samples, Bytes used, Bytes models, bool idle) {
  if (idle && samples.idle && samples.models == models) samples.quiet = QuietSample{used, models};
  samples.idle = idle;
  samples.models = models;
}

}  // namespace

void vram_sampled(Turn& turn, const WorkerRecord& worker, const VramUsageUpdate& update, bool first) {
  if (update.device_id != worker.device_id || !turn.tables.device.devices.contains(worker.device_id.str())) return;
  const std::string& pool = worker.device_id.str();
  const double share = share_of(update.vram_metrics.used_vram, update.vram_metrics.total_vram);
  const PressureLevel before = turn.tables.memory.level_of(pool);
  const PressureLevel level = pressure_of(share, turn.tables.memory.policy().pressure, before);
  const bool changed = note_pressure(turn, pool, share, level);
  if (changed || first) {
    tell_pressure(turn, worker, update, level, changed && std::max(level, before) >= PressureLevel::high);
  }
  note_high_water(turn, pool, device_ledger(turn, worker.device_id));
  DeviceSamples& samples = turn.live.samples[worker.device_id];
  samples.used_max = std::max(samples.used_max, update.vram_metrics.used_vram);
  // While it works it holds more than its models; what an idle worker holds beyond its ledger belongs to nobody.
  const bool idle = turn.live.workers[worker.worker_id].task.empty();
  const Bytes ledger = memory::allocated_on(turn.tables.memory, worker.device_id);
  if (first) {
    samples.idle = false;
    samples.models = {};
    samples.quiet.reset();
  }
  const Bytes models = models_on(turn, worker.device_id);
  // One that waited in its lane does not count what was loaded since: of models that grew it proves nothing yet.
  const MemorySample sample{update.vram_metrics.used_vram, std::min(models, samples.models), ledger, idle};
  allocator_sampled(turn, worker, sample);
  unload_measured(turn, worker, sample);
  note_quiet_sample(samples, sample.used, models, idle);
  const bool over = idle && update.vram_metrics.used_vram > ledger + leak_tolerance;
  samples.over_ledger = over ? samples.over_ledger + 1 : 0;
  if (!over) samples.leak_told = false;
  if (samples.over_ledger < leak_samples || samples.leak_told) return;
  samples.leak_told = true;
  ++turn.live.counters.leaks_suspected;
  turn.change.event("memory_leak_suspected", pool,
                    LeakSuspected{worker.device_id, worker.worker_id, update.vram_metrics.used_vram, ledger});
  turn.warn(cat(worker.worker_id.str(), " is idle and holds ", to_text(update.vram_metrics.used_vram),
                "; its ledger has ", to_text(ledger)));
}

memory::Admission admission_of(const Turn& turn, const WorkerRecord& worker, const MemoryDemand& demand) {
  return memory::admit(pool_of(turn, worker, demand.purpose), demand.bytes, demand.purpose,
                       turn.tables.memory.policy());
}

std::vector<WorkerId> short_of_room(const Turn& turn) {
  std::vector<WorkerId> out;
  // An image that was begun is finished first: what it needs next could not be loaded beside the grant.
  const bool begun = std::ranges::any_of(turn.live.open_jobs, [&](const JobId& id) {
    const processing::Job& job = turn.tables.processing.jobs.at(id.str());
    return job.stage == processing::JobStage::generated &&
           processing::may_start(turn.tables.processing, turn.tables.processing.requests.at(job.request_id.str()));
  });
  if (begun) return out;
  for (const QueuedDemand& each : queued_demands(turn)) {
    const MemoryDemand demand = each.demand();
    const DeviceId& device = each.worker->device_id;
    if (!memory::is_device_purpose(demand.purpose) || admission_of(turn, *each.worker, demand).granted) continue;
    memory::PoolState without = pool_of(turn, *each.worker, demand.purpose);
    without.used = without.used -
                   (memory::allocated_on(turn.tables.memory, device) - memory::granted_on(turn.tables.memory, device));
    const memory::Policy policy = turn.tables.memory.policy();
    if (memory::admit(without, demand.bytes, demand.purpose, policy).granted) out.push_back(each.worker->worker_id);
  }
  return out;
}

GrantedReservation reserve_memory(Turn& turn, const OpenRequest& request, const WorkerRecord& worker,
                                  const MemoryDemand& demand) {
  memory::Grant row;
  row.allocation_id = AllocationId(cat("grant_", turn.live.epoch.value, "_", ++turn.live.allocations_made));
  row.request_id = request.request_id;
  row.worker_id = worker.worker_id;
  row.incarnation = worker.incarnation;
  if (memory::is_device_purpose(demand.purpose)) row.device_id = worker.device_id;
  row.purpose = demand.purpose;
  row.bytes = demand.bytes;
  row.lasts = demand.lasts;
  row.session_id = demand.session_id;
  begin_grant(turn, row);
  turn.change.put(turn.tables.memory.grants, row.allocation_id.str(), row);
  return {row.allocation_id, row.bytes, row.until ? std::optional(Timestamp::of(*row.until)) : std::nullopt};
}

std::optional<WallTime> room_expected(const Turn& turn, const WorkerRecord& worker, const MemoryDemand& demand) {
  struct Release {
    WallTime at;
    Bytes bytes;
    bool of_purpose = false;
  };
  const DeviceId device = memory::is_device_purpose(demand.purpose) ? worker.device_id : DeviceId();
  std::vector<Release> releases;
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    const memory::Grant& row = entry.row;
    if (row.device_id != device || row.lasts <= 0) continue;
    const WallTime until = row.until.value_or(WallTime{turn.wall.ms + row.lasts / milliseconds(1)});
    releases.push_back({std::max(until, turn.wall), row.bytes, row.purpose == demand.purpose});
  }
  if (const auto idle = device.empty() ? std::nullopt : idle_from(turn, worker)) {
    const Bytes models =
        memory::allocated_on(turn.tables.memory, device) - memory::granted_on(turn.tables.memory, device);
    releases.push_back({*idle, models});
  }
  std::ranges::stable_sort(releases, {}, &Release::at);
  const memory::Policy policy = turn.tables.memory.policy();
  memory::PoolState pool = pool_of(turn, worker, demand.purpose);
  for (const Release& each : releases) {
    pool.used = pool.used - each.bytes;
    if (each.of_purpose) pool.held_for_purpose = pool.held_for_purpose - each.bytes;
    if (memory::admit(pool, demand.bytes, demand.purpose, policy).granted) return each.at;
  }
  return std::nullopt;
}

void release_grants_of(Turn& turn, const std::string& session) {
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    if (entry.row.session_id == session) give_back(turn, key, cat("session ", session, " has ended"));
  }
}

Status memory_asked(Turn& turn, const WorkerRecord& worker, const MemoryAllocationRequest& asked) {
  const auto lasts = asked.estimated_duration.nanos();
  if (!lasts) return fail(ErrorCode::invalid_argument, lasts.error().message, "/estimated_duration");
  if (asked.request_id.empty() || asked.request_id.size() > 128) {
    return fail(ErrorCode::invalid_argument, "request_id must have 1 to 128 bytes", "/request_id");
  }
  const auto request =
      take_request(turn, worker, MemoryAllocationRequest::event_type, asked.request_id, json::to_text(asked));
  if (!request) return {};
  const auto deny = [&](std::string reason) {
    ++turn.live.counters.requests_answered["denied"];
    answer_request(turn, *request, denied(*request, std::move(reason)));
  };
  const memory::Policy policy = turn.tables.memory.policy();
  const memory::PoolState pool = pool_of(turn, worker, asked.allocation_purpose);
  const PressureLevel level = turn.tables.memory.level_of(pool.name);
  if (level == PressureLevel::critical && asked.priority != AllocationPriority::critical) {
    deny(cat("the pressure in ", pool.name, " is critical"));
    return {};
  }
  const memory::Admission admission = memory::admit(pool, asked.requested_bytes, asked.allocation_purpose, policy);
  if (admission.granted) {
    grant(turn, *request, worker, {asked.requested_bytes, asked.allocation_purpose, *lasts, {}});
  } else if (admission.never) {
    deny(admission.reason);
  } else {
    ++turn.live.counters.requests_answered["queued"];
    const MemoryDemand demand{asked.requested_bytes, asked.allocation_purpose, *lasts, {}};
    answer_request(turn, *request, queued(*request, room_expected(turn, worker, demand), admission.reason));
  }
  return {};
}

Status reservation_updated(Turn& turn, const WorkerRecord& worker, const ReservationUpdate& update) {
  const memory::Grant* row = turn.tables.memory.grants.find(update.allocation_id.str());
  if (row == nullptr) return {};  // it lapsed meanwhile
  if (row->worker_id != worker.worker_id) {
    return fail(ErrorCode::not_owner, cat(update.allocation_id.str(), " is another worker's"), "/allocation_id");
  }
  if (!update.lasts) {
    give_back(turn, update.allocation_id.str(), "given back");
    return {};
  }
  const auto lasts = update.lasts->nanos();
  if (!lasts || *lasts == 0) return fail(ErrorCode::invalid_argument, "lasts must be above 0", "/lasts");
  memory::Grant longer = *row;
  longer.lasts = *lasts;
  begin_grant(turn, longer);
  turn.change.put(turn.tables.memory.grants, longer.allocation_id.str(), longer);
  return {};
}

void grant_lapsed(Turn& turn, const std::string& allocation) {
  if (turn.tables.memory.grants.contains(allocation)) give_back(turn, allocation, "its time is over");
}

void grants_lost(Turn& turn, const WorkerId& worker) {
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    if (entry.row.worker_id == worker) give_back(turn, key, "its worker is gone");
  }
}

void rearm_memory(Turn& turn) {
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) {
    if (entry.row.lasts <= 0) continue;
    const Nanos left = entry.row.until ? time_left(turn, *entry.row.until, entry.row.lasts) : entry.row.lasts;
    if (left == 0) {
      give_back(turn, key, "its time is over");
    } else {
      turn.effect(out::ArmTimer{cat("grant:", key), turn.now + left});
    }
  }
  if (turn.tables.memory.policy().idle_segment_seconds) {
    turn.effect(out::ArmTimer{"collect:", turn.now + collect_every});
  }
}

void collect_idle(Turn& turn) {
  const auto idle = turn.tables.memory.policy().idle_segment_seconds;
  if (!idle) return;
  while (drop_unpinned_segment(turn, turn.now - seconds(*idle), true)) ++turn.live.counters.cache_collected;
  turn.effect(out::ArmTimer{"collect:", turn.now + collect_every});
}

void tell_memory_facts(Turn& turn, const WorkerRecord& worker) {
  const memory::Policy policy = turn.tables.memory.policy();
  if (policy.revision > 0) tell(turn, worker, FrameType::memory_policy_update, policy_message(policy));
  tell_cache_to(turn, worker);
  for (const auto& [id, live] : turn.live.workers) {
    if (id == worker.worker_id || !live.memory) continue;
    const PressureLevel level = turn.tables.memory.level_of(live.memory->device_id.str());
    if (level < PressureLevel::high || !is_concerned(turn, worker, live.memory->device_id)) continue;
    tell_pressure_to(turn, worker, *live.memory, level);
  }
}

void memory_change_confirmed(Turn& turn, const WorkerRecord& worker, const AppliedResult& answer) {
  if (answer.type != MemoryPolicyUpdate::event_type || answer.outcome != AppliedOutcome::applied) return;
  memory::Policy policy = turn.tables.memory.policy();
  std::uint64_t& by_worker = policy.confirmed_by[worker.worker_id.str()];
  if (by_worker >= policy.revision) return;
  by_worker = policy.revision;
  turn.change.put(turn.tables.memory.policies, "policy", policy);
  turn.change.event("memory_policy_confirmed", worker.worker_id.str(), policy);
}

void memory_lost(Turn& turn, const WorkerRecord& worker) {
  grants_lost(turn, worker.worker_id);
  if (turn.tables.memory.pressure.contains(worker.device_id.str())) {
    turn.change.erase(turn.tables.memory.pressure, worker.device_id.str());
  }
  memory::Policy policy = turn.tables.memory.policy();
  if (policy.confirmed_by.erase(worker.worker_id.str()) > 0) {
    turn.change.put(turn.tables.memory.policies, "policy", policy);
  }
}

bool set_memory(Turn& turn, const in::Set& input) {
  if (input.path != "memory/policy") return false;
  const auto body = read_set<memory::PolicyBody>(input);
  if (!body) {
    reply_error(turn, input.reply, body.error());
    return true;
  }
  const memory::Policy before = turn.tables.memory.policy();
  const auto after = memory::changed(before, *body, input.whole);
  if (!after) {
    reply_error(turn, input.reply, after.error());
    return true;
  }
  turn.change.put(turn.tables.memory.policies, "policy", *after);
  turn.change.event(std::string(MemoryPolicyUpdate::event_type), "policy", *after);
  if (after->idle_segment_seconds && !before.idle_segment_seconds) {
    turn.effect(out::ArmTimer{"collect:", turn.now + collect_every});
  }
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (entry.row.state != WorkerState::ready) continue;
    tell(turn, entry.row, FrameType::memory_policy_update, policy_message(*after));
  }
  turn.live.ram.cache_told = false;  // what is left of the cache follows from its limit
  turn.effect(out::Reply{input.reply, 200, json::to_text(*after)});
  return true;
}

namespace {

/// What its worker said last of this device; nothing where nobody did.
std::optional<double> used_share_on(const Turn& turn, const WorkerId& worker) {
  const auto live = turn.live.workers.find(worker);
  if (live == turn.live.workers.end() || !live->second.memory) return std::nullopt;
  const VramMetrics& told = live->second.memory->vram_metrics;
  return std::min(1.0, share_of(told.used_vram, told.total_vram));
}

void note_history(Turn& turn, double ram_used, PressureLevel ram_level) {
  memory::UsageHistory& history = turn.live.ram.history;
  history.note(std::string(memory::system_ram), turn.wall, sum_of(ram_ledger(turn)), ram_used, ram_level);
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    history.note(key, turn.wall, sum_of(device_ledger(turn, entry.row.device_id)),
                 used_share_on(turn, entry.row.worker_id), turn.tables.memory.level_of(key));
  }
}

}  // namespace

std::optional<std::string> memory_view_text(const Turn& turn, const std::string& path) {
  if (path == "memory/policy") return json::to_text(turn.tables.memory.policy());
  if (path == "memory/history") return json::to_text(turn.live.ram.history.report());
  if (path != "memory") return std::nullopt;
  MemoryView view{turn.live.rev, {}, {}, turn.live.ram.steps};
  const memory::CacheLimit limit = cache_limit_of(turn);
  view.pools.push_back(
      pool_view(turn, std::string(memory::system_ram), limit.bytes, std::string(limit.name), ram_ledger(turn)));
  if (turn.live.ram.sample) view.pools.back().used_share = Ratio{std::min(1.0, ram_share(*turn.live.ram.sample))};
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    const DeviceLimit on = limit_on(turn.tables, entry.row.device_id);
    view.pools.push_back(pool_view(turn, key, on.bytes, on.name, device_ledger(turn, entry.row.device_id)));
    if (const auto share = used_share_on(turn, entry.row.worker_id)) view.pools.back().used_share = Ratio{*share};
  }
  for (const auto& [key, entry] : turn.tables.memory.grants.entries()) view.grants.push_back(entry.row);
  return json::to_text(view);
}

void on_system_memory(Turn& turn, const in::SystemMemory& input) {
  SystemRam& ram = turn.live.ram;
  const Bytes there_was = ram_of(ram);
  ram.sample = input;
  if (ram_of(ram) != there_was) ram.cache_told = false;  // so has the limit of the cache
  note_high_water(turn, std::string(memory::system_ram), ram_ledger(turn));
  const memory::Policy policy = turn.tables.memory.policy();
  const double share = std::min(1.0, ram_share(input));
  PressureLevel level = pressure_of(share, policy.pressure, turn.tables.memory.level_of(memory::system_ram));
  if (input.stall >= stall_high) level = std::max(level, PressureLevel::high);
  note_pressure(turn, std::string(memory::system_ram), share, level);
  note_history(turn, share, level);
  const auto steps = memory::emergency_steps(share, policy, ram.steps);
  if (steps == ram.steps) return;
  const bool alert = std::ranges::find(steps, EmergencyStep::alert) != steps.end();
  ram.steps = steps;
  turn.change.event("memory_emergency", std::string(memory::system_ram), EmergencyChanged{steps, Ratio{share}});
  std::string names;
  for (const EmergencyStep each : steps) names += cat(names.empty() ? "" : ", ", json::enum_name(each));
  const std::string text =
      cat("RAM is used to ", static_cast<int>(share * 100), " %: ", names.empty() ? "all clear" : names);
  alert ? turn.warn(text) : turn.log(text);
}

bool step_is_on(const Turn& turn, EmergencyStep step) {
  return std::ranges::find(turn.live.ram.steps, step) != turn.live.ram.steps.end();
}

std::string no_admission_because(const Turn& turn) {
  if (!step_is_on(turn, EmergencyStep::refuse_admissions)) return "";
  return "the machine's memory is nearly used up; try again when it has been released";
}

bool is_paused(const Turn& turn, const processing::Job& job) {
  if (job.stage != processing::JobStage::queued || !step_is_on(turn, EmergencyStep::pause_batch)) return false;
  const processing::Request& request = turn.tables.processing.requests.at(job.request_id.str());
  return job.index > 0 || processing::class_of(turn.tables.processing, request) >= processing::SessionClass::batch;
}

bool loads_nothing(const Turn& turn, const processing::Request& request) {
  return step_is_on(turn, EmergencyStep::stop_background_loads) &&
         processing::class_of(turn.tables.processing, request) == processing::SessionClass::background;
}

bool settle_memory(Turn& turn) {
  const bool over_limit = cache_used(turn) > cache_limit(turn);
  if (over_limit || step_is_on(turn, EmergencyStep::evict_unpinned_cache)) {
    // Over its limit the cache gives up whatever is not pinned; under pressure not what would be filled again at once.
    if (drop_unpinned_segment(turn, turn.now, !over_limit)) {
      ++turn.live.counters.cache_collected;
      return true;
    }
  }
  return grant_one_queued(turn) || tell_cache(turn);
}

}  // namespace lockstep
