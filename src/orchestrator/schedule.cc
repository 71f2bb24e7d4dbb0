// Arbitrate and dispatch: which job goes to which worker, and what must be loaded first. One decision per call, over
// the state as it is now; the loop calls again until nothing more is to be decided. Jobs are served in order of
// acceptance; a job that has to wait does not hold up the next one.

#include <algorithm>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/text.h"
#include "domains/inference/rules.h"
#include "domains/memory/policy.h"
#include "domains/memory/rules.h"
#include "domains/model/configuration.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/limits.h"
#include "operations/workflow.h"
#include "orchestrator/coordination.h"
#include "orchestrator/costs.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_session.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

using processing::Job;
using processing::JobStage;
using processing::Request;

enum class Outcome { decided, waits };

/// What earlier jobs of this pass wait for. A later job may use what is left, but not take it from them: two jobs
/// that evict each other's half-filled models would never end.
struct Pass {
  std::set<SegmentKey> claimed;  // what an earlier job is bringing in
  bool cache_blocked = false;    // an earlier job waits for room in the cache
  WaitSeconds waiting;           // of devices that earlier jobs wait for
  std::size_t waited = 0;        // earlier jobs that wait
};

std::vector<WorkerRecord> idle_workers(const Turn& turn) {
  std::vector<WorkerRecord> out;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (is_idle(turn, entry.row)) out.push_back(entry.row);
  }
  return out;
}

bool is_loaded(const Turn& turn, const ModelId& model, const WorkerId& worker) {
  const model::Residency* held = model::residency(turn.tables.model, model, worker);
  return held != nullptr && held->state == model::ResidencyState::loaded;
}

std::size_t loaded_count(const Turn& turn, const std::vector<ModelId>& models, const WorkerId& worker) {
  return static_cast<std::size_t>(
      std::ranges::count_if(models, [&](const ModelId& model) { return is_loaded(turn, model, worker); }));
}

Bytes budget_of(const Turn& turn, const WorkerRecord& worker) { return limit_on(turn.tables, worker.device_id).bytes; }

Bytes free_on(const Turn& turn, const WorkerRecord& worker) {
  return budget_of(turn, worker) - memory::allocated_on(turn.tables.memory, worker.device_id) -
         promised_on(turn.live.intents, worker.device_id) - unproven_on(turn.tables, worker.device_id);
}

void touch(Turn& turn, const std::vector<ModelId>& models, const WorkerId& worker, std::size_t images) {
  for (const ModelId& model : models) {
    turn.live.residency_used[{model, worker}] = ++turn.live.uses;
    model::Usage usage = model::usage_of(turn.tables.model, model);
    for (std::size_t i = 0; i < images; ++i) usage = model::used_once_more(usage, turn.wall);
    turn.change.put(turn.tables.model.usages, model.str(), usage);
  }
}

/// Whether a load that is being prepared takes segments of the model: its own or, with `lent`, the configuration that a
/// single file borrows of it.
bool is_promised(const Turn& turn, const ModelId& model, bool lent) {
  const auto borrowed = [&](const ComponentPlan& component) { return component.model_id == model; };
  return std::ranges::any_of(turn.live.intents, [&](const auto& each) {
    const LoadPlan& plan = each.second.plan;
    return plan.model_id == model || (lent && std::ranges::any_of(plan.components, borrowed));
  });
}

bool borrows(const Turn& turn, const ModelId& borrower, const ModelId& lender) {
  const model::Model* model = turn.tables.model.models.find(borrower.str());
  if (model == nullptr) return false;
  const auto from = model::configuration_of(turn.tables.model, *model);
  return from && (*from)->model_id == lender;
}

/// A model whose views are mapped keeps its segment alive anyway, and one that is being copied needs it. What a single
/// file borrows is read while it loads and not held after.
bool is_pinned(const Turn& turn, const SegmentKey& key) {
  const ModelId& model = key.first;
  const bool lent = key.second == model::configuration_name;
  const bool resident = std::ranges::any_of(turn.tables.model.residencies.entries(), [&](const auto& each) {
    const model::Residency& held = each.second.row;
    const bool loading = held.state == model::ResidencyState::loading;
    if (held.model_id != model) return loading && lent && borrows(turn, held.model_id, model);
    const auto kind = turn.tables.device.devices.at(held.device_id.str()).kind;
    return loading || kind == device::Kind::cpu;
  });
  return resident || is_promised(turn, model, lent);
}

constexpr std::size_t queue_read = 10;  // queued images whose models are spared (design §7)

/// Models that the next images need.
std::set<ModelId> models_of_queue(const Turn& turn) {
  std::set<ModelId> out;
  std::size_t read = 0;
  for (const JobId& id : turn.live.open_jobs) {
    const Job& job = turn.tables.processing.jobs.at(id.str());
    if (job.stage != JobStage::queued && job.stage != JobStage::generated) continue;
    for (ModelId& model : models_needed(turn.tables.processing.requests.at(job.request_id.str()), job)) {
      out.insert(std::move(model));
    }
    if (++read == queue_read) break;
  }
  return out;
}

/// The least recently used segment that is ready, not pinned, and that `spared` does not hold.
template <class Spared>
std::optional<SegmentKey> oldest_segment(const Turn& turn, const Spared& spared) {
  auto victim = turn.live.segments.end();
  for (auto at = turn.live.segments.begin(); at != turn.live.segments.end(); ++at) {
    if (at->second.state != SegmentState::ready || spared(at->first, at->second)) continue;
    if (is_pinned(turn, at->first)) continue;
    if (victim == turn.live.segments.end() || at->second.last_used < victim->second.last_used) victim = at;
  }
  return victim == turn.live.segments.end() ? std::nullopt : std::optional(victim->first);
}

void drop_segment(Turn& turn, const SegmentKey& key) {
  turn.effect(out::DropSegment{key.first, key.second});
  forget_segment(turn, key);
  turn.live.segments.erase(key);
}

Outcome give_up(Turn& turn, const Job& job, const Error& why) {
  drop_pixels(turn, job.job_id);
  fail_job(turn.tables, job, processing::failure_of(why), turn.wall, turn.change);
  return Outcome::decided;
}

/// Tells an idle worker to give the model's memory back.
Outcome release(Turn& turn, const WorkerRecord& worker, const model::Residency& held, std::string_view why) {
  turn.log(cat("releasing ", held.model_id.str(), " on ", worker.worker_id.str(), " ", why));
  begin_release(turn.tables, held, turn.change);
  give_task(turn, worker, cat("release:", held.model_id.str()), {});
  send(turn, worker, FrameType::model_release, ModelRelease{held.model_id}, release_operation(held.model_id));
  expect_progress(turn, worker.worker_id);
  return Outcome::decided;
}

/// Evicts one idle model from the worker, the least recently used that this job does not need.
Outcome evict_one(Turn& turn, const WorkerRecord& worker, const std::vector<ModelId>& needed) {
  const model::Residency* victim = nullptr;
  std::uint64_t oldest = 0;
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    const model::Residency& held = entry.row;
    if (held.worker_id != worker.worker_id || held.state != model::ResidencyState::loaded) continue;
    if (std::ranges::find(needed, held.model_id) != needed.end()) continue;
    const auto used = turn.live.residency_used.find({held.model_id, held.worker_id});
    const std::uint64_t at = used == turn.live.residency_used.end() ? 0 : used->second;
    if (victim == nullptr || at < oldest) {
      victim = &held;
      oldest = at;
    }
  }
  return victim == nullptr ? Outcome::waits : release(turn, worker, *victim, "to make room");
}

/// Room on the worker's device: an idle model gives way, but not for bytes that the next sample may show to be free.
Outcome make_room(Turn& turn, const WorkerRecord& worker, const std::vector<ModelId>& needed) {
  if (is_being_measured(turn.tables, worker.device_id)) return Outcome::waits;
  return evict_one(turn, worker, needed);
}

/// Makes room in the cache for `size` more bytes: drops the least recently used unpinned segment, or has an idle
/// worker release a model that pins one. True when there is room now; otherwise `outcome` says whether a step was
/// taken.
bool room_in_cache(Turn& turn, Pass& pass, Bytes size, const std::vector<ModelId>& needed, Outcome& outcome) {
  outcome = Outcome::waits;
  if (pass.cache_blocked) return false;
  Bytes used;
  for (const auto& [key, segment] : turn.live.segments) used += segment.size;
  if (used + size <= cache_limit(turn)) return true;
  const auto victim = oldest_segment(turn, [&](const SegmentKey& key, const SegmentLive&) {
    return std::ranges::find(needed, key.first) != needed.end() || pass.claimed.contains(key);
  });
  if (victim) {
    drop_segment(turn, *victim);
    ++turn.live.counters.cache_evictions;
    outcome = Outcome::decided;
    return false;
  }
  pass.cache_blocked = true;
  for (const WorkerRecord& worker : idle_workers(turn)) {
    const auto kind = turn.tables.device.devices.at(worker.device_id.str()).kind;
    if (kind != device::Kind::cpu) continue;  // a copy on a GPU pins nothing
    outcome = evict_one(turn, worker, needed);
    if (outcome == Outcome::decided) break;
  }
  return false;
}

/// Brings every part of the model into the cache. True when all are there.
bool cache_ready(Turn& turn, Pass& pass, const JobId& wanted_by, const model::Model& model,
                 const std::vector<ModelId>& needed, Outcome& outcome) {
  const std::vector<model::Part> parts = model::parts_of(turn.tables.model, model);
  for (const auto& [owner, component] : parts) pass.claimed.insert({owner, component.name});
  outcome = Outcome::waits;
  const auto stale = [&](const model::Part& part) { return turn.live.stale_segments.contains(part.model_id); };
  if (std::ranges::any_of(parts, stale)) return false;  // settle_models() drops them first
  bool all_ready = true;
  for (const auto& [owner, component] : parts) {
    const SegmentKey key{owner, component.name};
    const auto place = turn.live.segments.find(key);
    if (place == turn.live.segments.end()) {
      if (!room_in_cache(turn, pass, component.segment_bytes, needed, outcome)) return false;
      turn.live.segments[key] = {SegmentState::filling, component.segment_bytes, ++turn.live.uses, {}, turn.now};
      ++turn.live.counters.cache_misses;
      turn.effect(out::FillSegment{owner, component.name, component.files, turn.live.layouts.at(key)});
      outcome = Outcome::decided;
      return false;
    }
    if (place->second.state == SegmentState::failed) {
      const Error why = place->second.error;
      turn.live.segments.erase(place);  // the next try fills it again
      outcome = Outcome::decided;
      blame_load(turn, wanted_by, why);
      return false;
    }
    place->second.last_used = ++turn.live.uses;
    place->second.used_at = turn.now;
    all_ready = all_ready && place->second.state == SegmentState::ready;
  }
  return all_ready;
}

/// One step towards having `wanted` loaded on the worker: fill, evict, or prepare the transaction.
Outcome load(Turn& turn, Pass& pass, const JobId& wanted_by, const WorkerRecord& worker, const model::Model& wanted,
             const std::vector<ModelId>& needed) {
  Outcome outcome = Outcome::waits;
  if (!cache_ready(turn, pass, wanted_by, wanted, needed, outcome)) return outcome;
  if (!may_begin(turn, worker, FrameType::model_load_request)) return Outcome::waits;  // §2.8
  // One more copy in RAM would pin what an earlier one waits for: with enough workers it would never be free.
  const auto kind = turn.tables.device.devices.at(worker.device_id.str()).kind;
  if (pass.cache_blocked && kind == device::Kind::cpu) return Outcome::waits;
  const bool lacks_room = wanted.bytes > free_on(turn, worker);
  if (lacks_room && make_room(turn, worker, needed) == Outcome::decided) return Outcome::decided;
  ServiceVotes votes = votes_on_load(turn.tables, turn.live.intents, worker, wanted.model_id);
  if (first_no(votes) != votes.end()) {
    load_refused(turn, worker, wanted.model_id, wanted_by, votes);
    return Outcome::waits;
  }
  const TransactionId transaction = next_transaction(turn);
  const auto intent = prepare_load(turn.tables, worker, wanted.model_id, wanted_by, transaction, std::move(votes));
  LOCKSTEP_CHECK(intent.has_value());
  turn.live.intents.emplace(transaction, *intent);
  turn.live.counters.cache_hits += intent->plan.components.size();  // each is there now, filled for it or before
  give_task(turn, worker, cat("load:", transaction.str()), wanted_by);
  turn.live.progress[wanted_by] = {cat("loading ", wanted.model_id.str()), 0};
  send(turn, worker, FrameType::transaction_prepare, TransactionPrepare{transaction, intent->plan},
       transaction_operation(transaction));
  turn.effect(out::ArmTimer{cat("prepare:", transaction.str()), turn.now + turn.settings.prepare_deadline});
  return Outcome::decided;
}

Operation operation_of(const Request& request, const std::string& op_id, std::uint32_t attempt) {
  Operation out = run_operation(op_id, attempt, request.request_id);
  out.correlation.session = request.session_id;
  return out;
}

/// What a batch may hold of the worker's device, its models included.
Bytes vram_limit(const Turn& turn, const Request& request, const WorkerRecord& worker) {
  const Bytes budget = budget_of(turn, worker);
  if (!request.batch->vram_limit) return budget;
  return std::min(budget, request.batch->vram_limit->bytes().value_or(budget));
}

/// Images of one request as one task: what they may take together, then each.
void dispatch_batch(Turn& turn, const Request& request, const std::vector<Job>& jobs, const WorkerRecord& worker) {
  const auto size = static_cast<std::uint32_t>(jobs.size());
  const std::string id = inference::batch_id(jobs.front().job_id, jobs.front().attempt + 1);
  const InferenceOrchestration order{id,
                                     {size, size > 1, size > 1 ? "throughput" : "latency"},
                                     {{cat(vram_limit(turn, request, worker).value, "B")}, request.inference.priority}};
  turn.change.event(std::string(InferenceOrchestration::event_type), request.request_id.str(), order,
                    request.session_id);
  give_task(turn, worker, id, {});
  turn.live.workers[worker.worker_id].batch_size = size;
  send(turn, worker, FrameType::inference_orchestration, order, operation_of(request, id, 0));
  for (Job job : jobs) {
    job.deadline = begin_run(turn, request, job, worker);
    const InferenceRequest message = start_inference(turn.tables, request, job, worker, id, turn.change);
    turn.live.workers[worker.worker_id].batch.emplace(message.request_id, job.job_id);
    image_began(turn, job.job_id, message.request_id, job.attempt + 1, worker);
    send(turn, worker, FrameType::inference_request, message,
         operation_of(request, message.request_id, job.attempt + 1));
  }
  expect_progress(turn, worker.worker_id);
}

void dispatch(Turn& turn, const Request& request, Job job, const WorkerRecord& worker) {
  const std::uint32_t attempt = job.attempt + 1;
  job.deadline = begin_run(turn, request, job, worker);
  if (job.stage == JobStage::queued) {
    const InferenceRequest message = start_inference(turn.tables, request, job, worker, "", turn.change);
    give_task(turn, worker, message.request_id, job.job_id);
    image_began(turn, job.job_id, message.request_id, attempt, worker);
    send(turn, worker, FrameType::inference_request, message, operation_of(request, message.request_id, attempt));
  } else {
    const Pixels& pixels = turn.live.pixels.at(job.job_id);
    const PostprocessingRequest message =
        start_postprocessing(turn.tables, request, job, worker, pixels.image, turn.change);
    give_task(turn, worker, message.request_id, job.job_id);
    send(turn, worker, FrameType::postprocessing_request, message, operation_of(request, message.request_id, attempt),
         {{ModelId(), "", pixels.handle}});
  }
  expect_progress(turn, worker.worker_id);
}

/// The job, and others of its request that can be made with it: as many as the request allows and the worker has room
/// for. A job that was begun before is made by itself: what hurt the batch it was in shall not hurt another.
std::vector<Job> batch_of(const Turn& turn, const Request& request, const Job& job, Bytes models,
                          const WorkerRecord& worker) {
  std::vector<Job> out{job};
  if (job.attempt > 0) return out;
  const Bytes limit = vram_limit(turn, request, worker);
  const auto fits = [&](std::size_t images) {
    const Bytes beside =
        predicted_beyond(turn, request.inference, worker.device_id, static_cast<std::uint32_t>(images));
    return beside <= free_on(turn, worker) && models + beside <= limit &&
           session_has_room(turn, request, worker.device_id, models, beside);
  };
  for (const Job& other : processing::jobs_of(turn.tables.processing, request.request_id)) {
    if (out.size() >= request.batch->size || !fits(out.size() + 1)) break;
    const bool can = other.stage == JobStage::queued && other.attempt == 0 && !is_paused(turn, other);
    if (can && other.job_id != job.job_id) out.push_back(other);
  }
  return out;
}

Outcome advance(Turn& turn, Pass& pass, const Job& job) {
  const Request& request = turn.tables.processing.requests.at(job.request_id.str());
  if (job.stage == JobStage::generated && !turn.live.pixels.contains(job.job_id)) {
    if (turn.live.opening.contains(job.job_id)) return Outcome::waits;
    if (!request.source) {
      // Its postprocessing was lost with a worker of an earlier life, and so were the pixels.
      restart_job(turn.tables, job, turn.change);
      return Outcome::decided;
    }
    turn.live.opening.insert(job.job_id);
    turn.effect(out::OpenPixels{job.job_id, *request.source});
    return Outcome::decided;
  }
  if (load_in_flight(turn, job.job_id)) return Outcome::waits;

  const std::vector<ModelId> needed = models_needed(request, job);
  Bytes need;
  Bytes need_in_cache;
  for (const ModelId& id : needed) {
    const auto model = model::usable(turn.tables.model, id);
    if (!model) return give_up(turn, job, model.error());
    need += (*model)->bytes;
    need_in_cache += model::bytes_in_cache(turn.tables.model, **model);
  }
  std::vector<WorkerRecord> workers = idle_workers(turn);
  Bytes largest;
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    largest = std::max(largest, limit_on(turn.tables, entry.row.device_id).bytes);
  }
  if (need > largest) {
    return give_up(turn, job,
                   fail(ErrorCode::invalid_argument,
                        cat("this needs ", to_text(need), " on one device; the largest has ", to_text(largest))));
  }
  if (need_in_cache > cache_limit(turn)) {
    return give_up(
        turn, job,
        fail(ErrorCode::invalid_argument, cat("this needs ", to_text(need_in_cache), " in the cache; its limit is ",
                                              to_text(cache_limit(turn)), " (", cache_limit_of(turn).name, ")")));
  }
  const bool infers = job.stage == JobStage::queued;
  const auto beside = [&](const DeviceId& device) {
    return infers ? predicted_beyond(turn, request.inference, device) : Bytes{};
  };
  const auto& devices = turn.tables.device.devices.entries();
  const auto holds = [&](const auto& each) {
    const DeviceId& device = each.second.row.device_id;
    return need + beside(device) <= limit_on(turn.tables, device).bytes;
  };
  if (!devices.empty() && std::ranges::none_of(devices, holds)) {
    Bytes least = beside(devices.begin()->second.row.device_id);
    for (const auto& [key, entry] : devices) least = std::min(least, beside(entry.row.device_id));
    return give_up(turn, job,
                   fail(ErrorCode::invalid_argument,
                        cat("a run of this size took ", to_text(least), " beside its models before, which need ",
                            to_text(need), "; the largest device has ", to_text(largest))));
  }
  if (infers && request.batch && request.batch->vram_limit) {
    Bytes least = Bytes{std::numeric_limits<std::uint64_t>::max()};
    for (const auto& [key, entry] : devices) least = std::min(least, need + beside(entry.row.device_id));
    const Status allowed = memory::within_limit(least, request.batch->vram_limit, "vram_limit");
    if (!devices.empty() && !allowed) return give_up(turn, job, allowed.error());
  }
  if (const Status allowed = session_has_room(turn, request, job.stage); !allowed) {
    return give_up(turn, job, allowed.error());
  }
  std::erase_if(workers, [&](const WorkerRecord& worker) {
    const Bytes room = infers && request.batch ? vram_limit(turn, request, worker) : budget_of(turn, worker);
    return need + beside(worker.device_id) > room || !session_allows(turn, request, worker.device_id) ||
           !session_has_room(turn, request, worker.device_id, need, beside(worker.device_id));
  });
  keep_allowed(turn, request, job, needed, pass.waiting, workers);
  if (workers.empty()) return Outcome::waits;

  // The worker that has most of what is needed, then the one with most memory free, then the first by name.
  const auto better = [&](const WorkerRecord& a, const WorkerRecord& b) {
    const auto rank = [&](const WorkerRecord& worker) {
      return std::pair(loaded_count(turn, needed, worker.worker_id), free_on(turn, worker));
    };
    return rank(a) > rank(b);
  };
  std::ranges::stable_sort(workers, better);
  const WorkerRecord& worker = workers.front();
  for (const ModelId& id : needed) {
    if (!is_loaded(turn, id, worker.worker_id)) {
      const bool in_background = pass.waited > 0 || loads_nothing(turn, request);
      if (in_background && step_is_on(turn, memory::EmergencyStep::stop_background_loads)) return Outcome::waits;
      return load(turn, pass, job.job_id, worker, turn.tables.model.models.at(id.str()), needed);
    }
  }
  // Idle models give way to what the run is expected to take beside its own; a grant is waited for.
  if (beside(worker.device_id) > free_on(turn, worker)) return make_room(turn, worker, needed);
  if (infers && request.batch) {
    const std::vector<Job> batch = batch_of(turn, request, job, need, worker);
    touch(turn, needed, worker.worker_id, batch.size());
    dispatch_batch(turn, request, batch, worker);
  } else {
    touch(turn, needed, worker.worker_id, 1);
    dispatch(turn, request, job, worker);
  }
  return Outcome::decided;
}

/// One step of a load that a person asked for.
Outcome advance_load(Turn& turn, Pass& pass, const JobId& id, ModelOrder& order) {
  if (load_in_flight(turn, id)) return Outcome::waits;
  const auto finish = [&](const Status& status) {
    end_order(turn, id, status);
    return Outcome::decided;
  };
  const auto usable = model::usable(turn.tables.model, order.model_id);
  if (!usable) return finish(usable.error());
  const model::Model& model = **usable;
  Bytes largest;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (!order.worker_id.empty() && entry.row.worker_id != order.worker_id) continue;
    if (is_loaded(turn, order.model_id, entry.row.worker_id)) return finish({});
    largest = std::max(largest, budget_of(turn, entry.row));
  }
  const auto never = [&](Bytes need, std::string_view where, Bytes most) {
    return finish(fail(ErrorCode::invalid_argument, cat("model ", order.model_id.str(), " needs ", to_text(need), where,
                                                        "; there can be ", to_text(most), " at most")));
  };
  const Bytes need_in_cache = model::bytes_in_cache(turn.tables.model, model);
  if (need_in_cache > cache_limit(turn)) return never(need_in_cache, " in the cache", cache_limit(turn));
  if (model.bytes > largest) return never(model.bytes, "", largest);
  if (order.tries == processing::load_failures_max) {
    return finish(fail(ErrorCode::unavailable,
                       cat("the worker ended each of ", order.tries, " times while it loaded ", order.model_id.str())));
  }
  std::vector<WorkerRecord> workers = idle_workers(turn);
  std::erase_if(workers, [&](const WorkerRecord& worker) {
    return (!order.worker_id.empty() && worker.worker_id != order.worker_id) ||
           budget_of(turn, worker) < model.bytes ||
           model::residency(turn.tables.model, order.model_id, worker.worker_id) != nullptr;
  });
  if (workers.empty()) return Outcome::waits;
  std::ranges::stable_sort(workers, std::ranges::greater{}, [&](const auto& each) { return free_on(turn, each); });
  const WorkerId worker = workers.front().worker_id;
  const Outcome outcome = load(turn, pass, id, workers.front(), model, {order.model_id});
  if (turn.live.workers[worker].task_job == id) ++order.tries;
  return outcome;
}

Outcome advance_unload(Turn& turn, const JobId& id, const ModelOrder& order) {
  bool held_somewhere = false;
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    const model::Residency& held = entry.row;
    if (held.model_id != order.model_id) continue;
    if (!order.worker_id.empty() && held.worker_id != order.worker_id) continue;
    held_somewhere = true;
    const WorkerRecord& worker = turn.tables.liveness.workers.at(held.worker_id.str());
    if (held.state == model::ResidencyState::loaded && is_idle(turn, worker)) {
      return release(turn, worker, held, "as a person asked");
    }
  }
  if (held_somewhere) return Outcome::waits;
  end_order(turn, id, {});
  return Outcome::decided;
}

/// Copies of files that are not the model's any more go as soon as nobody works with them.
bool drop_stale(Turn& turn) {
  for (auto at = turn.live.stale.begin(); at != turn.live.stale.end();) {
    const model::Residency* held = model::residency(turn.tables.model, at->first, at->second);
    if (held == nullptr) {
      at = turn.live.stale.erase(at);
      continue;
    }
    const WorkerRecord& worker = turn.tables.liveness.workers.at(at->second.str());
    if (held->state == model::ResidencyState::loaded && is_idle(turn, worker)) {
      release(turn, worker, *held, "because its files changed");
      return true;
    }
    ++at;
  }
  for (auto at = turn.live.stale_segments.begin(); at != turn.live.stale_segments.end();) {
    const ModelId model = *at;
    const bool in_use =
        is_promised(turn, model, true) || std::ranges::any_of(turn.live.segments, [&](const auto& each) {
          return each.first.first == model && each.second.state == SegmentState::filling;
        });
    if (in_use) {
      ++at;
      continue;
    }
    const std::size_t dropped = std::erase_if(turn.live.segments, [&](const auto& each) {
      if (each.first.first != model) return false;
      if (each.second.state == SegmentState::ready) turn.effect(out::DropSegment{model, each.first.second});
      forget_segment(turn, each.first);
      return true;
    });
    at = turn.live.stale_segments.erase(at);
    if (dropped > 0) return true;  // a decision without a trace in the plan would end the pass
  }
  return false;
}

/// Open jobs in the order they are served: by the class and priority of their sessions, then as they were accepted.
std::vector<JobId> in_order(const Turn& turn) {
  std::vector<JobId> out(turn.live.open_jobs.begin(), turn.live.open_jobs.end());
  if (turn.live.open_sessions.empty()) return out;
  const auto rank = [&](const JobId& id) {
    const Job& job = turn.tables.processing.jobs.at(id.str());
    return processing::queue_rank(turn.tables.processing, turn.tables.processing.requests.at(job.request_id.str()));
  };
  std::ranges::stable_sort(out, {}, rank);
  return out;
}

}  // namespace

bool is_idle(const Turn& turn, const WorkerRecord& worker) {
  const auto live = turn.live.workers.find(worker.worker_id);
  return worker.state == WorkerState::ready && live != turn.live.workers.end() && live->second.link_open &&
         !live->second.silent && !live->second.kill_sent && live->second.task.empty();
}

void give_task(Turn& turn, const WorkerRecord& worker, std::string task, const JobId& job) {
  WorkerLive& live = turn.live.workers[worker.worker_id];
  LOCKSTEP_CHECK(live.task.empty());
  live.task = std::move(task);
  live.task_job = job;
}

void forget_copies(Turn& turn, const ModelId& id) {
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    if (entry.row.model_id == id) turn.live.stale.emplace(id, entry.row.worker_id);
  }
  const bool cached = std::ranges::any_of(turn.live.segments, [&](const auto& each) { return each.first.first == id; });
  if (cached) turn.live.stale_segments.insert(id);
}

bool load_in_flight(const Turn& turn, const JobId& job) {
  return std::ranges::any_of(turn.live.workers, [&](const auto& each) {
    return each.second.task_job == job && each.second.task.starts_with("load:");
  });
}

bool settle_models(Turn& turn) {
  if (!turn.live.scanned) return false;
  if (turn.live.stopping) {
    if (turn.live.orders.empty()) return false;
    end_order(turn, orders_in_turn(turn).front(), fail(ErrorCode::unavailable, "the server is stopping"));
    return true;
  }
  if (drop_stale(turn)) return true;
  Pass pass;
  for (const RoomWanted& wanted : rooms_wanted(turn)) {
    const WorkerRecord& worker = turn.tables.liveness.workers.at(wanted.worker_id.str());
    if (is_idle(turn, worker) && evict_one(turn, worker, {wanted.spared}) == Outcome::decided) return true;
  }
  const bool short_of_memory = step_is_on(turn, memory::EmergencyStep::stop_background_loads);
  for (const JobId& id : orders_in_turn(turn)) {
    ModelOrder& order = turn.live.orders.at(id);
    order.held = short_of_memory && !order.unload && order.priority != AllocationPriority::critical;
    if (order.held && !load_in_flight(turn, id)) continue;
    const Outcome outcome = order.unload ? advance_unload(turn, id, order) : advance_load(turn, pass, id, order);
    if (outcome == Outcome::decided) return true;
  }
  turn.live.order_wants_cache = pass.cache_blocked;
  return false;
}

bool drop_unpinned_segment(Turn& turn, Nanos unused_since, bool spare_queued) {
  const std::set<ModelId> queued = spare_queued ? models_of_queue(turn) : std::set<ModelId>{};
  const auto victim = oldest_segment(turn, [&](const SegmentKey& key, const SegmentLive& segment) {
    return segment.used_at > unused_since || queued.contains(key.first);
  });
  if (victim) drop_segment(turn, *victim);
  return victim.has_value();
}

bool settle_jobs(Turn& turn) {
  if (!turn.live.scanned || turn.live.drain_over) return false;
  Pass pass;
  pass.cache_blocked = turn.live.order_wants_cache;
  for (const JobId& id : in_order(turn)) {
    const Job& job = turn.tables.processing.jobs.at(id.str());
    const bool waiting = job.stage == JobStage::queued || job.stage == JobStage::generated;
    if (!waiting || (turn.live.stopping && job.stage == JobStage::queued)) continue;
    const Request& request = turn.tables.processing.requests.at(job.request_id.str());
    if (is_paused(turn, job) || !processing::may_start(turn.tables.processing, request)) continue;
    if (const Dependency* held = holds_back(turn.live.dependencies, request, job)) {
      if (held->outcome == RequestOutcome::queued) continue;
      give_up(turn, job,
              fail(ErrorCode::resource_exhausted,
                   cat("what its session asked other domains for was denied: ", held->reason)));
      return true;
    }
    if (advance(turn, pass, job) == Outcome::decided) return true;
    ++pass.waited;
    // With no worker idle nothing further can be dispatched either; the rest only waits.
    if (idle_workers(turn).empty()) return false;
  }
  return false;
}

}  // namespace lockstep
