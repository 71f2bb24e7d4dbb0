#include "operations/idempotency.h"

#include "operations/tables.h"

namespace lockstep {

namespace {

bool runs(const Tables& tables, const KeyedAnswer& row) {
  if (row.status != 0) return false;
  if (!row.request_id) return true;
  const processing::Request* request = tables.processing.requests.find(row.request_id->str());
  return request != nullptr && request->state == processing::RequestState::accepted;
}

}  // namespace

void forget_old_answers(const Tables& tables, WallTime now, Change& change) {
  for (const auto& [key, entry] : tables.idempotency.answers.entries()) {
    const KeyedAnswer& row = entry.row;
    if (now.ms - row.created.ms >= keyed_answer_kept_ms && !runs(tables, row)) {
      change.erase(tables.idempotency.answers, key);
    }
  }
}

}  // namespace lockstep
