#include "operations/sagas.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "operations/model_load.h"
#include "operations/workflow.h"

namespace lockstep {

const SagaDefinition* saga_definition(std::string_view name) {
  if (name == model_loading.name) return &model_loading;
  if (name == session_workflow.name) return &session_workflow;
  return nullptr;
}

SagaRecord begin_compensation(const SagaDefinition& saga, const TransactionId& transaction, std::string why,
                              WallTime now) {
  SagaRecord record;
  record.saga_id = saga_id_of(transaction);
  record.definition = std::string(saga.name);
  record.version = saga.version;
  record.transaction_id = transaction;
  record.state = SagaStatus::running;
  record.failure = std::move(why);
  record.since = now;
  return after(std::move(record), SagaEvent::step_failed);
}

void put_saga(const Tables& tables, const SagaRecord& record, Change& change) {
  const SagaRecord* before = tables.transactions.sagas.find(record.saga_id);
  if (record.state == SagaStatus::compensated) {
    if (before != nullptr) change.erase(tables.transactions.sagas, record.saga_id);
    change.event("saga_compensated", record.transaction_id.str(), record);
    return;
  }
  change.put(tables.transactions.sagas, record.saga_id, record);
  const bool was_parked = before != nullptr && before->state == SagaStatus::parked;
  if (record.state == SagaStatus::parked && !was_parked) {
    change.event("saga_parked", record.transaction_id.str(), record);
  }
}

TransactionId rollback_of(const RequestId& request) { return TransactionId(cat("tx_", request.str())); }

SagaRecord outputs_to_remove(const RequestId& request, std::vector<postprocessing::Output> outputs, std::string why,
                             WallTime now) {
  SagaRecord record = begin_compensation(session_workflow, rollback_of(request), std::move(why), now);
  record.request_id = request;
  const auto stored = [](const postprocessing::Output& each) { return std::tuple(each.created, each.job_id); };
  std::ranges::stable_sort(outputs, std::ranges::greater{}, stored);
  const std::uint32_t storing = to_compensate(session_workflow, 3, 4).front();
  const std::string remove(session_workflow.steps[storing - 1].compensation);
  for (const postprocessing::Output& each : outputs) {
    const auto same = [&](const DueCompensation& due) { return due.target == each.image.sha256; };
    if (std::ranges::none_of(record.due, same)) record.due.push_back({storing, remove, each.image.sha256});
  }
  return record;
}

}  // namespace lockstep
