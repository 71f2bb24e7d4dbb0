// A worker that tells of what is not its own: in the place of a heartbeat comes a frame that only the orchestrator may
// send. It must change nothing, be counted, and cost the worker nothing (design §2, step 2). And one that is of an
// earlier epoch, which costs it its life.

#include <vector>

#include "base/text.h"
#include "ownership/table.h"
#include "propagation/framing.h"
#include "sim/simulation.h"

namespace lockstep::sim {

namespace {

std::vector<FrameType> types_of_the_orchestrator() {
  std::vector<FrameType> out;
  for (const ownership::EventRow& row : ownership::event_table()) {
    if (row.sender == Side::orchestrator) out.push_back(row.type);
  }
  return out;
}

Count refused(const Live& live, const WorkerId& worker) {
  Count sum = 0;
  for (const auto& [key, times] : live.counters.writes_refused) sum += key.first == worker ? times : 0;
  return sum;
}

}  // namespace

bool World::is_over(const Process& sender, const Message& message) const {
  const auto live = machine_->live().workers.find(sender.worker_id);
  const WorkerRecord* record = machine_->tables().liveness.workers.find(sender.worker_id.str());
  return record == nullptr || record->incarnation != sender.incarnation || record->state == WorkerState::gone ||
         live == machine_->live().workers.end() || live->second.link != message.link;
}

bool World::would_be_heard(const Process& sender, const Message& message) const {
  const FrameHeader& header = message.frame.header;
  if (is_over(sender, message)) return false;
  const WorkerLive& live = machine_->live().workers.at(sender.worker_id);
  const WorkerRecord& record = machine_->tables().liveness.workers.at(sender.worker_id.str());
  // The end of a silence is a change of its own.
  return record.incarnation == header.incarnation && record.state == WorkerState::ready &&
         live.sequence_in[static_cast<std::size_t>(header.urgency)] + 1 == header.sequence &&
         header.epoch == machine_->live().epoch && !live.silent;
}

bool World::tells_of_foreign_facts(const Process& sender, const Message& message) {
  const FrameHeader& header = message.frame.header;
  if (static_cast<FrameType>(header.type) != FrameType::heartbeat || !machine_ || paused_) return false;
  if (!would_be_heard(sender, message) || !strikes("not_its_own", manners_, 5000)) return false;
  static const std::vector<FrameType> types = types_of_the_orchestrator();
  const auto which = static_cast<std::size_t>(manners_.between(0, static_cast<std::int64_t>(types.size()) - 1));
  Envelope envelope = from_frame(message.frame).value();
  const std::string digest = machine_->digest();
  const Count before = refused(machine_->live(), sender.worker_id);
  const std::uint64_t life = life_;
  input(in::FrameArrived{sender.worker_id, sender.incarnation, to_frame(types[which], envelope, 0), {}, message.link});
  if (!loop_ || life != life_) return true;  // it died of something else
  const std::string name = json::enum_name(types[which]);
  if (machine_->digest() != digest) violation(cat(name, " of a worker's changed the state"));
  if (refused(machine_->live(), sender.worker_id) != before + 1) violation(cat(name, " of a worker's was not counted"));
  return true;
}

/// S6. The present orchestrator's link, its sequence, its incarnation; the epoch is of the one before. Nobody here does
/// that by itself: what a worker had for an earlier life ends with the link to it. It is refused and counted, and who
/// speaks so is ended.
bool World::speaks_of_an_earlier_epoch(std::int64_t pid, const Message& message) {
  Process* sender = living(pid);
  const FrameHeader& header = message.frame.header;
  if (static_cast<FrameType>(header.type) != FrameType::heartbeat || sender == nullptr || header.epoch <= Epoch{1}) {
    return false;
  }
  if (!would_be_heard(*sender, message) || machine_->live().workers.at(sender->worker_id).kill_sent) return false;
  if (!strikes("earlier_epoch", epochs_, 2000)) return false;
  Envelope envelope = from_frame(message.frame).value();
  envelope.epoch = Epoch{header.epoch.value - 1};
  const auto counted = [this, id = sender->worker_id] {
    const auto& counts = machine_->live().counters.frames_refused;
    const auto place = counts.find(id);
    return place == counts.end() ? Count{} : place->second;
  };
  const Count before = counted();
  const Lsn applied = loop_->applied();
  const std::uint64_t life = life_;
  sender->speaks_badly = true;
  input(in::FrameArrived{
      sender->worker_id, sender->incarnation, to_frame(FrameType::heartbeat, envelope, 0), {}, message.link});
  if (!loop_ || life != life_) return true;  // it died of something else
  if (loop_->applied() != applied) violation("S6: a frame of an earlier epoch changed the state");
  if (counted() != before + 1) {
    violation(cat("S6: a frame of epoch ", envelope.epoch.value, " was heard in epoch ", header.epoch.value));
  }
  return true;
}

}  // namespace lockstep::sim
