// What may only rise, whichever life it is: epochs, incarnations; and how sagas end.

#include "sim/simulation.h"

#include <algorithm>

#include "base/text.h"
#include "events/json_read.h"
#include "events/transaction_documents.h"

namespace lockstep::sim {

/// S6, S7: what an earlier life said is older than everything that this one says. By what leaves: an epoch that was
/// not durable may be taken again.
void World::note_epoch(Epoch epoch) {
  if (epoch_of_ == life_ ? epoch != epoch_ : epoch <= epoch_) {
    violation(cat("S6: epoch ", epoch.value, " after ", epoch_.value));
  }
  epoch_ = epoch;
  epoch_of_ = life_;
}

/// S9. fresh: a process begins; otherwise one comes back.
void World::note_incarnation(const WorkerId& worker, Incarnation incarnation, bool fresh) {
  Incarnation& newest = incarnations_[worker];
  if (fresh ? incarnation <= newest : incarnation < newest) {
    violation(cat("S9: ", worker.str(), " is incarnation ", incarnation.value, " after ", newest.value));
  }
  newest = std::max(newest, incarnation);
}

/// S12: forward, or back in reverse order, each step once; and an end is an end.
void World::note_saga(const CommitEvent& event) {
  const auto saga = json::from_text<Saga>(event.body.text);
  if (!saga) return violation(cat("S12: a saga that cannot be read: ", saga.error().message));
  if (const Status good = saga->check(); !good) violation(cat("S12: ", event.subject, ": ", good.error().message));
  const auto ended = sagas_ended_.find(saga->saga_id);
  const std::string status(json::enum_name(saga->saga_status));
  if (ended != sagas_ended_.end()) violation(cat("S12: ", saga->saga_id, " is ", status, " and was ", ended->second));
  if (saga->saga_status == SagaStatus::completed || saga->saga_status == SagaStatus::compensated ||
      saga->saga_status == SagaStatus::parked) {
    sagas_ended_[saga->saga_id] = status;
  }
}

}  // namespace lockstep::sim
