#include "transactions/participant.h"

#include <algorithm>

#include "base/text.h"

namespace lockstep {

TransactionVote Participant::prepare(const TransactionPrepare& prepare) {
  const auto no = [&](std::string reason) {
    return TransactionVote{prepare.transaction_id, Vote::vote_abort, std::move(reason)};
  };
  const TransactionVote yes{prepare.transaction_id, Vote::vote_commit, ""};
  if (promised_.contains(prepare.transaction_id) || committed_.contains(prepare.transaction_id)) return yes;
  if (tombstones_.contains(prepare.transaction_id)) return no("the transaction was aborted before");
  const ModelId& model = prepare.load.model_id;
  const bool promised_elsewhere =
      std::ranges::any_of(promised_, [&](const auto& each) { return each.second.model_id == model; });
  if (held_.contains(model) || promised_elsewhere) return no(cat("model ", model.str(), " is held already"));
  const Bytes free = budget_ - used();
  if (prepare.load.bytes > free) {
    return no(cat("model ", model.str(), " needs ", to_text(prepare.load.bytes), ", ", to_text(free), " of ",
                  to_text(budget_), " are free"));
  }
  promised_.emplace(prepare.transaction_id, prepare.load);
  return yes;
}

bool Participant::commit(const TransactionId& transaction) {
  if (committed_.contains(transaction)) return true;
  const auto promise = promised_.find(transaction);
  if (promise == promised_.end()) return false;
  held_.emplace(promise->second.model_id, promise->second);
  held_by_[promise->second.model_id] = transaction;
  promised_.erase(promise);
  committed_.insert(transaction);
  return true;
}

void Participant::abort(const TransactionId& transaction) {
  if (committed_.contains(transaction)) return;  // decided means decided
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
