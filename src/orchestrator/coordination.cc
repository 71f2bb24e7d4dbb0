#include "orchestrator/coordination.h"

#include <algorithm>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"
#include "operations/coordination.h"
#include "operations/limits.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/requests.h"

namespace lockstep {

namespace {

/// A request with what it says, the worker and the session it is about.
struct Wish {
  OpenRequest request;
  CrossDomainCoordination message;
  const WorkerRecord* worker = nullptr;

  const CoordinationRequest& needs() const { return message.coordination_request; }
  Bytes memory() const {
    return needs().requires_memory_allocation ? needs().requires_memory_allocation->bytes().value_or(Bytes{}) : Bytes{};
  }
  MemoryDemand demand(const processing::Session& session) const {
    const bool before_inference = std::ranges::any_of(
        message.dependent_operations, [](const std::string& each) { return each.starts_with("inference"); });
    const Nanos lasts =
        session.session_timeout ? session.session_timeout->nanos().value_or(coordination_lasts) : coordination_lasts;
    return {memory(), before_inference ? "inference" : "postprocessing", lasts, session.session_id};
  }
};

enum class Verdict { grant, wait, deny };

/// loads: its model is not there. room: nothing is missing but memory that other models have.
struct Judgement {
  Verdict verdict = Verdict::wait;
  std::string reason;
  bool loads = false;
  bool room = false;
};

Judgement no(std::string reason) { return {Verdict::deny, std::move(reason)}; }

void answer(Turn& turn, const OpenRequest& request, RequestAnswer what) {
  ++turn.live.counters.requests_answered[std::string(json::enum_name(what.outcome))];
  answer_request(turn, request, std::move(what));
}

/// Whether the worker was told of the session, or runs something of it.
bool works_for(const Turn& turn, const WorkerId& worker, const processing::Session& session) {
  const auto told = turn.live.sessions_told.find(session.session_id);
  if (told != turn.live.sessions_told.end() && told->second.contains(worker)) return true;
  return std::ranges::any_of(turn.live.open_jobs, [&](const JobId& id) {
    const processing::Job& job = turn.tables.processing.jobs.at(id.str());
    if (job.worker_id != worker) return false;
    return turn.tables.processing.requests.at(job.request_id.str()).session_id == session.session_id;
  });
}

bool is_there(const Turn& turn, const ModelId& model, const WorkerId& worker) {
  const model::Residency* held = model::residency(turn.tables.model, model, worker);
  return held != nullptr && held->state == model::ResidencyState::loaded;
}

/// What is to be said now. Limits first: a demand above one is never queued.
Judgement judge(const Turn& turn, const Wish& wish) {
  const DeviceId& device = wish.worker->device_id;
  const processing::Session* session = turn.tables.processing.sessions.find(wish.message.session_id);
  if (session == nullptr) return no(cat("there is no session ", shortened(wish.message.session_id)));
  if (processing::is_terminal(session->state)) {
    return no(cat("session ", session->session_id, " is ", json::enum_name(session->state)));
  }
  const auto& allowed = session->gpu_allocation;
  if (!allowed.empty() && std::ranges::find(allowed, device) == allowed.end()) {
    return no(cat("gpu_allocation of session ", session->session_id, " does not have ", device.str()));
  }
  Bytes model_bytes;
  bool loads = false;
  if (const auto& id = wish.needs().requires_model_loading) {
    const auto model = model::usable(turn.tables.model, *id);
    if (!model) return no(model.error().message);
    if (const Status can = loadable(**model); !can) return no(can.error().message);
    model_bytes = (*model)->bytes;
    loads = !is_there(turn, *id, wish.worker->worker_id);
    if (const Bytes cached = model::bytes_in_cache(turn.tables.model, **model); cached > cache_limit(turn)) {
      return no(cat("model ", id->str(), " needs ", to_text(cached), " in the cache; its limit is ",
                    to_text(cache_limit(turn))));
    }
  }
  const Bytes all = wish.memory() + model_bytes + memory::granted_to(turn.tables.memory, session->session_id, device);
  if (const Status within = memory::within_limit(all, session->max_memory, "max_memory"); !within) {
    return no(cat(within.error().message, " in session ", session->session_id));
  }
  const DeviceLimit limit = limit_on(turn.tables, device);
  if (wish.memory() + model_bytes > limit.bytes) {
    return no(cat("this needs ", to_text(wish.memory() + model_bytes), "; ", limit.name, " of ", device.str(), " is ",
                  to_text(limit.bytes)));
  }
  memory::Admission memory{.granted = true};
  if (wish.memory().value > 0) memory = admission_of(turn, *wish.worker, wish.demand(*session));
  if (memory.never) return no(memory.reason);
  if (loads) return {Verdict::wait, cat(wish.needs().requires_model_loading->str(), " has to be loaded"), true};
  // Without any other model it would fit beside what was granted: then models are in the way.
  const Bytes beside = memory::granted_on(turn.tables.memory, device) + promised_on(turn.live.intents, device) +
                       unproven_on(turn.tables, device) + model_bytes;
  if (!memory.granted) return {Verdict::wait, memory.reason, false, beside + wish.memory() <= limit.bytes};
  return {Verdict::grant, ""};
}

/// Seconds of one load, as measured since the start; 0 when none was.
double load_seconds(const Turn& turn) {
  const Histogram& loads = turn.live.counters.load_seconds;
  return loads.count() == 0 ? 0 : static_cast<double>(loads.sum()) / static_cast<double>(loads.count()) / 1e9;
}

/// When it may be granted: after what its worker runs and the load, or with what is released until then. Absent where
/// nothing was measured yet.
std::optional<WallTime> estimate(const Turn& turn, const Wish& wish, const Judgement& now) {
  if (!now.loads) {
    const processing::Session& session = turn.tables.processing.sessions.at(wish.message.session_id);
    return room_expected(turn, *wish.worker, wish.demand(session));
  }
  const double load = load_seconds(turn);
  if (load <= 0) return std::nullopt;
  const auto samples = turn.live.samples.find(wish.worker->device_id);
  const Nanos busy = samples == turn.live.samples.end() ? 0 : std::max<Nanos>(samples->second.busy_until - turn.now, 0);
  return WallTime{turn.wall.ms + busy / milliseconds(1) + static_cast<std::int64_t>(load * 1000)};
}

void grant(Turn& turn, const Wish& wish) {
  std::optional<GrantedReservation> reservation;
  if (wish.memory().value > 0) {
    const processing::Session& session = turn.tables.processing.sessions.at(wish.message.session_id);
    reservation = reserve_memory(turn, wish.request, *wish.worker, wish.demand(session));
  }
  answer(turn, wish.request, granted(wish.request, std::move(reservation)));
}

/// Open ones, the most wanted first, then as they came.
std::vector<Wish> open_wishes(const Turn& turn) {
  std::vector<Wish> out;
  for (OpenRequest& request : open_requests(turn.tables.requests)) {
    if (request.request_type != CrossDomainCoordination::event_type) continue;
    const auto message = json::from_text<CrossDomainCoordination>(request.body.text);
    LOCKSTEP_CHECK(message.has_value());  // read when it arrived
    const WorkerRecord& worker = turn.tables.liveness.workers.at(request.worker_id.str());
    out.push_back({std::move(request), *message, &worker});
  }
  std::ranges::stable_sort(
      out, {}, [](const Wish& each) { return std::pair(each.needs().coordination_priority, each.request.asked.ms); });
  return out;
}

bool is_ordered(const Turn& turn, const std::string& key) {
  return std::ranges::any_of(turn.live.orders, [&](const auto& each) { return each.second.request_key == key; });
}

/// An order whose request has ended is for nobody.
bool end_lost_order(Turn& turn) {
  for (const auto& [id, order] : turn.live.orders) {
    if (order.request_key.empty()) continue;
    const OpenRequest* request = turn.tables.requests.requests.find(order.request_key);
    if (request != nullptr && !is_final(request->answer.outcome)) continue;
    end_order(turn, JobId(id), fail(ErrorCode::cancelled, "the request that it was for has ended"));
    return true;
  }
  return false;
}

}  // namespace

Status coordination_asked(Turn& turn, const WorkerRecord& worker, const CrossDomainCoordination& asked) {
  LOCKSTEP_TRY_STATUS(check(asked));
  auto request = take_request(turn, worker, CrossDomainCoordination::event_type, coordination_id(asked),
                              json::to_text(asked), coordination_within);
  if (!request) return {};
  const processing::Session* session = turn.tables.processing.sessions.find(asked.session_id);
  if (session == nullptr || !works_for(turn, worker.worker_id, *session)) {
    // It has no say here: nothing of a session may wait for it, or fail by it.
    request->body.text = "{}";
    answer(turn, *request,
           denied(*request, session == nullptr ? cat("there is no session ", shortened(asked.session_id))
                                               : cat("it does not work for session ", asked.session_id)));
    return {};
  }
  for (const std::string& name : asked.dependent_operations) {
    if (names_an_operation(name)) continue;
    request->body.text = "{}";
    answer(turn, *request,
           denied(*request, cat("dependent_operations has ", shortened(name),
                                ", which is no operation; there are inference, postprocessing, upscaling and "
                                "safety_check")));
    return {};
  }
  const Wish wish{*request, asked, &worker};
  Judgement now = judge(turn, wish);
  if (wish.memory().value > 0 && now.verdict != Verdict::deny &&
      turn.tables.memory.level_of(worker.device_id.str()) == PressureLevel::critical &&
      asked.coordination_request.coordination_priority != AllocationPriority::critical) {
    now = no(cat("the pressure in ", worker.device_id.str(), " is critical"));
  }
  switch (now.verdict) {
    case Verdict::grant: grant(turn, wish); break;
    case Verdict::deny: answer(turn, *request, denied(*request, now.reason)); break;
    case Verdict::wait: answer(turn, *request, queued(*request, estimate(turn, wish, now), now.reason)); break;
  }
  return {};
}

bool settle_coordination(Turn& turn) {
  if (turn.live.stopping || !turn.live.scanned) return false;
  if (end_lost_order(turn)) return true;
  for (const Wish& wish : open_wishes(turn)) {
    const Judgement now = judge(turn, wish);
    const std::string key = request_key(wish.request);
    if (now.verdict == Verdict::deny) {
      answer(turn, wish.request, denied(wish.request, now.reason));
      return true;
    }
    if (now.verdict == Verdict::grant) {
      grant(turn, wish);
      return true;
    }
    if (!now.loads || is_ordered(turn, key)) continue;
    const ModelId& model = *wish.needs().requires_model_loading;
    turn.log(cat(wish.worker->worker_id.str(), " asks for ", model.str(), " for session ", wish.message.session_id));
    add_order(turn, {.model_id = model,
                     .worker_id = wish.worker->worker_id,
                     .request_key = key,
                     .priority = wish.needs().coordination_priority});
    return true;
  }
  return false;
}

void coordination_load_failed(Turn& turn, const std::string& request_key, const Error& why) {
  const OpenRequest* request = turn.tables.requests.requests.find(request_key);
  if (request == nullptr || is_final(request->answer.outcome)) return;
  answer(turn, *request, denied(*request, why.message));
}

void coordination_over(Turn& turn, const std::string& session) { release_grants_of(turn, session); }

std::vector<RoomWanted> rooms_wanted(const Turn& turn) {
  std::vector<RoomWanted> out;
  for (const Wish& wish : open_wishes(turn)) {
    if (!judge(turn, wish).room) continue;
    out.push_back({wish.worker->worker_id, wish.needs().requires_model_loading.value_or(ModelId())});
  }
  for (const WorkerId& worker : short_of_room(turn)) out.push_back({worker, ModelId()});
  return out;
}

}  // namespace lockstep
