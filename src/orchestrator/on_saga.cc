#include "orchestrator/on_saga.h"

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "operations/sagas.h"
#include "orchestrator/on_memory.h"

namespace lockstep {

namespace {

/// Whether anybody but the request needs this content.
bool is_needed(const Turn& turn, const std::string& sha256, const RequestId& request) {
  const auto& outputs = turn.tables.postprocessing.outputs.entries();
  const auto& requests = turn.tables.processing.requests.entries();
  return std::ranges::any_of(outputs,
                             [&](const auto& each) {
                               return !each.second.row.job_id.str().starts_with(cat(request.str(), "/")) &&
                                      each.second.row.image.sha256 == sha256;
                             }) ||
         std::ranges::any_of(turn.live.storing, [&](const auto& each) { return each.second == sha256; }) ||
         std::ranges::any_of(requests, [&](const auto& each) {
           return each.second.row.source && each.second.row.source->sha256 == sha256;
         });
}

/// Keeps what the record has become, and begins the first of what is due. What somebody else needs by now stays.
void carry_on(Turn& turn, SagaRecord record) {
  while (record.state == SagaStatus::compensating && is_needed(turn, record.due.front().target, *record.request_id)) {
    record = first_undone(std::move(record));
  }
  put_saga(turn.tables, record, turn.change);
  if (record.state != SagaStatus::compensating) return;
  turn.effect(out::RemoveOutput{record.saga_id, record.due.front().target});
}

void park(Turn& turn, const SagaRecord& record) {
  put_saga(turn.tables, record, turn.change);
  turn.warn(cat(record.saga_id, " is parked, with ", record.due.size(), " to undo: ", record.reason,
                "; a person decides: lockstep tx resolve ", record.transaction_id.str()));
}

}  // namespace

void roll_back_outputs(Turn& turn, const RequestId& request, std::vector<postprocessing::Output> outputs,
                       const std::string& why) {
  std::erase_if(outputs, [&](const auto& each) { return is_needed(turn, each.image.sha256, request); });
  if (!outputs.empty()) carry_on(turn, outputs_to_remove(request, std::move(outputs), why, turn.wall));
}

void on_output_removed(Turn& turn, const in::OutputRemoved& input) {
  const SagaRecord* record = turn.tables.transactions.sagas.find(input.saga_id);
  if (record == nullptr || record->state != SagaStatus::compensating || record->due.front().target != input.sha256) {
    return;  // the answer to an earlier attempt
  }
  if (input.status) {
    SagaRecord next = first_undone(*record);
    if (next.state == SagaStatus::compensated) return put_saga(turn.tables, next, turn.change);
    return carry_on(turn, std::move(next));
  }
  const SagaRecord next = first_not_undone(*record, input.status.error().message);
  if (next.state == SagaStatus::parked) return park(turn, next);
  put_saga(turn.tables, next, turn.change);
  const Nanos wait = compensation_backoff(next.attempts);
  turn.warn(cat(next.saga_id, ": ", next.reason, "; again in ", wait / seconds(1), " s"));
  turn.effect(out::ArmTimer{cat("saga:", next.saga_id), turn.now + wait});
}

void saga_due(Turn& turn, const std::string& saga_id) {
  const SagaRecord* record = turn.tables.transactions.sagas.find(saga_id);
  if (record != nullptr && record->state == SagaStatus::compensating && record->request_id) carry_on(turn, *record);
}

void take_up_sagas(Turn& turn) {
  for (const auto& [id, entry] : turn.tables.transactions.sagas.entries()) {
    const SagaRecord& record = entry.row;
    if (record.state != SagaStatus::compensating) continue;
    const Status known = may_carry_on(record, saga_definition(record.definition));
    if (!known) {
      park(turn, parked(record, known.error().message));
    } else if (record.request_id) {
      carry_on(turn, record);
    }
  }
}

void unload_measured(Turn& turn, const WorkerRecord& worker, const MemorySample& sample) {
  for (const auto& [id, entry] : turn.tables.transactions.sagas.entries()) {
    const SagaRecord& record = entry.row;
    if (!record.load || record.load->worker_id != worker.worker_id) continue;
    if (record.load->incarnation != worker.incarnation) continue;
    const auto logged = turn.live.transactions.entries.find(record.transaction_id);
    const bool known = logged != turn.live.transactions.entries.end();
    if (known && !may_show_release(logged->second)) continue;
    const Bytes most =
        released_at_most(sample.models, record.load->bytes, known ? logged->second.before : std::nullopt);
    const Bytes others = sample.ledger - sample.models;  // a load that copies, or a grant
    if (sample.used <= most) {
      put_saga(turn.tables, after(record, SagaEvent::undone), turn.change);
    } else if (sample.idle && sample.used > most + others && record.state == SagaStatus::compensating) {
      const SagaRecord next =
          first_not_undone(record, cat(worker.worker_id.str(), " is idle and holds ", to_text(sample.used),
                                       "; its ledger has ", to_text(sample.ledger)));
      if (next.state == SagaStatus::parked) {
        park(turn, next);
      } else {
        put_saga(turn.tables, next, turn.change);
      }
    }
  }
}

Status resolve_saga(Turn& turn, const SagaRecord& record, bool retry, const std::string& why) {
  if (record.state != SagaStatus::parked) {
    return fail(ErrorCode::invalid_transition,
                cat(record.transaction_id.str(), " is compensating, attempt ", record.attempts + 1, " of ",
                    compensation_attempts_max, ": only a parked one waits for a person"));
  }
  if (!retry) {
    put_saga(turn.tables, after(record, SagaEvent::accepted), turn.change);
    return {};
  }
  LOCKSTEP_TRY_STATUS(may_carry_on(record, saga_definition(record.definition)));
  SagaRecord again = retried(record);
  if (record.load) {
    put_saga(turn.tables, again, turn.change);
    end_worker(turn, record.load->worker_id,
               cat("it did not unload ", record.load->model_id.str(), " after its load had failed: ", why));
  } else {
    carry_on(turn, std::move(again));
  }
  return {};
}

}  // namespace lockstep
