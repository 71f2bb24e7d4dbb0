#pragma once

// What a step wants: at most one commit, and effects that may leave only when it is durable.

#include <optional>
#include <utility>
#include <vector>

#include "state/commit.h"

namespace lockstep {

template <class Effect>
struct Plan {
  std::optional<Commit> commit;
  std::vector<Effect> effects;

  bool empty() const { return !commit && effects.empty(); }
  template <class What>
  void effect(What what) {
    effects.push_back(Effect{std::move(what)});
  }
};

}  // namespace lockstep
