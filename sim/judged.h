#pragma once

// S4, without believing the loop: around the orchestrator, notes behind which commit every effect was decided, so that
// the world can compare it with what its disk has when the effect leaves. The order is the loop's: first in, first out.

#include <deque>

#include "base/check.h"
#include "base/ids.h"
#include "orchestrator/machine.h"
#include "runtime/plan.h"

namespace lockstep::sim {

class Judged {
 public:
  using Input = Orchestrator::Input;
  using Effect = Orchestrator::Effect;

  explicit Judged(Orchestrator& machine) : machine_(machine) {}

  Plan<Effect> step(const Input& input) { return noted(machine_.step(input)); }
  Plan<Effect> settle(const Input& input) { return noted(machine_.settle(input)); }
  void apply(const Commit& commit) { machine_.apply(commit); }

  /// What the next effect depends on: the newest commit when it was decided, its own included.
  Lsn take_next() {
    LOCKSTEP_CHECK(!waits_for_.empty());
    const Lsn out = waits_for_.front();
    waits_for_.pop_front();
    return out;
  }

 private:
  Plan<Effect> noted(Plan<Effect> plan) {
    const Lsn newest{machine_.rev().value + (plan.commit ? 1 : 0)};
    waits_for_.insert(waits_for_.end(), plan.effects.size(), newest);
    return plan;
  }

  Orchestrator& machine_;
  std::deque<Lsn> waits_for_;
};

}  // namespace lockstep::sim
