// How a worker gets a link: it dials, is let in or refused, and gives back what it kept.

#include "sim/simulation.h"

#include "base/text.h"

namespace lockstep::sim {

void World::connect(std::int64_t pid, Nanos delay) {
  after(delay, [this, pid] {
    Process* process = living(pid);
    if (process == nullptr) return;
    if (now_ < process->cut_off_until) return worker_input(pid, win::DialFailed{"no route"});
    if (!loop_ || !machine_->live().started) return worker_input(pid, win::DialFailed{"nobody listens"});
    process->link = ++links_made_;
    dialed_[process->link] = pid;
    process->link_up = true;
    process->accepted = false;
    process->to_worker_at = process->to_orchestrator_at = 0;  // no order between one link and the next
    worker_input(pid, win::LinkOpened{});
  });
}

void World::carry_out(Process& process, wout::DropLink&) {
  process.link_up = false;
  process.link = 0;
}

void World::carry_out(Process& process, wout::KeepSegment& effect) {
  process.segments[{effect.model_id, effect.component}] = process.handles.at(effect.handle);
}

void World::carry_out(Process& process, wout::ForgetSegments& effect) {
  std::erase_if(process.segments, [&](const auto& each) { return each.first.first == effect.model_id; });
}

void World::carry_out(out::AcceptLink& effect) {
  if (strangers_.contains(effect.link)) return violation(cat("a stranger was let in as ", effect.worker_id.str()));
  // By the process behind the connection, which may have given it up meanwhile, or have ended.
  Process& process = *processes_.at(dialed_.at(effect.link));
  note_incarnation(effect.worker_id, effect.incarnation, process.incarnation == Incarnation{});
  if (process.incarnation == Incarnation{}) {
    fault(effect.incarnation == Incarnation{1} ? "guest_joined" : "guest_returned");
  } else {
    ++report_.rejoins;
  }
  process.incarnation = effect.incarnation;
  if (process.link == effect.link) process.accepted = true;
  if (!process.alive) input_soon(in::WorkerGone{effect.worker_id, effect.incarnation, "it had ended"});
}

void World::carry_out(out::RefuseLink& effect) {
  if (refused_stranger(effect)) return;
  for (auto& [pid, process] : processes_) {
    if (process->link != effect.link) continue;
    auto message = std::make_shared<Message>();
    message->frame = effect.frame;
    message->link = effect.link;
    deliver_to_worker(*process, message);
    const LinkId link = effect.link;
    at(process->to_worker_at + 1, [this, number = pid, link] { close_at_worker(number, link); });
  }
}

void World::carry_out(out::AdoptSegment& effect) {
  const Content content = handles_.at(effect.handle);
  handles_.erase(effect.handle);
  if (component_of(content) != cat(effect.model_id.str(), "/", effect.component))
    violation("a foreign segment was adopted");
  segments_[{effect.model_id.str(), effect.component}] = content;
  ++report_.segments_adopted;
}

}  // namespace lockstep::sim
