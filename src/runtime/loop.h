#pragma once

// The loop that drives any step (design §2): decide -> apply in memory at once -> append -> durable -> release.
//
//   for each input      plan = machine.step(input), then machine.settle(now) until nothing more is to be decided
//   for each commit     it gets the next rev, is applied at once, and waits in the pending batch
//   for each effect     it is held until the newest commit that was applied before it is durable
//
// The loop has no thread, no clock and no disk. Its driver (the server, or the simulator) syncs the pending batch and
// says durable(); effects leave through next_effect(), in order, one at a time, so that a crash can fall between any
// two of them.

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "journal/store.h"
#include "runtime/plan.h"

namespace lockstep {

/// A Machine has: types Input and Effect; Plan<Effect> step(const Input&); Plan<Effect> settle(const Input&), which
/// takes one further decision or returns an empty plan; void apply(const Commit&).
template <class Machine>
class Loop {
 public:
  using Input = typename Machine::Input;
  using Effect = typename Machine::Effect;

  /// `last` is the position recovery ended at.
  Loop(Machine& machine, Lsn last) : machine_(machine), applied_(last), durable_(last) {}

  void input(const Input& input) {
    take(machine_.step(input));
    for (int rounds = 0;; ++rounds) {
      LOCKSTEP_CHECK(rounds < rounds_max);
      Plan<Effect> plan = machine_.settle(input);
      if (plan.empty()) return;
      take(std::move(plan));
    }
  }

  /// The commits that are applied but not yet handed to the disk; one append makes all of them durable.
  std::vector<Record> take_batch() { return std::exchange(pending_, {}); }
  std::size_t pending() const { return pending_.size(); }

  void durable(Lsn lsn) {
    LOCKSTEP_CHECK(lsn >= durable_ && lsn <= applied_);
    durable_ = lsn;
  }

  /// The next effect whose commit is durable.
  std::optional<Effect> next_effect() {
    if (held_.empty() || held_.front().after > durable_) return std::nullopt;
    Effect effect = std::move(held_.front().effect);
    held_.pop_front();
    return effect;
  }

  Lsn applied() const { return applied_; }
  Lsn durable() const { return durable_; }

 private:
  struct Held {
    Lsn after;
    Effect effect;
  };
  // One input settles in as many decisions as there are queued jobs and workers; this is far above both.
  static constexpr int rounds_max = 100'000;

  void take(Plan<Effect> plan) {
    if (plan.commit) {
      applied_ = applied_.next();
      plan.commit->rev = Rev{applied_.value};
      machine_.apply(*plan.commit);
      pending_.push_back({applied_, encode(*plan.commit)});
    }
    for (Effect& effect : plan.effects) held_.push_back({applied_, std::move(effect)});
  }

  Machine& machine_;
  Lsn applied_;
  Lsn durable_;
  std::vector<Record> pending_;
  std::deque<Held> held_;
};

}  // namespace lockstep
