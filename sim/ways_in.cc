// How a worker gets a link: it dials, is let in or refused, and gives back what it kept.

#include "sim/simulation.h"

#include "base/text.h"

namespace lockstep::sim {

void World::connect(std::int64_t pid, Nanos delay) {
  after(delay, [this, pid] {
    Process* process = living(pid);
    if (process == nullptr) return;
    if (!loop_ || !machine_->live().started) return worker_input(pid, win::DialFailed{"nobody listens"});
    process->link = ++links_made_;
    process->link_up = true;
    process->accepted = false;
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
  if (effect.worker_id != guest) ++report_.rejoins;
  for (auto& [pid, process] : processes_) {
    if (process->link != effect.link) continue;
    process->accepted = true;
    process->incarnation = effect.incarnation;
  }
}

void World::carry_out(out::RefuseLink& effect) {
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
