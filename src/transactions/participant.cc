#include "transactions/participant.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

ParticipantState Participant::state_of(const TransactionId& transaction) const {
  if (promised_.contains(transaction)) return ParticipantState::promised;
  if (committed_.contains(transaction)) return ParticipantState::committed;
  return tombstones_.contains(transaction) ? ParticipantState::aborted : ParticipantState::unknown;
}

std::string Participant::objection_to(const TransactionPrepare& prepare) const {
  const ModelId& model = prepare.load.model_id;
  const bool promised_elsewhere =
      std::ranges::any_of(promised_, [&](const auto& each) { return each.second.model_id == model; });
  if (held_.contains(model) || promised_elsewhere) return cat("model ", model.str(), " is held already");
  const Bytes free = budget_ - used();
  if (prepare.load.bytes > free) {
    return cat("model ", model.str(), " needs ", to_text(prepare.load.bytes), ", ", to_text(free), " of ",
               to_text(budget_), " are free");
  }
  return "";
}

TransactionVote Participant::prepare(const TransactionPrepare& prepare) {
  const TransactionId& id = prepare.transaction_id;
  const ParticipantState before = state_of(id);
  const std::string objection = before == ParticipantState::unknown ? objection_to(prepare) : "";
  const auto next =
      participant_lifecycle.next(before, objection.empty() ? ParticipantEvent::prepare : ParticipantEvent::objection);
  LOCKSTEP_CHECK(next.has_value());
  switch (*next) {
    case ParticipantState::unknown: return {id, Vote::vote_abort, objection};
    case ParticipantState::aborted: return {id, Vote::vote_abort, "the transaction was aborted before"};
    case ParticipantState::promised: promised_.emplace(id, prepare.load); break;
    case ParticipantState::committed: break;
  }
  return {id, Vote::vote_commit, ""};
}

bool Participant::commit(const TransactionId& transaction) {
  const auto next = participant_lifecycle.next(state_of(transaction), ParticipantEvent::commit);
  if (!next) return false;
  const auto promise = promised_.find(transaction);
  if (promise == promised_.end()) return true;  // said again
  held_.emplace(promise->second.model_id, promise->second);
  held_by_[promise->second.model_id] = transaction;
  promised_.erase(promise);
  committed_.insert(transaction);
  return true;
}

void Participant::abort(const TransactionId& transaction) {
  const auto next = participant_lifecycle.next(state_of(transaction), ParticipantEvent::abort);
  LOCKSTEP_CHECK(next.has_value());
  if (*next != ParticipantState::aborted) return;
  promised_.erase(transaction);
  tombstones_.insert(transaction);
}

const LoadPlan* Participant::held(const ModelId& model) const {
  const auto place = held_.find(model);
  return place == held_.end() ? nullptr : &place->second;
}

void Participant::release(const ModelId& model) {
  held_.erase(model);
  held_by_.erase(model);
}

std::vector<Holding> Participant::inventory() const {
  std::vector<Holding> out;
  for (const auto& [transaction, plan] : promised_) {
    out.push_back({transaction, plan.model_id, plan.bytes, HoldingState::promised});
  }
  for (const auto& [model, plan] : held_) {
    out.push_back({held_by_.at(model), model, plan.bytes, HoldingState::committed});
  }
  return out;
}

Bytes Participant::used() const {
  Bytes sum;
  for (const auto& [transaction, plan] : promised_) sum += plan.bytes;
  for (const auto& [model, plan] : held_) sum += plan.bytes;
  return sum;
}

}  // namespace lockstep
