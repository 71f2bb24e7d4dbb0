#include "orchestrator/starts.h"

#include <algorithm>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/limits.h"
#include "operations/workflow.h"
#include "orchestrator/costs.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_memory.h"

namespace lockstep {

namespace {

struct SetAsideBody {
  WorkerId worker_id;
  DeviceId device_id;
  Incarnation incarnation;
  std::uint32_t deaths = 0;
  std::string reason;
  std::string last_words;
};
BOOST_DESCRIBE_STRUCT(SetAsideBody, (), (worker_id, device_id, incarnation, deaths, reason, last_words))

struct RestartBody {
  WorkerId worker_id;
  std::string state;
};
BOOST_DESCRIBE_STRUCT(RestartBody, (), (worker_id, state))

constexpr Nanos never = seconds(100LL * 365 * 86'400);

const WorkerSettings* configured(const Turn& turn, const WorkerId& worker) {
  const auto place = std::ranges::find(turn.settings.workers, worker, &WorkerSettings::worker_id);
  return place == turn.settings.workers.end() ? nullptr : &*place;
}

bool is_set_aside(const Turn& turn, const WorkerId& worker) {
  const auto place = turn.live.starts.find(worker);
  return place != turn.live.starts.end() && place->second.breaker.open();
}

}  // namespace

Nanos wait_after_death(Turn& turn, const WorkerRecord& worker, const std::string& how, const std::string& last_words) {
  const Nanos backoff = restart_backoff(worker.deaths_in_a_row + 1);
  if (worker.state == WorkerState::ready) return backoff;  // it can start; what kills it later is a job's business
  const BreakerPolicy& policy = turn.settings.breaker;
  WorkerStarts& starts = turn.live.starts[worker.worker_id];
  const bool was_open = starts.breaker.open();
  if (!starts.breaker.died(turn.now, policy)) return backoff;
  const auto deaths = static_cast<std::uint32_t>(starts.breaker.deaths());
  starts.reason = was_open ? cat("it died again on a trial, before it was ready; the last time: ", how)
                           : cat("it died ", deaths, " times before it was ready; the last time: ", how);
  starts.last_words = last_words;
  ++turn.live.counters.set_aside;
  const std::string sentence = set_aside_because(turn, worker.worker_id);
  device::Device device = turn.tables.device.devices.at(worker.device_id.str());
  device.availability = device::Availability::offline;
  device.reason = sentence;
  turn.change.put(turn.tables.device.devices, device.device_id.str(), device);
  turn.change.event(
      "worker_set_aside", worker.worker_id.str(),
      SetAsideBody{worker.worker_id, worker.device_id, worker.incarnation, deaths, starts.reason, starts.last_words});
  const bool tries = policy.trial_after > 0;
  turn.warn(cat(sentence, "; ",
                tries ? cat("one start is tried in ", policy.trial_after / seconds(1), " s, or now") : "",
                tries ? "" : "it stays so", " with: lockstep workers restart ", worker.worker_id.str()));
  return tries ? policy.trial_after : never;
}

void forget_deaths(Turn& turn, const WorkerId& worker) { turn.live.starts.erase(worker); }

std::string set_aside_because(const Turn& turn, const WorkerId& worker) {
  if (!is_set_aside(turn, worker)) return "";
  return cat(worker.str(), " is set aside: ", turn.live.starts.at(worker).reason);
}

std::string nobody_works_because(const Turn& turn) {
  std::string all;
  for (const WorkerSettings& each : turn.settings.workers) {
    const std::string why = set_aside_because(turn, each.worker_id);
    if (why.empty()) return "";
    all += cat(all.empty() ? "no worker can be used: " : "; ", why);
  }
  return all;
}

namespace {

/// Why an idle worker does not run the job: what such a run takes beside its models is not free. §1.2
std::string no_room_because(const Turn& turn, const processing::Request& request, const processing::Job& job) {
  if (job.stage != processing::JobStage::queued) return "";
  std::string all;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    const auto live = turn.live.workers.find(entry.row.worker_id);
    if (live == turn.live.workers.end() || !live->second.task.empty()) continue;
    if (entry.row.state != WorkerState::ready) continue;
    const DeviceId& device = entry.row.device_id;
    const Bytes beside = predicted_beyond(turn, request.inference, device);
    const Bytes free = limit_on(turn.tables, device).bytes - memory::allocated_on(turn.tables.memory, device);
    if (beside <= free) continue;
    all += cat(all.empty() ? "a run of this size takes " : "; ", to_text(beside), " beside its models, and ",
               device.str(), " has ", to_text(free), " free");
  }
  return all;
}

}  // namespace

std::string waits_for(const Turn& turn, const processing::Job& job) {
  if (processing::is_terminal(job.stage) || !job.worker_id.empty() || turn.live.progress.contains(job.job_id) ||
      job.stage == processing::JobStage::storing) {
    return "";
  }
  if (turn.live.stopping) return "the server is stopping; it goes on after the restart";
  if (!turn.live.scanned) return "the models are being read";
  const processing::Request& request = turn.tables.processing.requests.at(job.request_id.str());
  if (!processing::may_start(turn.tables.processing, request)) {
    const processing::Session& session = turn.tables.processing.sessions.at(*request.session_id);
    return cat("its session ", session.session_id, " is ", json::enum_name(session.state));
  }
  if (const Dependency* held = holds_back(turn.live.dependencies, request, job)) {
    return cat("its session asked other domains for what it needs: ", held->reason);
  }
  if (turn.settings.workers.empty()) return "no worker is configured";
  Bytes need;
  for (const ModelId& id : models_needed(request, job)) {
    if (const auto model = model::usable(turn.tables.model, id)) need += (*model)->bytes;
  }
  std::string aside;
  std::string starting;
  bool usable = false;
  for (const WorkerSettings& each : turn.settings.workers) {
    if (each.memory_budget < need) continue;
    const std::string why = set_aside_because(turn, each.worker_id);
    const WorkerRecord* record = turn.tables.liveness.workers.find(each.worker_id.str());
    if (!why.empty()) {
      aside += cat(aside.empty() ? "" : "; ", why);
    } else if (record == nullptr || record->state != WorkerState::ready) {
      starting += cat(starting.empty() ? "" : ", ", each.worker_id.str());
    } else {
      usable = true;
    }
  }
  if (is_paused(turn, job)) {
    return "images after the first of a request, and those of batch and background sessions, "
           "wait until memory has been released";
  }
  const auto nowhere = [&](const ModelId& id) {
    return std::ranges::none_of(turn.tables.model.residencies.entries(), [&](const auto& each) {
      return each.second.row.model_id == id && each.second.row.state == model::ResidencyState::loaded;
    });
  };
  if (loads_nothing(turn, request) && std::ranges::any_of(models_needed(request, job), nowhere)) {
    return "memory is short: no model is loaded for background sessions";
  }
  if (const std::string no_device = no_device_because(turn, request, job); usable && !no_device.empty()) {
    return no_device;
  }
  if (const std::string no_room = no_room_because(turn, request, job); !no_room.empty()) return no_room;
  if (usable) return "the workers are busy with other images";
  if (!starting.empty()) return cat("it waits until a worker is ready; starting: ", starting);
  return cat("it needs ", to_text(need), " on one device, and every worker that has it is set aside: ", aside);
}

WorkerView worker_view(const Turn& turn, const WorkerRecord& worker) {
  WorkerView view = view_of(worker);
  const auto live = turn.live.workers.find(worker.worker_id);
  if (live != turn.live.workers.end()) {
    view.task = live->second.task;
    view.frames_refused = live->second.frames_refused;
    view.refused_there = live->second.refused_there;
    view.event_form = json::enum_name(live->second.form);
  }
  for (const auto& [key, times] : turn.live.counters.writes_refused) {
    if (key.first == worker.worker_id) view.writes_refused[key.second] = times;
  }
  for (const auto& [key, times] : turn.live.counters.events_not_yet) {
    if (key.first == worker.worker_id) view.events_not_yet[key.second] = times;
  }
  const bool waits = worker.state == WorkerState::gone && configured(turn, worker.worker_id) != nullptr;
  if (waits && live != turn.live.workers.end() && live->second.restart_at < turn.now + never / 2) {
    const Nanos left = std::max<Nanos>(live->second.restart_at - turn.now, 0);
    view.next_start_seconds = static_cast<double>(left) / static_cast<double>(seconds(1));
  }
  if (is_set_aside(turn, worker.worker_id)) {
    if (worker.state == WorkerState::gone) view.state = "broken";
    view.broken_because = turn.live.starts.at(worker.worker_id).reason;
    view.last_words = turn.live.starts.at(worker.worker_id).last_words;
  }
  return view;
}

void on_restart_worker(Turn& turn, const in::RestartWorker& input) {
  const std::string& id = input.worker_id.str();
  const WorkerRecord* worker = turn.tables.liveness.workers.find(id);
  if (worker == nullptr) {
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no worker ", shortened(id))));
  }
  if (turn.live.stopping) {
    return reply_error(turn, input.reply, fail(ErrorCode::unavailable, "the server is stopping"));
  }
  if (configured(turn, input.worker_id) == nullptr) {
    return reply_error(turn, input.reply,
                       fail(ErrorCode::invalid_transition,
                            cat("worker ", id, " is not in the configuration any more; nothing starts it")));
  }
  turn.log(cat("a person asked for a restart of ", id));
  turn.live.starts.erase(input.worker_id);
  WorkerLive& live = turn.live.workers[input.worker_id];
  live.restart_at = turn.now;  // settle() starts it, now or when its end is proven
  if (worker->state != WorkerState::gone && !live.kill_sent) {
    // Ended without a reason of its own: it counts neither against the worker nor against the job it runs.
    live.kill_sent = true;
    turn.effect(out::KillWorker{input.worker_id, worker->incarnation, "a person asked for a restart"});
  }
  turn.effect(out::Reply{input.reply, 202, json::to_text(RestartBody{input.worker_id, "starting"})});
}

}  // namespace lockstep
