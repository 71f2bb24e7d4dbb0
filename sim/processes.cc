// Worker processes: spawn, end, and the end noticed later.

#include "sim/simulation.h"

#include "base/text.h"

namespace lockstep::sim {

void World::carry_out(out::SpawnWorker& effect) {
  const WorkerId id = effect.worker.worker_id;
  for (const auto& [pid, process] : processes_) {
    if (process->alive && process->worker_id == id) {  // S8
      return violation(cat(id.str(), " is spawned while its incarnation ", process->incarnation.value, " lives"));
    }
  }
  note_incarnation(id, effect.incarnation, true);
  if (strikes("spawn_failed", crashes_, 30'000)) {
    return later(milliseconds(1), in::WorkerGone{id, effect.incarnation, "it could not be started"});
  }
  const std::int64_t pid = ++pids_made_;
  auto process = std::make_unique<Process>(id, effect.incarnation, pid, effect.worker.memory_budget, schema_of(pid));
  process->clock = clock_of(id);
  process->link = ++links_made_;
  process->link_up = true;
  process->accepted = true;
  const LinkId link = process->link;
  processes_[pid] = std::move(process);
  input_soon(in::WorkerSpawned{id, effect.incarnation, pid, 1, link, cat("token ", link)});
  after(milliseconds(handlers_.between(1, 20)), [this, pid, link] {
    Process* started = living(pid);
    if (started == nullptr) return;
    started->runs = true;
    worker_input(pid, win::LinkOpened{});
    started = living(pid);
    // It may inherit the end of a link.
    if (started != nullptr && !started->link_up) close_at_worker(pid, link);
  });
  when_free(pid, milliseconds(handlers_.between(500, 3000)), [this, pid] { worker_input(pid, win::HandlersReady{}); });
}

void World::start_guest() {
  const std::int64_t pid = ++pids_made_;
  processes_[pid] = std::make_unique<Process>(guest, Incarnation{}, pid, 6_GiB, schema_of(pid));
  processes_[pid]->clock = clock_of(guest);
  processes_[pid]->runs = true;
  trace("guest", cat("starts as process ", pid));
  if (manners_.chance(500'000)) {
    after(seconds(manners_.between(5, 30)), [this, pid] {
      Process* process = living(pid);
      if (process == nullptr || healed_ || !meets("guest_left")) return;
      end_process(*process, "exit status 0");
    });
  }
  after(milliseconds(handlers_.between(1, 20)), [this, pid] { worker_input(pid, win::DialNow{}); });
  when_free(pid, milliseconds(handlers_.between(500, 3000)), [this, pid] { worker_input(pid, win::HandlersReady{}); });
}

void World::when_free(std::int64_t pid, Nanos delay, std::function<void()> what) {
  after(delay, [this, pid, what = std::move(what)] {
    const Process* process = living(pid);
    if (process == nullptr) return;
    if (process->held_until > now_) return when_free(pid, process->held_until - now_, what);
    what();
  });
}

Process* World::living(std::int64_t pid) {
  const auto place = processes_.find(pid);
  return place == processes_.end() || !place->second->alive ? nullptr : place->second.get();
}

Process* World::living(const WorkerId& id) {
  for (auto& [pid, process] : processes_) {
    if (process->alive && process->worker_id == id) return process.get();
  }
  return nullptr;
}

Process* World::living(const WorkerId& id, Incarnation incarnation) {
  for (auto& [pid, process] : processes_) {
    if (process->alive && process->worker_id == id && process->incarnation == incarnation) {
      return process.get();
    }
  }
  return nullptr;
}

void World::end_process(Process& process, const std::string& how) {
  if (!process.alive) return;
  const Incarnation incarnation = process.incarnation;
  trace(process.worker_id.str(), cat("incarnation ", incarnation.value, " ends: ", how));
  process.alive = false;
  process.link_up = false;
  if (network_.chance(700'000)) {
    later(network_.between(1'000, 9'000), in::WorkerDying{process.worker_id, incarnation});
  }
  // What it had sent may still be read before its end is noticed, or not.
  later(network_.between(10'000, 5'000'000), in::WorkerGone{process.worker_id, incarnation, how});
  if (process.worker_id == guest) after(milliseconds(handlers_.between(10, 3000)), [this] { start_guest(); });
}

void World::close_at_worker(std::int64_t pid, LinkId link) {
  Process* process = living(pid);
  if (process == nullptr || process->link != link) return;
  process->link_up = false;
  if (!process->runs) return;  // nobody is there yet to notice
  process->link = 0;
  worker_input(process->pid, win::LinkClosed{"the other side closed it"});
}

void World::carry_out(out::KillWorker& effect) {
  Process* process = living(effect.worker_id, effect.incarnation);
  if (process == nullptr) return;
  judge_end(*process, effect.why);
  after(milliseconds(1), [this, pid = process->pid] {
    if (Process* target = living(pid)) end_process(*target, "signal 9 (Killed)");
  });
}

void World::judge_end(const Process& process, const std::string& why) {
  // Nobody else speaks badly here: what is taken for a bad frame was judged by what it does not belong to.
  if (why.starts_with("it sent") && !process.speaks_badly)
    violation(cat(process.worker_id.str(), " is ended, and spoke well: ", why));
  if (!why.starts_with("no progress")) return;
  fault("ended_without_progress");
  const Nanos deadline = settings_.timing.progress_deadline;
  const bool stalled = process.hung || now_ <= process.stalls_until + deadline;
  if (!stalled && now_ > disturbed_until_ + deadline) {
    violation(cat(process.worker_id.str(), " is ended for \"", why, "\", and its handlers made progress"));
  }
}

void World::carry_out(Process& process, wout::Exit& effect) {
  if (effect.reason.find("is not the process of") != std::string::npos) {
    violation(cat(process.worker_id.str(), " is itself, and was refused: ", effect.reason));
  }
  // 3: what it was told cannot be.
  if (effect.status == 3) violation(cat(process.worker_id.str(), " gives up its orchestrator: ", effect.reason));
  end_process(process, effect.reason);
}

void World::carry_out(out::ProveGone& effect) {
  after(milliseconds(10), [this, life = life_, effect] {
    if (life != life_) return;
    // A spawned one holds a lock of its name, also when the crash took the note of its pid.
    Process* process = effect.origin == Origin::spawned ? living(effect.worker_id) : living(effect.pid);
    if (process != nullptr && !effect.kill) return;  // its end will be seen
    if (process == nullptr) {
      return input(in::WorkerGone{effect.worker_id, effect.incarnation, "proven gone by its lock"});
    }
    if (process->pid == effect.pid) end_process(*process, "signal 9 (Killed)");  // the proof comes with the next look
    auto again = effect;
    carry_out(again);
  });
}

}  // namespace lockstep::sim
