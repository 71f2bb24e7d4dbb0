// The lives of worker processes: start, death, silence, restart, the end (§3.7, design §6).

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/processing/rules.h"
#include "operations/workflow.h"
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

bool any_task_running(const Turn& turn) {
  return std::ranges::any_of(turn.live.open_jobs, [&](const JobId& id) {
    const processing::JobStage stage = turn.tables.processing.jobs.at(id.str()).stage;
    return stage != processing::JobStage::queued;
  });
}

}  // namespace

void on_started(Turn& turn, const in::Started& input) {
  const Identity* before = turn.tables.identity.find("self");
  Identity self = before == nullptr ? Identity{input.new_cluster_id, Epoch{}, ""} : *before;
  self.epoch = self.epoch.next();
  self.version = turn.settings.version;
  turn.live.epoch = self.epoch;
  turn.live.started = true;
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
    restart_job(turn.tables, entry.row, turn.change);
    ++restarted;
  }
  // Nothing that an earlier life granted is granted again before its process is proven gone.
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (entry.row.state == WorkerState::gone) continue;
    turn.live.workers[entry.row.worker_id].kill_sent = true;
    turn.effect(out::ProveGone{entry.row.worker_id, entry.row.incarnation, entry.row.pid, entry.row.start_ticks});
  }
  turn.log(cat("epoch ", self.epoch.value, ", rev ", turn.live.rev.value, ": ", turn.live.open_jobs.size(),
               " accepted images to do", restarted > 0 ? cat(", ", restarted, " of them start over") : ""));
  turn.effect(out::Listen{});
  turn.effect(out::ScanModels{});
}

void on_worker_spawned(Turn& turn, const in::WorkerSpawned& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerRecord named = *worker;
  named.pid = input.pid;
  named.start_ticks = input.start_ticks;
  turn.change.put(turn.tables.liveness.workers, named.worker_id.str(), named);
  turn.live.workers[input.worker_id].link_open = true;
  turn.log(cat(named.worker_id.str(), " started as process ", named.pid, ", incarnation ", named.incarnation.value));
}

void on_worker_gone(Turn& turn, const in::WorkerGone& input) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) return;
  WorkerLive& live = turn.live.workers[input.worker_id];
  // It counts against a job only when it died of itself or was ended for hanging, not when we stop or take over.
  const bool ours =
      worker->state == WorkerState::ending || (live.kill_sent && live.end_reason.empty() && !live.died_by_itself);
  std::string how = live.end_reason.empty() ? input.how : cat(live.end_reason, " (", input.how, ")");
  for (auto intent = turn.live.intents.begin(); intent != turn.live.intents.end();) {
    if (intent->second.worker_id != input.worker_id) {
      ++intent;
      continue;
    }
    turn.effect(out::DisarmTimer{cat("prepare:", intent->first.str())});
    intent = turn.live.intents.erase(intent);  // preparing + participant_lost -> aborted, and nothing was written
  }
  for (const std::string_view what : {"start", "silence", "progress", "freeze", "cancel"}) {
    turn.effect(out::DisarmTimer{timer(what, input.worker_id)});
  }
  worker_gone(turn.tables, *worker, how, !ours, turn.wall, turn.change);
  turn.warn(cat(worker->worker_id.str(), " is gone: ", how));
  live = WorkerLive{};
  const Nanos wait = ours ? 0 : restart_backoff(worker->deaths_in_a_row + 1);
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
  turn.live.workers[input.worker_id].link_open = false;
  // A worker ends itself without its link; killing it makes that certain and gives the proof.
  if (worker->state != WorkerState::ending) end_worker(turn, input.worker_id, cat("its link closed: ", input.reason));
}

void end_worker(Turn& turn, const WorkerId& id, const std::string& why) {
  const WorkerRecord& worker = turn.tables.liveness.workers.at(id.str());
  WorkerLive& live = turn.live.workers[id];
  if (live.kill_sent) return;
  live.kill_sent = true;
  live.end_reason = why;
  turn.warn(cat("ending ", id.str(), ": ", why));
  turn.effect(out::KillWorker{id, worker.incarnation, why});
}

void expect_progress(Turn& turn, const WorkerId& worker) {
  turn.effect(out::ArmTimer{timer("progress", worker), turn.now + turn.settings.timing.progress_deadline});
}

void task_over(Turn& turn, const WorkerId& worker) {
  WorkerLive& live = turn.live.workers[worker];
  turn.live.progress.erase(live.task_job);
  live.task.clear();
  live.task_job = {};
  turn.effect(out::DisarmTimer{timer("progress", worker)});
  turn.effect(out::DisarmTimer{timer("cancel", worker)});
}

void on_timer(Turn& turn, const in::TimerFired& input) {
  const std::size_t colon = input.name.find(':');
  const std::string what = input.name.substr(0, colon);
  const std::string subject = colon == std::string::npos ? "" : input.name.substr(colon + 1);
  const WorkerRecord* worker = turn.tables.liveness.workers.find(subject);
  if (what == "prepare") {
    const auto intent = turn.live.intents.find(TransactionId(subject));
    if (intent == turn.live.intents.end()) return;
    const LoadIntent load = intent->second;
    turn.live.intents.erase(intent);  // preparing + prepare_timeout -> aborted
    task_over(turn, load.worker_id);
    send(turn, turn.tables.liveness.workers.at(load.worker_id.str()), FrameType::transaction_abort,
         TransactionDecision{load.transaction_id}, 0, subject);
    blame_load(turn, load.wanted_by,
               fail(ErrorCode::deadline_exceeded,
                    cat(load.worker_id.str(), " did not vote on loading ", load.plan.model_id.str(), " in time")));
  } else if (what == "drain") {
    turn.live.drain_over = true;
    turn.warn("the drain limit has passed; what still runs is given up and will start over next time");
  } else if (worker == nullptr || worker->state == WorkerState::gone) {
    return;  // "restart": settle() sees that the wait is over
  } else if (what == "silence") {
    turn.live.workers[worker->worker_id].silent = true;
    turn.warn(cat(worker->worker_id.str(), " is silent; nothing new goes there"));
    turn.effect(out::ArmTimer{timer("freeze", worker->worker_id), turn.now + turn.settings.timing.freeze});
  } else if (what == "freeze") {
    end_worker(turn, worker->worker_id, "it was silent for too long");
  } else if (what == "progress") {
    end_worker(turn, worker->worker_id,
               cat("no progress for ", turn.settings.timing.progress_deadline / seconds(1), " s on ",
                   turn.live.workers[worker->worker_id].task));
  } else if (what == "cancel") {
    end_worker(turn, worker->worker_id,
               cat("it did not stop ", turn.live.workers[worker->worker_id].task, ", which was cancelled"));
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
      if (entry.row.state == WorkerState::gone) continue;
      all_gone = false;
      if (entry.row.state == WorkerState::ending) continue;
      WorkerRecord ending = entry.row;
      ending.state = *worker_lifecycle.next(entry.row.state, WorkerEvent::told_to_end);
      turn.change.put(turn.tables.liveness.workers, key, ending);
      turn.effect(out::KillWorker{entry.row.worker_id, entry.row.incarnation, "the orchestrator stops"});
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
  return false;
}

}  // namespace lockstep
