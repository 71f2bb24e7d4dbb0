// Bytes on the way: latency, order within a direction, cuts, and what is still read after them.

#include "sim/simulation.h"

#include <algorithm>

#include "base/digest.h"
#include "base/text.h"
#include "propagation/packed_frame.h"

namespace lockstep::sim {

namespace {

constexpr Nanos message_delay = seconds(7);  // of a script: longer than a vote may take, and than a silence

}  // namespace

Nanos World::arrival(Nanos& last) {
  Nanos latency = network_.between(20'000, 2'000'000);
  if (strikes("network_delay", network_, 3000)) {
    latency += milliseconds(network_.between(100, 3000));
    disturbed_until_ = std::max(disturbed_until_, now_ + latency);
  }
  if (strikes("link_one_way", network_, 400)) {  // this direction is silent, the other one is not
    latency += seconds(network_.between(1, 20));
    disturbed_until_ = std::max(disturbed_until_, now_ + latency);
  }
  if (ends_here("delayed")) {
    latency += message_delay;
    disturbed_until_ = std::max(disturbed_until_, now_ + latency);
  }
  last = std::max(last + 1, now_ + latency);
  return last;
}

std::string bytes_of(const Frame& frame) {
  std::string out;
  append_frame(out, frame.header, frame.body);
  return out;
}

/// For the trace: packed bytes by their digest.
std::string readable(const Frame& frame) {
  if (!frame.header.packed) return frame.body;
  return cat("packed ", frame.body.size(), " ", sha256_hex(frame.body));
}

/// The bytes of a frame as the socket gives them, whole or in pieces, through the reader of the real link.
void World::read_bytes(LinkId link, bool at_worker, Frame& frame) {
  const std::string bytes = bytes_of(frame);
  FrameReader& reader = readers_[{link, at_worker}];
  const bool singly = strikes("one_byte_reads", bytes_, 5000);
  const bool pieces = bytes_.chance(300'000);
  std::optional<Frame> whole;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto left = static_cast<std::int64_t>(bytes.size() - at);
    const auto size = static_cast<std::size_t>(singly ? 1 : pieces ? bytes_.between(1, left) : left);
    if (whole) return violation("a frame was read before its last byte");
    reader.take(std::string_view(bytes).substr(at, size));
    auto next = reader.next();
    if (!next) return violation(cat("a frame cannot be read: ", next.error().message));
    whole = *std::move(next);
    at += size;
  }
  if (!whole || whole->header != frame.header || whole->body != frame.body) {
    return violation(cat("a frame of type ", frame.header.type, " is not the one that was sent"));
  }
  frame = *std::move(whole);
}

/// What is left of a frame whose link was cut in the middle of it: nobody may hear any of it.
void World::read_torn(LinkId link, bool at_worker, const Frame& frame) {
  const std::string bytes = bytes_of(frame);
  const auto size = static_cast<std::size_t>(bytes_.between(0, static_cast<std::int64_t>(bytes.size()) - 1));
  if (!meets("cut_in_frame")) return;
  FrameReader& reader = readers_[{link, at_worker}];
  reader.take(std::string_view(bytes).substr(0, size));
  const auto next = reader.next();
  if (!next || *next) violation(cat("of a frame of ", bytes.size(), " bytes ", size, " came, and it was read"));
}

bool World::cut(Process& process, const Frame& frame, bool to_worker) {
  const bool by_script = ends_here("cut");
  if (!hits(network_, 800) && !by_script) return false;
  // One side may learn of it much later than the other, or only when another connection takes its place.
  const bool half_open = network_.chance(300'000) && !by_script;
  if (!by_script && !meets(half_open ? "link_half_open" : "link_cut")) return false;
  at(arrival(to_worker ? process.to_worker_at : process.to_orchestrator_at),
     [this, link = process.link, to_worker, frame] { read_torn(link, to_worker, frame); });
  process.link_up = false;
  disturbed_until_ = std::max(disturbed_until_, now_ + seconds(20));
  const std::int64_t pid = process.pid;
  after(milliseconds(1), [this, pid, link = process.link] { close_at_worker(pid, link); });
  const Nanos noticed = half_open ? seconds(network_.between(1, 20)) : milliseconds(1);
  later(noticed, in::LinkClosed{process.worker_id, process.incarnation, "connection reset", process.link});
  return true;
}

/// Once for each transaction, however often it is told.
void World::note_abort(const Frame& frame) {
  if (static_cast<FrameType>(frame.header.type) != FrameType::transaction_abort) return;
  if (!aborted_.insert(from_frame(frame).value().op_id).second) return;
  ++report_.aborted;
  report_.transactions = report_.spanning + report_.aborted;
}

void World::carry_out(out::SendFrame& effect) {
  note_epoch(effect.frame.header.epoch);
  note_abort(effect.frame);
  note_answer(effect);
  note_told(effect);
  judge_decision(effect);
  Process* process = living(effect.worker_id, effect.incarnation);
  if (process == nullptr || process->link != effect.link || !process->link_up || cut(*process, effect.frame, true))
    return;
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
  message->passage = effect.passage;
  queue(process->to_worker, std::move(message), process->pid, true);
}

void World::queue(std::shared_ptr<Line>& line, std::shared_ptr<Message> message, std::int64_t pid, bool to_worker) {
  if (line == nullptr || line->link != message->link) {
    // 10 MB a second, or one that is so slow that frames queue up.
    Nanos byte_time = 100;
    if (strikes("link_slow", network_, 100'000)) {
      byte_time = network_.between(5'000, 40'000);
      disturbed_until_ = std::max(disturbed_until_, now_ + seconds(5));
    }
    line = std::make_shared<Line>(lanes_counters_, message->link, byte_time);
  }
  message->pushed = ++line->pushed;
  if (!message->passage.newer.empty()) line->newest_of_sample[message->passage.newer] = message->pushed;
  const Frame frame = message->frame;
  const Passage passage = message->passage;
  if (!line->lanes.push(frame, passage, std::move(message), now_)) return violation("a line is full");
  if (!line->busy) transmit(line, pid, to_worker);
}

void World::transmit(const std::shared_ptr<Line>& line, std::int64_t pid, bool to_worker) {
  auto leaving = line->lanes.pop(now_);
  line->busy = leaving.has_value();
  if (!leaving) return;
  const auto message = std::move(leaving->cargo);
  message->frame = std::move(leaving->frame);
  if (line->byte_time > 100 && line->lanes.frames() > 0 && message->frame.header.urgency == Urgency::p0_critical) {
    fault("urgent_first");
  }
  const auto size = static_cast<Nanos>(frame_header_size + message->frame.body.size());
  after(size * line->byte_time, [this, line, pid, to_worker] {
    Process* process = living(pid);
    const bool present = process != nullptr && (to_worker ? process->to_worker : process->to_orchestrator) == line;
    if (present && process->link_up) transmit(line, pid, to_worker);
  });
  Process* process = living(pid);
  if (process == nullptr) return;
  judge_arrival(*line, *message);
  if (to_worker) {
    deliver_to_worker(*process, message);
  } else {
    cross_to_orchestrator(*process, message);
  }
}

/// S14, on the order in which frames leave; the way keeps it, or the receivers' numbers tell.
void World::judge_arrival(Line& line, const Message& message) {
  const FrameHeader& header = message.frame.header;
  std::uint64_t& count = line.arrived[static_cast<std::size_t>(header.urgency)];
  if (header.sequence != ++count) {
    violation(cat("lane P", static_cast<int>(header.urgency), " skips to ", header.sequence));
  }
  if (!message.passage.order.empty()) {
    std::uint64_t& last = line.last_of_order[message.passage.order];
    if (message.pushed < last) violation(cat("a frame of ", message.passage.order, " overtook its predecessor"));
    last = message.pushed;
  }
  if (!message.passage.newer.empty()) {
    const auto newest = line.newest_of_sample.find(message.passage.newer);
    if (newest == line.newest_of_sample.end() || newest->second != message.pushed) {
      violation(cat("a stale ", message.passage.newer, " left, and a newer one was queued"));
    }
  }
}

void World::deliver_to_worker(Process& process, std::shared_ptr<Message> message) {
  at(arrival(process.to_worker_at), [this, pid = process.pid, message] {
    Process* target = living(pid);
    if (target == nullptr || !target->link_up || target->link != message->link) return;
    if (target->paused) {  // its bytes wait in the socket
      target->when_awake.push_back([this, pid, message] { read_at_worker(pid, message); });
      return;
    }
    read_at_worker(pid, message);
  });
}

void World::read_at_worker(std::int64_t pid, const std::shared_ptr<Message>& message) {
  Process* target = living(pid);
  if (target == nullptr || !target->link_up || target->link != message->link) return;
  const bool welcome = message->frame.header.type == static_cast<std::uint16_t>(FrameType::welcome);
  if (refusing_ && welcome) message->frame = with_little_memory(message->frame);
  read_bytes(message->link, true, message->frame);
  win::FrameArrived arrived{message->frame, {}};
  for (const Content& content : message->contents) {
    target->handles[++target->handles_made] = content;
    arrived.handles.push_back(target->handles_made);
  }
  trace(target->worker_id.str(), cat("<- ", message->frame.header.type, " ", readable(message->frame)));
  note_heard(*target, message->frame);
  worker_input(pid, std::move(arrived));
  if (Process* const after = living(pid)) remember_transaction(*after, message->frame);
}

void World::note_heard(Process& process, const Frame& frame) {
  const auto type = static_cast<FrameType>(frame.header.type);
  if (type != FrameType::transaction_prepare && type != FrameType::transaction_abort &&
      type != FrameType::transaction_commit) {
    return;
  }
  process.heard.insert(TransactionId(from_frame(frame).value().op_id));
}

/// S5. Nobody prepares twice here; an orchestrator that did would meet a worker that remembers the abort.
void World::remember_transaction(Process& process, const Frame& frame) {
  const auto type = static_cast<FrameType>(frame.header.type);
  if (type != FrameType::transaction_prepare && type != FrameType::transaction_abort &&
      type != FrameType::transaction_commit) {
    return;
  }
  Envelope envelope = from_frame(frame).value();
  const TransactionId id(envelope.op_id);
  if (type != FrameType::transaction_prepare) in_doubt_.erase(cat(process.pid, "/", id.str()));
  if (type == FrameType::transaction_commit) {
    process.committed.insert(id);
    return;
  }
  if (type == FrameType::transaction_prepare) {
    process.prepares.insert_or_assign(id, frame);
    return;
  }
  process.aborted.insert(id);
  const auto prepare = process.prepares.find(id);
  if (prepare == process.prepares.end() || !process.link_up) return;
  if (prepare->second.header.epoch != frame.header.epoch) return;  // it would be refused for that alone
  if (!strikes("prepared_again", tellers_, 900'000)) return;
  envelope = from_frame(prepare->second).value();
  envelope.sequence = 0;
  auto message = std::make_shared<Message>();
  message->passage = {.newer = "", .order = id.str()};
  const auto again = read_message<TransactionPrepare>(envelope).value();
  const Form form = envelope.form;
  message->frame = to_frame(FrameType::transaction_prepare, std::move(envelope), again, 0, form);
  message->link = process.link;
  queue(process.to_worker, std::move(message), process.pid, true);
}

void World::judge_vote(Process& process, const Frame& frame) {
  if (static_cast<FrameType>(frame.header.type) != FrameType::transaction_vote) return;
  const auto vote = read_message<TransactionVote>(from_frame(frame).value()).value();
  if (vote.prepare_result != Vote::vote_commit) return;
  if (process.promised.insert(vote.transaction_id).second) {
    in_doubt_[cat(process.pid, "/", vote.transaction_id.str())] = process.pid;
  }
  if (process.aborted.contains(vote.transaction_id)) {
    violation(cat(process.worker_id.str(), " promised ", vote.transaction_id.str(), ", which was aborted"));
  }
}

/// What the coordinator says of a transaction, over all of its lives.
void World::judge_decision(const out::SendFrame& effect) {
  const auto type = static_cast<FrameType>(effect.frame.header.type);
  if (type != FrameType::transaction_prepare && type != FrameType::transaction_commit &&
      type != FrameType::transaction_abort) {
    return;
  }
  const std::string id = from_frame(effect.frame).value().op_id;
  const std::string worker = effect.worker_id.str();
  if (type == FrameType::transaction_prepare) {
    if (!prepared_.insert(id).second) violation(cat(id, " is prepared, and was before"));  // S3
  } else if (type == FrameType::transaction_abort) {
    // A decision whose frame was lost with a life is one too.
    if (decided_.contains(id) || machine_->tables().transactions.decisions.contains(id)) {
      violation(cat("S1: ", worker, " is told to abort ", id, ", which was committed"));
    }
  } else {
    if (aborted_.contains(id)) violation(cat("S1: ", worker, " is told to commit ", id, ", which was aborted"));
    decided_.insert(id);
    const Process* process = living(effect.worker_id, effect.incarnation);
    if (process != nullptr && !process->promised.contains(TransactionId(id))) {  // S2
      violation(cat(worker, " is told to commit ", id, ", which it has not promised"));
    }
  }
  if (type != FrameType::transaction_abort && hits(persons_, 20'000) && permits("overruled")) {
    // Most are over within milliseconds; those that hang are looked at later.
    const bool at_once = persons_.chance(700'000);
    const Nanos when = at_once ? persons_.between(0, milliseconds(4)) : milliseconds(persons_.between(4, 4000));
    after(when, [this, id] { overrule(id); });
  }
}

void World::carry_out(Process& process, wout::Send& effect) {
  if (withholds_answer(process, effect.frame)) return;
  judge_vote(process, effect.frame);
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
  message->passage = effect.passage;
  if (!process.link_up || cut(process, effect.frame, false)) return;
  queue(process.to_orchestrator, std::move(message), process.pid, false);
}

void World::cross_to_orchestrator(Process& process, const std::shared_ptr<Message>& message) {
  const bool first = !process.accepted && message->frame.header.type == static_cast<std::uint16_t>(FrameType::hello);
  Nanos when = arrival(process.to_orchestrator_at);
  if (doubled(process)) when = process.to_orchestrator_at += milliseconds(manners_.between(10, 400));
  at(when, [this, life = life_, pid = process.pid, message, first] {
    if (life == life_ && loop_) to_orchestrator(pid, message, first);
  });
}

bool World::doubled(Process& process) {
  if (!strikes("link_doubled", manners_, process.accepted ? 600 : 60'000)) return false;
  disturbed_until_ = std::max(disturbed_until_, now_ + seconds(5));
  after(milliseconds(1), [this, pid = process.pid, link = process.link] { close_at_worker(pid, link); });
  const Nanos noticed = seconds(manners_.between(1, 5));
  after(noticed, [this, life = life_, pid = process.pid, link = process.link] {
    const Process& gone = *processes_.at(pid);
    if (life == life_) input(in::LinkClosed{gone.worker_id, gone.incarnation, "connection reset", link});
  });
  return true;
}

void World::to_orchestrator(std::int64_t pid, const std::shared_ptr<Message>& message, bool first) {
  if (paused_) return when_awake([this, pid, message, first] { to_orchestrator(pid, message, first); });
  // A dead process's last bytes, and those of a link that was cut or replaced, arrive late: as long as nothing
  // closed the link on this side they are read, and it is the core that must tell what they are worth.
  const Process& sender = *processes_.at(pid);
  if (!readers_[{message->link, false}].empty()) return;  // the connection has ended within a frame
  read_bytes(message->link, false, message->frame);
  std::vector<HandleId> handles;
  for (const Content& content : message->contents) handles.push_back(keep(content));
  const FrameHeader& header = message->frame.header;
  trace("orchestrator", cat("<- ", sender.worker_id.str(), " ", header.type, " ", readable(message->frame)));
  const auto bound = machine_->live().workers.find(sender.worker_id);
  const bool late = bound != machine_->live().workers.end() && bound->second.link > message->link;
  if (late) fault(first ? "late_hello" : "late_bytes");
  const bool over = first ? late : is_over(sender, *message);
  const Lsn before = loop_->applied();
  const auto judge = [this, over, before, type = header.type, life = life_] {
    if (!over || !loop_ || life != life_ || loop_->applied() == before) return;
    violation(cat("S6: a frame of type ", type, " of a link that is over changed the state"));
  };
  if (first) {
    in::Peer peer;
    peer.pid = pid;
    peer.start_ticks = 1;
    input(in::WorkerDialed{message->link, peer, cat("token ", message->link), message->frame, handles,
                           message->contents});
    return judge();
  }
  const auto type = static_cast<FrameType>(header.type);
  const bool answers = type == FrameType::inference_completed || type == FrameType::postprocessing_completed;
  if (answers && !late && sender.worker_id == guest) fault("guest_worked");
  if (tells_of_foreign_facts(sender, *message) || speaks_of_an_earlier_epoch(pid, *message)) return;
  input(in::FrameArrived{sender.worker_id, sender.incarnation, message->frame, std::move(handles), message->link});
  judge();
}

}  // namespace lockstep::sim
