// What workers are told of changes of state: workers whose answers are lost, and what must hold of every delivery
// (§2.1, §2.7, §2.8). The order is judged by what the workers really have, not by what the orchestrator believes.

#include "sim/simulation.h"

#include "base/text.h"
#include "domains/model/rules.h"
#include "events/json_read.h"
#include "propagation/framing.h"
#include "propagation/ordering.h"

namespace lockstep::sim {

namespace {

std::string row_of(std::string_view type, std::string_view subject) { return cat(type, "/", subject); }

}  // namespace

bool World::withholds_answer(const Process&, const Frame& frame) {
  return frame.header.type == static_cast<std::uint16_t>(FrameType::state_applied) &&
         strikes("answer_withheld", tellers_, 60'000);
}

const Process* World::target_of(const Delivery& row) {
  const WorkerRecord* record = machine_->tables().liveness.workers.find(row.worker_id.str());
  const auto live = machine_->live().workers.find(row.worker_id);
  if (record == nullptr || record->state != WorkerState::ready || live == machine_->live().workers.end()) {
    return nullptr;
  }
  // Silence, a link that ended and a kill take a target out of the set.
  if (!live->second.link_open || live->second.silent || live->second.kill_sent) return nullptr;
  const Process* process = living(row.worker_id, record->incarnation);
  return process != nullptr && process->link_up && process->link == live->second.link ? process : nullptr;
}

void World::note_told(const out::SendFrame& effect) {
  if (effect.frame.header.type != static_cast<std::uint16_t>(FrameType::state_changes)) return;
  const auto envelope = from_frame(effect.frame);
  const auto changes =
      envelope ? json::from_text<StateChanges>(envelope->body.text) : Result<StateChanges>(envelope.error());
  if (!changes) return violation("changes of state that cannot be read");
  const auto& rows = machine_->tables().propagation.deliveries.entries();
  std::set<std::string> here;
  std::set<std::uint64_t> revs;
  for (const StateEvent& event : changes->events) {
    here.insert(delivery_key(effect.worker_id, event.type, event.subject));
    revs.insert(event.rev);
    const auto [told, first] = told_at_.try_emplace(
        cat(effect.worker_id.str(), "/", effect.link, "/", row_of(event.type, event.subject)), event.rev, now_);
    if (first) continue;
    if (told->second.first == event.rev) {
      fault("told_again");
    } else {
      told->second = {event.rev, now_};
    }
  }
  for (const auto& [key, entry] : rows) {
    const Delivery& row = entry.row;
    if (row.worker_id == effect.worker_id && is_pending(row, effect.incarnation) && !here.contains(key) &&
        revs.contains(row.intended_rev.value)) {  // whole
      const auto told =
          told_at_.find(cat(effect.worker_id.str(), "/", effect.link, "/", row_of(row.type, row.subject)));
      const bool before = told != told_at_.end() && told->second.first == row.intended_rev.value;
      if (!before) violation(cat(key, " of rev ", row.intended_rev.value, " is left out of its frame"));
    }
    const Process* target = target_of(row);
    if (target == nullptr) continue;
    const auto applied = target->machine.applied_revs();
    const auto has = applied.find(row_of(row.type, row.subject));
    if (has != applied.end() && has->second >= row.intended_rev.value) continue;
    const auto told = told_at_.find(cat(row.worker_id.str(), "/", target->link, "/", row_of(row.type, row.subject)));
    // Its time is over once it was told twice, of this or of what it was told before. What leaves now may have been
    // decided as long ago as the disk stalls.
    const auto seen = late_at_.find(row.worker_id);
    const auto lane = machine_->live().deliveries.find(row.worker_id);
    const bool late = (seen != late_at_.end() && now_ - seen->second < late_for_) ||
                      (lane != machine_->live().deliveries.end() && lane->second.sent > 1);
    if (late || told == told_at_.end() || now_ - told->second.second >= redelivery_first) continue;
    for (const StateEvent& event : changes->events) {  // §2.8
      const Delivery* later =
          machine_->tables().propagation.deliveries.find(delivery_key(effect.worker_id, event.type, event.subject));
      if (later == nullptr || later->intended_rev.value != event.rev) continue;
      if (comes_before(row, later->type, later->about, later->intended_rev)) {
        violation(cat(event.type, " was told to ", effect.worker_id.str(), " before ", key, " was applied"));
      }
    }
  }
}

void World::check_delivered() {
  for (const auto& [id, lane] : machine_->live().deliveries) {  // S23
    const std::size_t rows = machine_->tables().propagation.deliveries.size();
    if (lane.told.size() > rows || lane.unanswered.size() > rows + 8 || lane.held.size() > 256) {
      violation(cat("what ", id.str(), " was told is kept without a bound"));
    }
    if (lane.sent > 1) late_at_[id] = now_;
  }
  for (const auto& [id, live] : machine_->live().workers) {
    if (live.silent || !live.link_open || live.kill_sent) late_at_[id] = now_;
  }
  for (const auto& [pid, process] : processes_) {
    if (!process->alive) continue;
    const auto applied = process->machine.applied_revs();
    for (const auto& [name, rev] : applied) {  // S15: what a worker knows never grows older
      std::uint64_t& newest = newest_applied_[{pid, name}];
      if (rev < newest) violation(cat(process->worker_id.str(), " fell back to rev ", rev, " of ", name));
      newest = rev;
    }
  }
  for (const auto& [key, entry] : machine_->tables().propagation.deliveries.entries()) {  // S13
    const Delivery& row = entry.row;
    const WorkerRecord* record = machine_->tables().liveness.workers.find(row.worker_id.str());
    if (record == nullptr || record->state == WorkerState::gone) {
      violation(cat(key, " is kept for a worker that is gone"));
      continue;
    }
    if (row.confirmed_rev > row.intended_rev) violation(cat(key, " was confirmed before it was intended"));
    const Process* process = living(row.worker_id, record->incarnation);
    if (process == nullptr || row.confirmed_by != record->incarnation) continue;
    const auto applied = process->machine.applied_revs();
    const auto has = applied.find(row_of(row.type, row.subject));
    if (has == applied.end() || has->second < row.confirmed_rev.value) {
      violation(cat(key, " counts as applied at rev ", row.confirmed_rev.value, ", and is not"));
    }
  }
}

bool World::all_told() {
  for (const auto& [key, entry] : machine_->tables().propagation.deliveries.entries()) {
    const WorkerRecord* record = machine_->tables().liveness.workers.find(entry.row.worker_id.str());
    if (record != nullptr && is_pending(entry.row, record->incarnation)) return false;
  }
  return true;
}

void World::check_told() {
  const Tables& tables = machine_->tables();
  for (const auto& [pid, process] : processes_) {
    if (!process->alive || !process->link_up) continue;
    const worker::Machine& worker = process->machine;
    const device::Routing* routes = tables.device.routes();
    if (routes != nullptr && json::to_text(DeviceRoutingUpdate{routes->routing_table, true}) !=
                                 json::to_text(DeviceRoutingUpdate{worker.routing(), true})) {
      violation(cat(process->worker_id.str(), " ends with other routes than were set"));
    }
    const std::string wanted = json::to_text(SizeText::of(Bytes{}));
    const auto limit = tables.memory.policy().vram_reservation_limit;
    const auto applied = worker.memory_policy().vram_reservation_limit;
    if ((limit ? limit->text : wanted) != (applied ? applied->text : wanted)) {
      violation(cat(process->worker_id.str(), " ends with another memory policy than was set"));
    }
    const device::Config* config =
        tables.device.configs.find(tables.liveness.workers.at(process->worker_id.str()).device_id.str());
    if (config != nullptr && config->confirmed.power_limit != worker.settings().power_limit) {
      violation(cat(process->worker_id.str(), " ends with another power limit than was confirmed"));
    }
    for (const auto& [id, entry] : tables.model.models.entries()) {
      bool cached = true;
      for (const model::Part& each : model::parts_of(tables.model, entry.row)) {
        const auto segment = machine_->live().segments.find({each.model_id, each.component.name});
        cached = cached && segment != machine_->live().segments.end() && segment->second.state == SegmentState::ready;
      }
      if (cached != worker.cached_models().contains(entry.row.model_id)) {
        violation(cat(process->worker_id.str(), " ends with a wrong idea of ", id, " in the cache"));
      }
    }
  }
}

}  // namespace lockstep::sim
