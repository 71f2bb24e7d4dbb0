// What may only rise, whichever life it is: epochs, incarnations; and how sagas end.

#include "sim/simulation.h"

#include <algorithm>
#include <utility>

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

/// S12: forward, or back in reverse order, each step once; and from what it was told last only a way that the table of
/// sagas has. What is parked has a record.
void World::note_saga(const CommitEvent& event) {
  const auto saga = json::from_text<Saga>(event.body.text);
  if (!saga) return violation(cat("S12: a saga that cannot be read: ", saga.error().message));
  if (const Status good = saga->check(); !good) violation(cat("S12: ", event.subject, ": ", good.error().message));
  const SagaStatus now = saga->saga_status;
  const auto [place, first] = saga_states_.try_emplace(saga->saga_id, now);
  const SagaStatus before = std::exchange(place->second, now);
  if (first && saga->saga_id.starts_with("saga_tx_inf_")) ++report_.images;
  if (first && saga->saga_id.starts_with("saga_tx_req_")) ++report_.rollbacks;
  const auto leads = [&](const auto& row) { return row.from == before && row.to == now; };
  const bool ended = before == SagaStatus::completed || before == SagaStatus::compensated;
  // The next life tells of it as it finds it.
  if (!first && (before == now ? ended : std::ranges::none_of(saga_lifecycle.rows, leads))) {
    violation(cat("S12: ", saga->saga_id, " is ", json::enum_name(now), " and was ", json::enum_name(before)));
  }
  const SagaRecord* record = machine_->tables().transactions.sagas.find(saga->saga_id);
  // It is told after its sync, and later decisions of the same sync may have ended it.
  const bool is_newest = machine_->rev() == last_published_;
  if (is_newest && now == SagaStatus::parked && (record == nullptr || record->state != SagaStatus::parked)) {
    violation(cat("S12: ", saga->saga_id, " is parked, and has no record"));
  }
}

/// A person looks after a while: always where a device lacks the bytes, at half of the others.
void World::note_parked(const CommitEvent& event) {
  fault("saga_parked");
  trace("client", cat("is alarmed of ", event.subject));
  const auto record = json::from_text<SagaRecord>(event.body.text);
  if (!record) return violation(cat("S12: a record that cannot be read: ", record.error().message));
  if (!record->load && sagas_.chance(500'000)) return;
  after(seconds(sagas_.between(1, 60)), [this, transaction = event.subject] { resolve_parked(transaction); });
}

void World::resolve_parked(const std::string& transaction) {
  if (!loop_ || !machine_->live().started)
    return after(seconds(1), [this, transaction] { resolve_parked(transaction); });
  const auto* record = machine_->tables().transactions.sagas.find(saga_id_of(TransactionId(transaction)));
  if (record == nullptr || record->state != SagaStatus::parked) return;
  const bool retry = record->load || sagas_.chance(700'000);  // nobody can know that bytes of a device are free
  // Whose word it is that a file may stay, it is not looked for any more.
  if (!retry)
    for (const DueCompensation& each : record->due) rolled_back_.erase(each.target);
  const ReplyId reply = ++replies_made_;
  waiting_replies_[reply] = "resolve";
  trace("client", cat(retry ? "retries " : "accepts ", transaction));
  input(in::ResolveTransaction{{reply, cat("transactions/", transaction, "/resolve"),
                                cat(R"({"decision":")", retry ? "retry" : "accept", R"(","reason":"seen"})")}});
}

void World::overrule(const std::string& transaction) {
  if (!loop_ || !machine_->live().started) return;  // nobody listens, and it may be over when somebody does
  const std::string decision = persons_.chance(500'000) ? "commit" : "abort";
  const ReplyId reply = ++replies_made_;
  waiting_replies_[reply] = "resolve";
  overruled_[reply] = {transaction, decision};
  trace("client", cat("overrules ", transaction, ": ", decision));
  input(in::ResolveTransaction{{reply, cat("transactions/", transaction, "/resolve"),
                                cat(R"({"decision":")", decision, R"(","reason":"it hangs"})")}});
}

void World::judge_overruled(ReplyId reply, int status) {
  const auto place = overruled_.find(reply);
  if (place == overruled_.end()) return;
  const auto [transaction, decision] = place->second;
  overruled_.erase(place);
  if (status != 200) return;  // it had ended, or cannot be decided so
  fault("overruled");
  const TransactionOverride* row = machine_->tables().transactions.overrides.find(transaction);
  if (row == nullptr || row->decision != decision) {
    violation(cat("S3: ", transaction, " was decided by a person, and nobody wrote it down"));
  }
}

void World::note_rolled_back(const CommitEvent& event) {
  const auto output = json::from_text<postprocessing::Output>(event.body.text);
  if (!output) return violation(cat("an output that cannot be read: ", output.error().message));
  rolled_back_.insert(output->image.sha256);
}

void World::judge_removal(const out::RemoveOutput& effect) {
  for (const auto& [key, entry] : machine_->tables().postprocessing.outputs.entries()) {
    if (entry.row.image.sha256 == effect.sha256) violation("an output that is listed was removed");
  }
  const auto& sagas = machine_->tables().transactions.sagas.entries();
  const auto record = sagas.find(effect.saga_id);
  if (record == sagas.end() || record->second.mod_rev.value > written_.value) {
    return violation(cat("S12: ", effect.saga_id, " removes a file, and its intent is not on disk"));
  }
  const std::vector<DueCompensation>& due = record->second.row.due;
  if (due.empty() || due.front().target != effect.sha256) {
    violation(cat("S12: ", effect.saga_id, " removes a file that is not the first that is due"));
  }
}

/// S12, after every event: what is due of a saga only loses its first, and of a rollback it begins with the output that
/// was stored last.
void World::check_due() {
  const auto& sagas = machine_->tables().transactions.sagas.entries();
  std::erase_if(due_, [&](const auto& each) { return !sagas.contains(each.first); });
  for (const auto& [key, entry] : sagas) {
    std::vector<std::string> targets;
    for (const DueCompensation& each : entry.row.due) targets.push_back(each.target);
    const auto [place, first] = due_.try_emplace(key, targets);
    if (first) {
      judge_order(entry.row);
      continue;
    }
    std::vector<std::string>& before = place->second;
    if (before == targets) continue;
    const bool shorter = targets.size() < before.size();
    if (!shorter || !std::equal(targets.rbegin(), targets.rend(), before.rbegin())) {
      violation(cat("S12: what is due of ", key, " lost another than its first"));
    }
    before = std::move(targets);
  }
}

/// By what the disk of outputs saw. Where the wall clock was set back between two of them nobody can tell.
void World::judge_order(const SagaRecord& record) {
  if (!record.request_id) return;
  const StoredAt* before = nullptr;
  for (const DueCompensation& each : record.due) {
    const auto stored = stored_at_.find({record.request_id->str(), each.target});
    if (stored == stored_at_.end()) {
      violation(cat("S12: ", record.saga_id, " is to remove an output that its request never stored"));
      continue;
    }
    const StoredAt* now = &stored->second;
    if (before != nullptr && now->number > before->number && now->wall > before->wall) {
      violation(cat("S12: ", record.saga_id, " removes an output before one that was stored later"));
    }
    before = now;
  }
}

}  // namespace lockstep::sim
