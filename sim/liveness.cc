// What must come true once no fault happens any more (reference/consistency §9), each sentence by its name:
// L1 every transaction is decided, L2 every saga ends, L5 every client has its answer, L6 nothing is left behind.

#include "sim/simulation.h"

#include <algorithm>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"

namespace lockstep::sim {

namespace {

constexpr Nanos in_doubt_max = seconds(60);  // reference/consistency §9, L1

bool undoes(const Tables& tables) {
  return std::ranges::any_of(tables.transactions.sagas.entries(),
                             [](const auto& each) { return each.second.row.state != SagaStatus::parked; });
}

}  // namespace

bool World::at_rest() {
  if (!loop_ || paused_ || !machine_->live().started || loop_->pending() > 0 || syncing_) return false;
  if (!machine_->live().open_jobs.empty() || !waiting_replies_.empty()) return false;
  if (!machine_->live().calibrations.empty()) return false;
  for (const auto& [key, entry] : machine_->tables().liveness.workers.entries()) {
    if (entry.row.state != WorkerState::ready) return false;
  }
  for (const auto& [key, entry] : machine_->tables().model.residencies.entries()) {
    if (entry.row.state != model::ResidencyState::loaded) return false;
  }
  if (undoes(machine_->tables())) return false;
  // A decision to abort may be on its way: the orchestrator waits for no answer to it.
  for (const auto& [pid, process] : processes_) {
    if (process->alive &&
        process->machine.transactions_remembered() > process->aborted.size() + process->committed.size())
      return false;
  }
  // What is in the cache is told when no segment is on its way to it.
  const auto filling = [](const auto& each) { return each.second.state == SegmentState::filling; };
  if (std::ranges::any_of(machine_->live().segments, filling)) return false;
  return machine_->tables().transactions.decisions.entries().empty() && machine_->live().intents.empty() &&
         all_told() && all_answered();
}

/// Every request of a worker that lives has its one final answer, and the worker has heard it.
bool World::all_answered() {
  for (const auto& [key, entry] : machine_->tables().requests.requests.entries()) {
    if (!is_final(entry.row.answer.outcome)) return false;
    Process* process = living(entry.row.worker_id, entry.row.incarnation);
    if (process == nullptr) continue;
    const auto& answers = process->machine.request_answers();
    const auto heard = answers.find({entry.row.request_type, entry.row.request_id});
    if (heard == answers.end() || !is_final(heard->second.outcome)) return false;
  }
  return true;
}

std::string World::unkept() {
  if (!machine_ || !machine_->live().started) return "";
  const Live& live = machine_->live();
  const auto unsettled = [](const auto& each) { return each.second.row.state != model::ResidencyState::loaded; };
  std::string out;
  const auto name = [&](bool broken, std::string_view sentence) {
    if (broken) out += cat(out.empty() ? "" : ", ", sentence);
  };
  name(!live.intents.empty() || machine_->tables().transactions.decisions.size() > 0, "L1");
  name(!live.open_jobs.empty() || undoes(machine_->tables()) ||
           std::ranges::any_of(machine_->tables().model.residencies.entries(), unsettled),
       "L2");
  name(!waiting_replies_.empty() || !live.calibrations.empty() || !all_answered(), "L5");
  return out.empty() ? "" : cat(out, ": ");
}

std::string World::unrest() {
  if (!loop_) return "no orchestrator";
  if (!machine_->live().started) return "the orchestrator has not started";
  std::string out = cat(machine_->live().open_jobs.size(), " open jobs, ", waiting_replies_.size(), " replies due, ",
                        machine_->tables().transactions.decisions.size(), " decisions");
  for (const auto& [key, entry] : machine_->tables().liveness.workers.entries()) {
    const auto live = machine_->live().workers.find(entry.row.worker_id);
    out += cat(", ", key, " ", json::enum_name(entry.row.state), " task \"",
               live == machine_->live().workers.end() ? "" : live->second.task, "\"");
  }
  for (const OpenRequest& request : open_requests(machine_->tables().requests)) {
    out += cat(", ", request_key(request), " has no answer");
  }
  for (const auto& [id, calibration] : machine_->live().calibrations) {
    out += cat(", calibration of ", id.str(), calibration.begun ? " begun" : "");
  }
  for (const auto& [key, segment] : machine_->live().segments) {
    out += cat(", segment ", key.first.str(), "/", key.second, " ", json::enum_name(segment.state));
  }
  for (const auto& [key, entry] : machine_->tables().model.residencies.entries()) {
    out += cat(", ", key, " ", json::enum_name(entry.row.state));
  }
  for (const auto& [key, entry] : machine_->tables().transactions.sagas.entries()) {
    out += cat(", ", key, " ", json::enum_name(entry.row.state));
  }
  return out;
}

/// Nothing of the faults is left: what is late now is late by itself.
bool World::is_whole() {
  const auto paused = [](const auto& each) { return each.second->alive && each.second->paused; };
  return healed_ && loop_ && !paused_ && machine_->live().started && now_ > disturbed_until_ &&
         std::ranges::none_of(processes_, paused);
}

/// L1, and L5 of workers' requests, while it lasts: what waits too long is no rest that comes late.
void World::check_decided() {
  if (!is_whole()) return undecided_.clear();
  std::map<std::string, Nanos> limits;
  for (const auto& [id, intent] : machine_->live().intents) limits[cat("L1: ", id.str(), " is not decided")] = 0;
  for (auto& [what, limit] : limits) limit = 2 * settings_.prepare_deadline;
  for (const auto& [key, entry] : machine_->tables().transactions.decisions.entries()) {
    const Process* process = living(entry.row.participant, entry.row.incarnation);
    if (process == nullptr || !process->link_up) continue;
    limits[cat("L1: ", key, " is decided, and its participant has not said that it knows")] = in_doubt_max;
  }
  std::erase_if(in_doubt_, [this](const auto& each) { return living(each.second) == nullptr; });
  for (const auto& [key, pid] : in_doubt_) {
    const Process* process = living(pid);
    if (process->link_up && process->accepted)
      limits[cat("L1: ", process->worker_id.str(), " is in doubt of ", key)] = in_doubt_max;
  }
  for (const OpenRequest& request : open_requests(machine_->tables().requests)) {
    limits[cat("L5: ", request_key(request), " has no answer")] = request.answer_within;
  }
  std::erase_if(undecided_, [&](const auto& each) { return !limits.contains(each.first); });
  for (const auto& [what, limit] : limits) {
    const Nanos since = undecided_.try_emplace(what, now_).first->second;
    if (now_ - since > limit) violation(cat(what, " after ", limit / seconds(1), " s"));
  }
}

/// L2. Rest says that no job is open, no model comes or goes and nothing is being undone; this, that the log of
/// transactions agrees. What is parked is no end, but it waits for a person, and has its record.
void World::check_terminal() {
  for (const TransactionId& id : machine_->live().transactions.open) {
    if (!machine_->tables().transactions.sagas.contains(saga_id_of(id)))
      violation(cat("L2: ", id.str(), " has no end"));
  }
  check_rolled_back();
  for (const auto& [key, entry] : machine_->tables().processing.jobs.entries()) {
    if (!processing::is_terminal(entry.row.stage)) violation(cat("L2: ", key, " has no end"));
  }
}

/// What was rolled back is not on the disk any more; where it is, a record says what keeps it there.
void World::check_rolled_back() {
  const Tables& tables = machine_->tables();
  const auto due = [](const std::string& content) {
    return [&](const auto& each) {
      return std::ranges::any_of(each.second.row.due, [&](const auto& one) { return one.target == content; });
    };
  };
  for (const std::string& content : rolled_back_) {
    const auto shown = [&](const auto& each) { return each.second.row.image.sha256 == content; };
    if (!outputs_.contains(content) || std::ranges::any_of(tables.postprocessing.outputs.entries(), shown)) continue;
    if (std::ranges::any_of(tables.transactions.sagas.entries(), due(content))) continue;
    violation(cat("L2: output ", content, " was rolled back and is on the disk, and no saga knows of it"));
  }
}

/// L5: nobody waits for an answer, and each request that was accepted has its own.
void World::check_answered() {
  for (const auto& [reply, kind] : waiting_replies_)
    violation(cat("L5: ", kind, ", reply ", reply, ", is not answered"));
  const auto& requests = machine_->tables().processing.requests;
  for (const std::string& id : accepted_) {
    const processing::Request* request = requests.find(id);
    if (request == nullptr || request->state == processing::RequestState::accepted) {
      violation(cat("L5: ", id, " was accepted, and nobody learns what came of it"));
    } else if (request->state == processing::RequestState::failed && !request->failure) {
      violation(cat("L5: ", id, " failed without a reason"));
    }
  }
}

/// L6: bytes, descriptors, memory files, processes, locks and tombstones.
void World::check_nothing_left() {
  const Tables& tables = machine_->tables();
  for (const auto& [device, entry] : tables.device.reservations.entries()) {
    violation(cat("L6: ", device, " is still reserved for ", entry.row.transaction_id.str()));
  }
  for (const auto& [key, entry] : tables.idempotency.answers.entries()) {
    if (entry.row.status == 0 && !entry.row.request_id) violation(cat("L6: ", key, " is kept for nobody"));
  }
  if (!handles_.empty()) violation(cat("L6: ", handles_.size(), " descriptors leaked in the orchestrator"));
  if (!machine_->live().pixels.empty()) violation("L6: pixels are kept for nobody");
  for (const auto& [key, content] : segments_) {
    const auto known = machine_->live().segments.find({ModelId(key.first), key.second});
    if (known == machine_->live().segments.end() || known->second.state != SegmentState::ready) {
      violation(cat("L6: segment ", key.first, "/", key.second, " is kept for nobody"));
    }
  }
  std::set<WorkerId> seen;
  for (const auto& [pid, process] : processes_) {
    if (!process->alive) continue;
    const std::string name = process->worker_id.str();
    if (!seen.insert(process->worker_id).second) violation(cat("L6: ", name, " has two processes"));
    if (!process->handles.empty()) violation(cat("L6: ", name, " leaked a descriptor"));
    if (process->worker_id == guest && !tables.liveness.workers.contains("guest")) continue;
    // The ledger and the worker's own account agree to the byte. What it was granted at its request is the program's,
    // and no part of what the runtime holds.
    const WorkerRecord& record = tables.liveness.workers.at(name);
    const Bytes ledger =
        memory::allocated_on(tables.memory, record.device_id) - memory::granted_on(tables.memory, record.device_id);
    if (process->machine.used() != ledger) {
      violation(cat("L6: ", name, " holds ", process->machine.used().value, " bytes, the ledger says ", ledger.value));
    }
  }
}

}  // namespace lockstep::sim
