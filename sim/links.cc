// Bytes on the way: latency, order within a direction, cuts, and what is still read after them.

#include "sim/simulation.h"

#include <algorithm>

#include "base/text.h"

namespace lockstep::sim {

Nanos World::arrival(Nanos& last) {
  Nanos latency = network_.between(20'000, 2'000'000);
  if (strikes(network_, 3000)) {
    fault("network_delay");
    latency += milliseconds(network_.between(100, 3000));
  }
  last = std::max(last + 1, now_ + latency);
  return last;
}

bool World::cut(Process& process) {
  if (!strikes(network_, 800)) return false;
  // One side may learn of it much later than the other, or only when another connection takes its place.
  const bool half_open = network_.chance(300'000);
  fault(half_open ? "link_half_open" : "link_cut");
  process.link_up = false;
  const std::int64_t pid = process.pid;
  after(milliseconds(1), [this, pid, link = process.link] { close_at_worker(pid, link); });
  const Nanos noticed = half_open ? seconds(network_.between(1, 20)) : milliseconds(1);
  later(noticed, in::LinkClosed{process.worker_id, process.incarnation, "connection reset", process.link});
  return true;
}

void World::carry_out(out::SendFrame& effect) {
  Process* process = living(effect.worker_id, effect.incarnation);
  if (process == nullptr || process->link != effect.link || !process->link_up || cut(*process)) return;
  auto message = std::make_shared<Message>();
  message->frame = effect.frame;
  message->link = effect.link;
  for (const out::Attachment& each : effect.attachments) {
    if (each.model_id.empty()) {
      message->contents.push_back(handles_.at(each.handle));
      continue;
    }
    const std::pair key{each.model_id.str(), each.component};
    if (!segments_.contains(key)) return violation(cat("segment ", key.first, "/", key.second, " is sent but gone"));
    message->contents.push_back(segments_.at(key));
  }
  deliver_to_worker(*process, message);
}

void World::deliver_to_worker(Process& process, std::shared_ptr<Message> message) {
  at(arrival(process.to_worker_at), [this, pid = process.pid, message] {
    Process* target = living(pid);
    if (target == nullptr || !target->link_up || target->link != message->link) return;
    win::FrameArrived arrived{message->frame, {}};
    for (const Content& content : message->contents) {
      target->handles[++target->handles_made] = content;
      arrived.handles.push_back(target->handles_made);
    }
    trace(target->worker_id.str(), cat("<- ", message->frame.header.type, " ", message->frame.body));
    worker_input(pid, std::move(arrived));
  });
}

void World::carry_out(Process& process, wout::Send& effect) {
  auto message = std::make_shared<Message>();
  message->frame = effect.frame;
  for (const worker::HandleId id : effect.handles) {
    message->contents.push_back(process.handles.at(id));
    process.handles.erase(id);
  }
  for (const HeldSegment& each : effect.segments) {
    message->contents.push_back(process.segments.at({each.model_id, each.component}));
  }
  message->link = process.link;
  if (!process.link_up || cut(process)) return;
  const bool first = !process.accepted && message->frame.header.sequence == 1;
  at(arrival(process.to_orchestrator_at), [this, life = life_, pid = process.pid, message, first] {
    // A dead process's last bytes, and those of a link that was cut or replaced, arrive late: as long as nothing
    // closed the link on this side they are read, and it is the core that must tell what they are worth.
    if (life != life_ || !loop_) return;
    const Process& sender = *processes_.at(pid);
    const Incarnation incarnation = sender.incarnation;
    std::vector<HandleId> handles;
    for (const Content& content : message->contents) handles.push_back(keep(content));
    trace("orchestrator",
          cat("<- ", sender.worker_id.str(), " ", message->frame.header.type, " ", message->frame.body));
    if (first) {
      in::Peer peer;
      peer.pid = pid;
      peer.start_ticks = 1;
      return input(in::WorkerDialed{message->link, peer, cat("token ", message->link), message->frame, handles,
                                    message->contents});
    }
    input(in::FrameArrived{sender.worker_id, incarnation, message->frame, std::move(handles), message->link});
  });
}

}  // namespace lockstep::sim
