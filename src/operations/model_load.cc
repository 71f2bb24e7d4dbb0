#include "operations/model_load.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/device/rules.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/limits.h"
#include "operations/sagas.h"

namespace lockstep {

namespace {

struct ModelEvent {
  ModelId model_id;
  WorkerId worker_id;
  DeviceId device_id;
  Bytes bytes;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(ModelEvent, (), (model_id, worker_id, device_id, bytes, reason))

/// wanted_by: of a load, whose session then has it among its events.
void announce(const Tables& tables, const model::Residency& residency, std::string type, std::string reason,
              Change& change, const JobId& wanted_by = {}) {
  const memory::Allocation* held = tables.memory.allocations.find(residency.allocation_id.str());
  change.event(std::move(type), residency.model_id.str(),
               ModelEvent{residency.model_id, residency.worker_id, residency.device_id,
                          held == nullptr ? Bytes{} : held->bytes, std::move(reason)},
               processing::session_of(tables.processing, wanted_by));
}

/// Residency and its allocation change together, or the ledger would disagree with itself.
void move_on(const Tables& tables, const model::Residency& residency, model::ResidencyEvent event,
             memory::AllocationEvent memory_event, Change& change) {
  const memory::Allocation& allocation = tables.memory.allocations.at(residency.allocation_id.str());
  change.put(tables.memory.allocations, allocation.allocation_id.str(), memory::after(allocation, memory_event));
  change.put(tables.model.residencies, model::residency_key(residency.model_id, residency.worker_id),
             model::after(residency, event));
}

/// The reverse of decide_load, for whichever of its rows are still there: model_loading_steps from the last to the
/// first, and then the decision itself.
void forget_residency(const Tables& tables, const model::Residency& residency, TransactionEvent how, Change& change) {
  change.erase(tables.model.residencies, model::residency_key(residency.model_id, residency.worker_id));
  change.erase(tables.memory.allocations, residency.allocation_id.str());
  const device::Reservation* lane = tables.device.reservations.find(residency.device_id.str());
  if (lane != nullptr && lane->transaction_id == residency.transaction_id) {
    change.erase(tables.device.reservations, residency.device_id.str());
  }
  end_transaction(tables, residency.transaction_id, how, change);
}

}  // namespace

AllocationId allocation_of_load(const TransactionId& transaction) {
  return AllocationId(cat("alloc_", transaction.str()));
}

TransactionState state_of(const Tables& tables, const LoadIntents& intents, const TransactionId& transaction) {
  if (const auto intent = intents.find(transaction); intent != intents.end()) return intent->second.state;
  const Decision* decision = tables.transactions.decisions.find(transaction.str());
  return decision == nullptr ? TransactionState::aborted : decision->state;
}

Bytes promised_on(const LoadIntents& intents, const DeviceId& device) {
  Bytes sum;
  for (const auto& [id, intent] : intents) {
    if (intent.device_id == device) sum += intent.plan.bytes;
  }
  return sum;
}

Bytes unproven_on(const Tables& tables, const DeviceId& device) {
  Bytes sum;
  for (const auto& [key, entry] : tables.transactions.sagas.entries()) {
    if (entry.row.load && entry.row.load->device_id == device) sum += entry.row.load->bytes;
  }
  return sum;
}

bool is_being_measured(const Tables& tables, const DeviceId& device) {
  return std::ranges::any_of(tables.transactions.sagas.entries(), [&](const auto& each) {
    const SagaRecord& row = each.second.row;
    return row.load && row.load->device_id == device && row.state == SagaStatus::compensating;
  });
}

ServiceVotes votes_on_load(const Tables& tables, const LoadIntents& intents, const WorkerRecord& worker,
                           const ModelId& model_id) {
  const auto promised = [&](const auto& each) { return each.second.device_id == worker.device_id; };
  Status device = device::may_reserve(tables.device, worker.device_id);
  if (device && std::ranges::any_of(intents, promised)) {
    device = fail(ErrorCode::resource_exhausted, cat("device ", worker.device_id.str(), " prepares another load"));
  }
  // Where the device says yes nothing else is promised, so what is left to hold back is what failed loads may occupy.
  const model::Model* row = tables.model.models.find(model_id.str());
  Status memory = memory::may_reserve(tables.memory, worker.device_id, limit_on(tables, worker.device_id).bytes,
                                      unproven_on(tables, worker.device_id), row == nullptr ? Bytes{} : row->bytes);
  const auto usable = model::usable(tables.model, model_id);
  Status model = usable ? Status() : Status(fail(usable.error().code, usable.error().message));
  return {{model_loading.steps[0].service, std::move(device)},
          {model_loading.steps[1].service, std::move(memory)},
          {model_loading.steps[2].service, std::move(model)}};
}

ServiceVotes::const_iterator first_no(const ServiceVotes& votes) {
  return std::ranges::find_if(votes, [](const ServiceVote& each) { return !each.vote; });
}

Result<LoadIntent> prepare_load(const Tables& tables, const WorkerRecord& worker, const ModelId& model_id,
                                const JobId& wanted_by, const TransactionId& transaction, ServiceVotes votes) {
  if (const auto no = first_no(votes); no != votes.end()) return no->vote.error();
  const model::Model& model = tables.model.models.at(model_id.str());
  LoadIntent intent{.transaction_id = transaction,
                    .worker_id = worker.worker_id,
                    .incarnation = worker.incarnation,
                    .device_id = worker.device_id,
                    .plan = {.model_id = model_id,
                             .kind = json::enum_name(model.kind),
                             .path = LOCKSTEP_TRY(model::configuration_of(tables.model, model))->path,
                             .bytes = model.bytes,
                             .components = {}},
                    .wanted_by = wanted_by,
                    .votes = std::move(votes)};
  for (const model::Part& part : model::parts_of(tables.model, model)) {
    ComponentPlan& plan = intent.plan.components.emplace_back();
    plan.name = part.component.name;
    plan.bytes = part.component.segment_bytes;
    plan.sha256 = part.component.sha256;
    if (part.model_id != model_id) plan.model_id = part.model_id;
  }
  return intent;
}

void decide_load(const Tables& tables, const LoadIntent& intent, Change& change) {
  const ModelId& model = intent.plan.model_id;
  change.put(tables.transactions.decisions, intent.transaction_id.str(),
             Decision{intent.transaction_id, after(intent.state, TransactionEvent::vote_commit), intent.worker_id,
                      intent.incarnation, model});
  change.put(tables.device.reservations, intent.device_id.str(),
             device::Reservation{intent.device_id, intent.transaction_id, "model_loading", model});
  const AllocationId allocation = allocation_of_load(intent.transaction_id);
  change.put(tables.memory.allocations, allocation.str(),
             memory::Allocation{allocation, intent.device_id, intent.worker_id, intent.incarnation, intent.plan.bytes,
                                "model", model, memory::AllocationState::allocated});
  const model::Residency residency{model,
                                   intent.worker_id,
                                   intent.incarnation,
                                   intent.device_id,
                                   allocation,
                                   intent.transaction_id,
                                   model::ResidencyState::loading,
                                   intent.wanted_by};
  change.put(tables.model.residencies, model::residency_key(model, intent.worker_id), residency);
  change.event("model_load_committed", model.str(),
               ModelEvent{model, intent.worker_id, intent.device_id, intent.plan.bytes, intent.transaction_id.str()},
               processing::session_of(tables.processing, intent.wanted_by));
}

void end_transaction(const Tables& tables, const TransactionId& transaction, TransactionEvent event, Change& change) {
  const Decision* decision = tables.transactions.decisions.find(transaction.str());
  const TransactionState before = decision == nullptr ? TransactionState::committed : decision->state;
  LOCKSTEP_CHECK(after(before, event) == TransactionState::committed);
  if (decision != nullptr) {
    change.erase(tables.transactions.decisions, transaction.str());
  }
}

void finish_load(const Tables& tables, const model::Residency& residency, WallTime now, Change& change) {
  move_on(tables, residency, model::ResidencyEvent::copied, memory::AllocationEvent::reported, change);
  change.erase(tables.device.reservations, residency.device_id.str());
  // It did the work, so it knows the decision.
  end_transaction(tables, residency.transaction_id, TransactionEvent::acknowledged, change);
  const model::Usage usage = model::usage_of(tables.model, residency.model_id);
  change.put(tables.model.usages, residency.model_id.str(), model::loaded_once_more(usage, now));
  announce(tables, residency, "model_loaded", "", change, residency.wanted_by);
}

void await_unload(const Tables& tables, const model::Residency& residency, const std::string& why, WallTime now,
                  Change& change) {
  const std::uint32_t copy = to_compensate(model_loading, 3, 4).front();
  SagaRecord record = begin_compensation(model_loading, residency.transaction_id, why, now);
  record.due = {{copy, std::string(model_loading.steps[copy - 1].compensation), residency.model_id.str()}};
  record.load = UnloadOf{residency.worker_id,
                         residency.incarnation,
                         residency.device_id,
                         residency.model_id,
                         tables.memory.allocations.at(residency.allocation_id.str()).bytes,
                         residency.wanted_by};
  put_saga(tables, record, change);
}

void unloads_end_with(const Tables& tables, const WorkerRecord& worker, Change& change) {
  for (const auto& [key, entry] : tables.transactions.sagas.entries()) {
    if (!entry.row.load || entry.row.load->worker_id != worker.worker_id) continue;
    put_saga(tables, after(entry.row, SagaEvent::undone), change);
  }
}

void undo_load(const Tables& tables, const model::Residency& residency, TransactionEvent how, const std::string& why,
               Change& change) {
  forget_residency(tables, residency, how, change);
  announce(tables, residency, "model_load_undone", why, change, residency.wanted_by);
}

void begin_release(const Tables& tables, const model::Residency& residency, Change& change) {
  move_on(tables, residency, model::ResidencyEvent::told_to_release, memory::AllocationEvent::told_to_release, change);
}

void finish_release(const Tables& tables, const model::Residency& residency, Change& change) {
  forget_residency(tables, residency, TransactionEvent::acknowledged, change);
  announce(tables, residency, "model_released", "", change);
}

ModelLoadRequest load_message(const LoadIntent& intent, AllocationPriority priority) {
  ModelLoadRequest message;
  message.loading_priority = priority;
  message.model_id = intent.plan.model_id;
  message.estimated_vram_usage = intent.plan.bytes;
  for (const ComponentPlan& component : intent.plan.components) {
    message.component_loading_order.push_back(component.name);
  }
  return message;
}

}  // namespace lockstep
