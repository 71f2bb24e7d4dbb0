// A worker that tells of what is not its own: in the place of a heartbeat comes a frame that only the orchestrator may
// send. It must change nothing, be counted, and cost the worker nothing (design §2, step 2).

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

bool World::tells_of_foreign_facts(const Process& sender, const Message& message) {
  const FrameHeader& header = message.frame.header;
  if (static_cast<FrameType>(header.type) != FrameType::heartbeat || !machine_ || paused_) return false;
  const auto live = machine_->live().workers.find(sender.worker_id);
  const WorkerRecord* record = machine_->tables().liveness.workers.find(sender.worker_id.str());
  // Only where the heartbeat itself would have been heard; and its end of a silence is a change of its own.
  const bool heard = record != nullptr && live != machine_->live().workers.end() &&
                     record->incarnation == header.incarnation && record->state == WorkerState::ready &&
                     live->second.link == message.link &&
                     live->second.sequence_in[static_cast<std::size_t>(header.urgency)] + 1 == header.sequence &&
                     header.epoch == machine_->live().epoch && !live->second.silent;
  if (!heard || !strikes("not_its_own", manners_, 5000)) return false;
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

}  // namespace lockstep::sim
