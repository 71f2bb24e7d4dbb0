// The lives of worker processes: start, death, silence, restart, the end (§3.7, design §6).

#include <algorithm>
#include <initializer_list>

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"
#include "domains/processing/rules.h"
#include "operations/workflow.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_calibration.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_key.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_saga.h"
#include "orchestrator/on_session.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/requests.h"
#include "orchestrator/starts.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

const WorkerSettings* configured(const Turn& turn, const WorkerId& worker) {
  const auto place = std::ranges::find(turn.settings.workers, worker, &WorkerSettings::worker_id);
  return place == turn.settings.workers.end() ? nullptr : &*place;
}

std::string timer(std::string_view what, const WorkerId& worker) { return cat(what, ":", worker.str()); }

void register_incarnation(Turn& turn, const WorkerSettings& settings, WorkerRecord record) {
  record.incarnation = record.incarnation.next();
  record.state = *worker_lifecycle.next(record.state, WorkerEvent::registered);
  record.device_id = settings.device_id;
  turn.change.put(turn.tables.liveness.workers, record.worker_id.str(), record);
  WorkerLive& live = turn.live.workers[record.worker_id];
  live = WorkerLive{};
  live.heard = turn.now;
  turn.effect(out::SpawnWorker{settings, record.incarnation});
  turn.effect(out::ArmTimer{timer("start", record.worker_id), turn.now + turn.settings.timing.start_deadline});
}

void prove_gone(Turn& turn, const WorkerRecord& worker, bool kill) {
  turn.effect(
      out::ProveGone{worker.worker_id, worker.incarnation, worker.pid, worker.start_ticks, worker.origin, kill});
}

void disarm(Turn& turn, const WorkerId& worker, std::initializer_list<std::string_view> timers) {
  for (const std::string_view what : timers) turn.effect(out::DisarmTimer{timer(what, worker)});
}

void forget_run(Turn& turn, const JobId& id) {
  turn.live.progress.erase(id);
  if (const auto* job = turn.tables.processing.jobs.find(id.str())) {
    turn.effect(out::DisarmTimer{cat("operation:", job->job_id.str(), ":", job->attempt)});
  }
}

/// Whether it still has to answer something that was cancelled.
bool awaits_cancelled(const Turn& turn, const WorkerRecord& worker) {
  const auto& batch = turn.live.workers.at(worker.worker_id).batch;
  return batch.empty() || std::ranges::any_of(batch, [&](const auto& each) {
           const processing::Job* job = turn.tables.processing.jobs.find(each.second.str());
           return job == nullptr || job->worker_id != worker.worker_id ||
                  inference::run_id(job->job_id, job->attempt) != each.first;
         });
}

bool any_task_running(const Turn& turn) {
  return std::ranges::any_of(turn.live.open_jobs, [&](const JobId& id) {
    const processing::Job& job = turn.tables.processing.jobs.at(id.str());
    if (job.stage == processing::JobStage::queued) return false;
    // A stop does not wait for what a paused session holds back.
    const processing::Request& request = turn.tables.processing.requests.at(job.request_id.str());
    return job.stage != processing::JobStage::generated || processing::may_start(turn.tables.processing, request);
  });
}

/// Rows of an earlier life's segments that no worker has given back: nobody holds that memory for us any more.
bool forget_lost_segments(Turn& turn) {
  const auto awaited = [](const auto& each) { return each.second.awaited; };
  if (std::ranges::any_of(turn.live.workers, awaited)) return false;
  bool any = false;
  for (const auto& [key, entry] : turn.tables.memory.segments.entries()) {
    const auto held = turn.live.segments.find({entry.row.model_id, entry.row.component});
    if (held != turn.live.segments.end() && held->second.state == SegmentState::ready) continue;
    turn.change.erase(turn.tables.memory.segments, key);
    any = true;
  }
  return any;
}

/// A load that will not be decided: nothing of it is durable, so it is forgotten (presumed abort).
LoadIntents::iterator forget_intent(Turn& turn, LoadIntents::iterator intent, TransactionEvent event) {
  LOCKSTEP_CHECK(after(intent->second.state, event) == TransactionState::aborted);
  load_aborts(turn, intent->first, event);
  turn.effect(out::DisarmTimer{cat("prepare:", intent->first.str())});
  return turn.live.intents.erase(intent);
}

}  // namespace

void abort_load(Turn& turn, const TransactionId& id, TransactionEvent event, const std::string& reason,
                const Error& why) {
  const LoadIntent load = turn.live.intents.at(id);
  forget_intent(turn, turn.live.intents.find(id), event);
  note_reason(turn, id, reason);
  task_over(turn, load.worker_id);
  send(turn, turn.tables.liveness.workers.at(load.worker_id.str()), FrameType::transaction_abort,
       TransactionDecision{id}, transaction_operation(id));
  blame_load(turn, load.wanted_by, why);
}

void drop_intents(Turn& turn, const WorkerId& worker) {
  for (auto intent = turn.live.intents.begin(); intent != turn.live.intents.end();) {
    if (intent->second.worker_id != worker) {
      ++intent;
      continue;
    }
    intent = forget_intent(turn, intent, TransactionEvent::participant_lost);
  }
}

void on_started(Turn& turn, const in::Started& input) {
  forget_interrupted(turn);
  const Identity* before = turn.tables.identity.find("self");
  Identity self = before == nullptr ? Identity{input.new_cluster_id, Epoch{}, ""} : *before;
  self.epoch = self.epoch.next();
  self.version = turn.settings.version;
  turn.live.epoch = self.epoch;
  turn.live.started = true;
  turn.live.worker_secret_sha256 = input.worker_secret_sha256;
  turn.change.put(turn.tables.identity, "self", self);

  for (const WorkerSettings& worker : turn.settings.workers) {
    turn.change.put(turn.tables.device.devices, worker.device_id.str(),
                    device::Device{worker.device_id, worker.worker_id, worker.kind, worker.memory_budget,
                                   device::Availability::offline, "starting"});
    if (!turn.tables.liveness.workers.contains(worker.worker_id.str())) {
      WorkerRecord record;
      record.worker_id = worker.worker_id;
      record.device_id = worker.device_id;
      turn.change.put(turn.tables.liveness.workers, worker.worker_id.str(), record);
    }
  }
  std::size_t restarted = 0;
  for (const auto& [key, entry] : turn.tables.processing.jobs.entries()) {
    if (processing::is_terminal(entry.row.stage) || entry.row.stage == processing::JobStage::queued) continue;
    const bool check_waits =
        entry.row.stage == processing::JobStage::generated &&
        turn.tables.processing.requests.at(entry.row.request_id.str()).kind == processing::RequestKind::check;
    if (check_waits) continue;
    // A worker that lives may still run it: it says so when it comes back, or is proven gone.
    const WorkerRecord* runs_it = turn.tables.liveness.workers.find(entry.row.worker_id.str());
    const bool running =
        entry.row.stage == processing::JobStage::inferring || entry.row.stage == processing::JobStage::postprocessing;
    if (running && runs_it != nullptr && runs_it->state != WorkerState::gone) continue;
    restart_job(turn.tables, entry.row, turn.change);
    ++restarted;
  }
  arm_session_timers(turn);
  take_up_loads(turn);
  take_up_sagas(turn);
  // Nothing that an earlier life granted is granted again before its process has rejoined or is proven gone.
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    const WorkerRecord& worker = entry.row;
    if (worker.state == WorkerState::gone) continue;
    const bool wanted = worker.origin != Origin::spawned || configured(turn, worker.worker_id) != nullptr;
    turn.live.workers[worker.worker_id].unseen = true;
    if (wanted && worker.state != WorkerState::ending) {
      await_worker(turn, worker);
    } else {
      turn.live.workers[worker.worker_id].kill_sent = true;
      prove_gone(turn, worker, true);
    }
  }
  turn.log(cat("epoch ", self.epoch.value, ", rev ", turn.live.rev.value, ": ", turn.live.open_jobs.size(),
               " accepted images to do", restarted > 0 ? cat(", ", restarted, " of them start over") : ""));
  rearm_requests(turn);
  rearm_memory(turn);
  turn.effect(out::Listen{});
  turn.effect(out::ScanModels{});
}

void on_worker_spawned(Turn& turn, const in::WorkerSpawned& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerRecord named = *worker;
  named.pid = input.pid;
  named.start_ticks = input.start_ticks;
  named.token_sha256 = sha256_hex(input.token);
  turn.change.put(turn.tables.liveness.workers, named.worker_id.str(), named);
  WorkerLive& live = turn.live.workers[input.worker_id];
  live.link = input.link;
  live.link_open = true;
  live.token = input.token;
  turn.log(cat(named.worker_id.str(), " started as process ", named.pid, ", incarnation ", named.incarnation.value));
}

void on_worker_gone(Turn& turn, const in::WorkerGone& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerLive& live = turn.live.workers[input.worker_id];
  // It counts against a job only when it died of itself or was ended for hanging, not when we stop or take over.
  const bool ours = worker->state == WorkerState::ending || live.unseen ||
                    (live.kill_sent && live.end_reason.empty() && !live.died_by_itself);
  std::string how = live.end_reason.empty() ? input.how : cat(live.end_reason, " (", input.how, ")");
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    const model::Residency& held = entry.row;
    if (held.worker_id != input.worker_id || held.state != model::ResidencyState::loading) continue;
    load_fails(turn, held.transaction_id, "worker_lost", how);
  }
  drop_intents(turn, input.worker_id);
  disarm(turn, input.worker_id, {"start", "silence", "progress", "freeze", "cancel", "rejoin"});
  ++turn.live.counters
        .worker_deaths[{input.worker_id, std::string(death_cause(input.how, ours, !live.end_reason.empty()))}];
  worker_gone(turn.tables, *worker, how, !ours, turn.wall, turn.change);
  requester_gone(turn, input.worker_id);
  calibration_lost(turn, *worker, how);
  device_lost(turn, *worker);
  memory_lost(turn, *worker);
  end_deliveries(turn, *worker);
  turn.warn(cat(worker->worker_id.str(), " is gone: ", how));
  turn.live.progress.erase(live.task_job);
  for (const auto& [run, job] : live.batch) turn.live.progress.erase(job);
  live = WorkerLive{};
  const Nanos wait = ours ? 0 : wait_after_death(turn, *worker, how, input.last_words);
  live.restart_at = turn.now + wait;
  if (wait > 0) turn.effect(out::ArmTimer{timer("restart", input.worker_id), live.restart_at});
}

void on_worker_dying(Turn& turn, const in::WorkerDying& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerLive& live = turn.live.workers[input.worker_id];
  live.link_open = false;  // nothing new goes there; what it holds stays its own until it is proven gone
  turn.publish("worker_dying", input.worker_id.str(), *worker);
  if (live.kill_sent || worker->state == WorkerState::ending) return;
  turn.warn(cat(input.worker_id.str(), " is dying"));
  // A broken life line without an end would leave a worker that we believe dead: killing it makes both true.
  live.kill_sent = true;
  live.died_by_itself = true;
  turn.effect(out::KillWorker{input.worker_id, worker->incarnation, "its life line broke"});
}

void on_link_closed(Turn& turn, const in::LinkClosed& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerLive& live = turn.live.workers[input.worker_id];
  if (live.link != input.link) return;  // another connection has taken its place
  live.link_open = false;
  if (worker->state == WorkerState::ending || live.kill_sent) return;
  turn.log(cat(input.worker_id.str(), " lost its link (", input.reason, "); waiting for it to come back"));
  drop_intents(turn, input.worker_id);
  disarm(turn, input.worker_id, {"silence", "progress", "freeze", "deliver", "command"});
  look_again(turn);
  await_worker(turn, *worker);
}

void await_worker(Turn& turn, const WorkerRecord& worker) {
  WorkerLive& live = turn.live.workers[worker.worker_id];
  live.awaited = true;
  const LivenessTiming& timing = turn.settings.timing;
  const Nanos limit = worker.origin == Origin::tls ? timing.rejoin_remote : timing.rejoin;
  turn.effect(out::ArmTimer{timer("rejoin", worker.worker_id), turn.now + limit});
  prove_gone(turn, worker, false);
}

void end_worker(Turn& turn, const WorkerId& id, const std::string& why) {
  const WorkerRecord& worker = turn.tables.liveness.workers.at(id.str());
  WorkerLive& live = turn.live.workers[id];
  if (live.kill_sent) return;
  live.kill_sent = true;
  live.end_reason = why;
  turn.warn(cat("ending ", id.str(), ": ", why));
  if (live.awaited) return prove_gone(turn, worker, true);  // no handle of ours may lead to it
  turn.effect(out::KillWorker{id, worker.incarnation, why});
}

void expect_progress(Turn& turn, const WorkerId& worker) {
  turn.effect(out::ArmTimer{timer("progress", worker), turn.now + turn.settings.timing.progress_deadline});
}

void task_over(Turn& turn, const WorkerId& worker) {
  WorkerLive& live = turn.live.workers[worker];
  forget_run(turn, live.task_job);
  for (const auto& [run, job] : live.batch) forget_run(turn, job);
  live.task.clear();
  live.task_job = {};
  live.batch.clear();
  live.batch_size = 0;
  turn.effect(out::DisarmTimer{timer("progress", worker)});
  turn.effect(out::DisarmTimer{timer("cancel", worker)});
}

void run_over(Turn& turn, const WorkerId& worker, const std::string& op_id) {
  WorkerLive& live = turn.live.workers[worker];
  if (!live.works_on(op_id)) return;
  if (live.batch.empty() || live.batch.size() == 1) return task_over(turn, worker);
  forget_run(turn, live.batch.at(op_id));
  live.batch.erase(op_id);
  expect_progress(turn, worker);  // one image less is progress
}

void on_timer(Turn& turn, const in::TimerFired& input) {
  const std::size_t colon = input.name.find(':');
  const std::string what = input.name.substr(0, colon);
  const std::string subject = colon == std::string::npos ? "" : input.name.substr(colon + 1);
  if (on_session_timer(turn, what, subject)) return;
  const WorkerRecord* worker = turn.tables.liveness.workers.find(subject);
  if (what == "prepare") {
    const TransactionId id(subject);
    const TransactionState state = state_of(turn.tables, turn.live.intents, id);
    if (after(state, TransactionEvent::prepare_timeout) == state) return;  // the vote was faster
    const LoadIntent& load = turn.live.intents.at(id);
    LOCKSTEP_CHECK(turn.live.workers[load.worker_id].task == cat("load:", subject));
    abort_load(turn, id, TransactionEvent::prepare_timeout, cat(load.worker_id.str(), " did not vote in time"),
               fail(ErrorCode::deadline_exceeded,
                    cat(load.worker_id.str(), " did not vote on loading ", load.plan.model_id.str(), " in time")));
  } else if (what == "request") {
    request_timed_out(turn, subject);
  } else if (what == "grant") {
    grant_lapsed(turn, subject);
  } else if (what == "saga") {
    saga_due(turn, subject);
  } else if (what == "collect") {
    collect_idle(turn);
  } else if (what == "drain") {
    turn.live.drain_over = true;
    turn.warn("the drain limit has passed; what still runs is given up and will start over next time");
  } else if (worker == nullptr || worker->state == WorkerState::gone) {
    return;  // "restart": settle() sees that the wait is over
  } else if (what == "command") {
    turn.live.untold.insert(worker->worker_id);  // tokens came back
  } else if (what == "deliver") {
    delivery_due(turn, *worker);
  } else if (what == "silence") {
    turn.live.workers[worker->worker_id].silent = true;
    look_again(turn);
    turn.warn(cat(worker->worker_id.str(), " is silent; nothing new goes there"));
    turn.effect(out::ArmTimer{timer("freeze", worker->worker_id), turn.now + turn.settings.timing.freeze});
  } else if (what == "freeze") {
    end_worker(turn, worker->worker_id, "it was silent for too long");
  } else if (what == "progress") {
    end_worker(turn, worker->worker_id,
               cat("no progress for ", turn.settings.timing.progress_deadline / seconds(1), " s on ",
                   turn.live.workers[worker->worker_id].task));
  } else if (what == "cancel" && !awaits_cancelled(turn, *worker)) {
    return;  // the cancelled image of a batch was answered, and the others go on
  } else if (what == "cancel") {
    end_worker(turn, worker->worker_id,
               cat("it did not stop ", turn.live.workers[worker->worker_id].task, ", which was cancelled"));
  } else if (what == "rejoin") {
    if (turn.live.workers[worker->worker_id].awaited) {
      end_worker(turn, worker->worker_id, "it did not come back after its link ended");
    }
  } else if (what == "start") {
    if (worker->state != WorkerState::ready) end_worker(turn, worker->worker_id, "it was not ready in time");
  }
}

void on_stop(Turn& turn) {
  if (turn.live.stopping) {
    turn.live.drain_over = true;  // asked twice: now
    return;
  }
  turn.live.stopping = true;
  turn.log(cat("stopping: running images are finished, ", turn.live.open_jobs.size(), " are open"));
  turn.effect(out::ArmTimer{"drain:", turn.now + turn.settings.timing.drain_limit});
}

bool settle_workers(Turn& turn) {
  if (turn.live.stopping) {
    if (!turn.live.drain_over && any_task_running(turn)) return false;
    bool all_gone = true;
    for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
      // Workers that somebody else runs stay: they look for the next orchestrator, with what they hold.
      if (entry.row.state == WorkerState::gone || entry.row.origin != Origin::spawned) continue;
      all_gone = false;
      if (entry.row.state == WorkerState::ending) continue;
      WorkerRecord ending = entry.row;
      ending.state = *worker_lifecycle.next(entry.row.state, WorkerEvent::told_to_end);
      turn.change.put(turn.tables.liveness.workers, key, ending);
      if (turn.live.workers[entry.row.worker_id].awaited) {
        prove_gone(turn, entry.row, true);
      } else {
        turn.effect(out::KillWorker{entry.row.worker_id, entry.row.incarnation, "the orchestrator stops"});
      }
      return true;
    }
    if (!all_gone) return false;
    turn.live.stopped = true;
    for (const auto& [id, waiting] : turn.live.waiting) {
      reply_error(turn, waiting.reply,
                  fail(ErrorCode::unavailable,
                       cat("the server stopped; request ", id.str(), " is accepted and goes on after its restart")));
    }
    turn.live.waiting.clear();
    turn.effect(out::Stop{turn.live.open_jobs.size()});
    return true;
  }
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    const WorkerSettings* settings = configured(turn, entry.row.worker_id);
    if (settings == nullptr || entry.row.state != WorkerState::gone) continue;
    if (turn.live.workers[entry.row.worker_id].restart_at > turn.now) continue;
    register_incarnation(turn, *settings, entry.row);
    return true;
  }
  return forget_lost_segments(turn);
}

}  // namespace lockstep
