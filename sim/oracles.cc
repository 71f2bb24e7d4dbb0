// What must hold: after every event, and at rest.

#include "sim/simulation.h"

#include <algorithm>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"

namespace lockstep::sim {

namespace {

// A load writes 14 at most, also where a person decided about it, and an image 11; samples add none.
constexpr std::size_t documents_max = 16;

}  // namespace

void World::check_invariants() {
  if (!machine_) return;
  const Tables& tables = machine_->tables();
  check_governed();
  check_delivered();
  check_due();
  check_bounds();
  for (const auto& [device_key, device_entry] : tables.device.devices.entries()) {
    const device::Device& worker = device_entry.row;
    const Bytes allocated = memory::allocated_on(tables.memory, worker.device_id);
    const Bytes promised = promised_on(machine_->live().intents, worker.device_id);
    if (allocated + promised > worker.memory_budget) {  // S10
      violation(cat("device ", worker.device_id.str(), " has ", (allocated + promised).value, " bytes granted"));
    }
    for (const auto& [pid, process] : processes_) {
      if (!process->alive || process->worker_id != worker.worker_id || !machine_->live().started) continue;
      const WorkerRecord* record = tables.liveness.workers.find(worker.worker_id.str());
      if (record == nullptr || record->incarnation != process->incarnation || !process->link_up) continue;
      // An aborted promise that the worker has not heard of yet is bounded by the budget it votes against.
      if (process->machine.used() > worker.memory_budget)
        violation(cat(worker.worker_id.str(), " holds more than its budget"));
      // What a failed load has left there is not granted again before it is proven free.
      Bytes held = kept_by(*process);
      for (const auto& [model, plan] : process->machine.holdings()) held += plan.bytes;
      if (held > worker.memory_budget) {
        violation(cat("S10: ", worker.worker_id.str(), " holds ", held.value, " bytes with what it kept"));
      }
      for (const auto& [model, plan] : process->machine.holdings()) {
        if (tables.model.residencies.contains(cat(worker.worker_id.str(), "/", model.str()))) continue;
        violation(cat(worker.worker_id.str(), " holds ", model.str(), ", which the ledger does not know"));
      }
    }
  }
  for (const auto& [key, entry] : tables.model.residencies.entries()) {  // S8: nothing belongs to a life that is over
    const WorkerRecord* record = tables.liveness.workers.find(entry.row.worker_id.str());
    if (record == nullptr || record->incarnation != entry.row.incarnation || record->state == WorkerState::gone) {
      violation(cat(key, " belongs to an incarnation that is gone"));
    }
    if (!tables.memory.allocations.contains(entry.row.allocation_id.str())) violation(cat(key, " has no allocation"));
    const Process* process = living(entry.row.worker_id, entry.row.incarnation);
    if (process != nullptr && entry.row.state == model::ResidencyState::loaded &&
        process->failed_loads.contains(entry.row.model_id)) {  // S12: what failed is undone, never finished
      violation(cat(key, " is said to be loaded, and its load failed"));
    }
  }
  if (tables.memory.allocations.size() != tables.model.residencies.size()) {
    violation(
        cat(tables.memory.allocations.size(), " allocations for ", tables.model.residencies.size(), " residencies"));
  }
  // One report for each running task or image of a batch, however many came.
  std::size_t running = 0;
  for (const auto& [id, live] : machine_->live().workers) running += std::max<std::size_t>(live.batch.size(), 1);
  if (machine_->live().progress.size() > running) {
    violation(cat(machine_->live().progress.size(), " reports of progress are kept"));
  }
  for (const auto& [key, entry] : tables.processing.jobs.entries()) {
    if (entry.row.deaths > processing::deaths_max) violation(cat(key, " had ", entry.row.deaths, " deaths"));
  }
}

void World::check_bounds() {
  const Tables& tables = machine_->tables();
  const TransactionLog& log = machine_->live().transactions;
  if (log.ended.size() > TransactionLog::ended_max || log.entries.size() > log.open.size() + log.ended.size()) {
    violation(cat("S23: ", log.entries.size(), " transactions are shown, ", log.open.size(), " are open"));
  }
  for (const auto& [id, entry] : log.entries) {
    if (entry.documents.size() > documents_max) {
      violation(cat("S23: ", id.str(), " has ", entry.documents.size(), " documents"));
    }
  }
  if (tables.idempotency.answers.size() > keyed_.size()) {
    violation(cat("S23: ", tables.idempotency.answers.size(), " answers for ", keyed_.size(), " keys"));
  }
  for (const auto& [key, entry] : tables.transactions.sagas.entries()) {
    const SagaRecord& record = entry.row;
    if (!record.load) {  // one for each request that was rolled back
      if (tables.processing.requests.contains(record.request_id ? record.request_id->str() : "")) continue;
      violation(cat("S23: ", key, " undoes something of nobody's"));
      continue;
    }
    const WorkerRecord* worker = tables.liveness.workers.find(record.load->worker_id.str());
    const bool lives = worker != nullptr && worker->state != WorkerState::gone;
    if (!lives || worker->incarnation != record.load->incarnation) {
      violation(cat("S23: ", key, " waits for a worker that is gone"));
    }
  }
  for (const auto& [pid, process] : processes_) {
    if (!process->alive || process->machine.transactions_remembered() <= process->heard.size()) continue;
    violation(cat("S23: ", process->worker_id.str(), " remembers ", process->machine.transactions_remembered(),
                  " transactions and heard of ", process->heard.size()));
  }
}

void World::check_end() {
  if (!at_rest()) return violation(cat(unkept(), "it ended, but not at rest: ", unrest()));
  check_terminal();
  check_answered();
  check_nothing_left();
  if (options_.mode != Mode::liveness) {
    check_requests();
    check_keys();
    check_told();
  }
  check_recovered();
}

void World::count_requests() {
  if (!machine_) return;
  for (const auto& [key, entry] : machine_->tables().processing.requests.entries()) {
    if (entry.row.state == processing::RequestState::accepted) continue;
    ++(entry.row.state == processing::RequestState::completed ? report_.completed : report_.failed);
  }
}

void World::check_record() {
  if (machine_ && machine_->live().started) {
    check_requests();
    check_keys();
  }
  check_recovered();
}

void World::check_requests() {
  const Tables& tables = machine_->tables();
  for (const std::string& id : accepted_) {
    if (!tables.processing.requests.contains(id)) violation(cat(id, " was accepted and is lost"));
  }
  for (const auto& [key, entry] : tables.processing.requests.entries()) {
    const processing::Request& request = entry.row;
    for (const processing::Job& job : processing::jobs_of(tables.processing, request.request_id)) {
      const auto* output = tables.postprocessing.outputs.find(job.job_id.str());
      if (request.kind == processing::RequestKind::check || job.stage != processing::JobStage::completed) {
        if (output != nullptr) violation(cat(job.job_id.str(), " has an output, though it did not complete"));
        continue;
      }
      // §3.4: what was delivered beside an image that failed its gate is gone, where the request says so.
      if (request.error_handling == processing::ErrorHandling::cascade_rollback && request.failure &&
          request.failure->code == "safety_blocked") {
        violation(cat(job.job_id.str(), " stayed, though its request was rolled back"));
      }
      const InferenceParameters& p = request.inference.inference_parameters;
      const std::string pixels = pixels_of(p.prompt, *p.seed + job.index);
      if (output == nullptr || output->image.sha256 != processed(pixels)) {
        violation(cat(job.job_id.str(), " completed without its image"));
      } else if (!outputs_.contains(output->image.sha256)) {
        violation(cat(job.job_id.str(), " completed, but its image is not on disk"));
      } else if (is_unsafe(pixels)) {
        violation(cat(job.job_id.str(), " delivered an unsafe image"));
      }
    }
  }
}

/// S11, also where the answers were lost; one that failed may be done again.
void World::check_keys() {
  for (const auto& [key, known] : keyed_) {
    const auto made = std::ranges::count_if(machine_->tables().processing.requests.entries(), [&](const auto& each) {
      const processing::Request& request = each.second.row;
      return request.state == processing::RequestState::completed &&
             known.seeds.contains(request.inference.inference_parameters.seed.value_or(0));
    });
    if (made > 1) violation(cat(made, " requests were carried out for ", key));
  }
}

/// S16 to S18: recovery once more, twice, gives a state that there was, and the same each time; of a system at rest,
/// the one that it is in.
void World::check_recovered() {
  disk_.cut_power_when({});
  disk_.repair();
  disk_.power_on();
  disk_.kill();
  store_.reset();
  const std::string live = options_.mode == Mode::safety || !machine_ ? "" : machine_->digest();
  for (int i = 0; i < 2; ++i) {
    const auto found = found_on(disk_);
    if (!found) {
      violation(cat("recovery at the end fails: ", found.error().message));
      continue;
    }
    const auto known = digests_.find(found->last.value);
    const std::string& expected = live.empty() && known != digests_.end() ? known->second : live;
    if (found->digest != expected) violation("recovery at the end gives another state");
    if (found->last.value < acknowledged_.value) violation("recovery at the end lacks what was acknowledged");
  }
  if (allows("disk_bit_rot")) judge_rot();
}

}  // namespace lockstep::sim
