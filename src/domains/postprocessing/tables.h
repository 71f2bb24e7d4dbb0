#pragma once

#include "domains/postprocessing/types.h"
#include "state/table.h"

namespace lockstep::postprocessing {

struct Tables {
  Table<Run> runs{"postprocessing.runs"};                         // key: job id
  Table<Output> outputs{"postprocessing.outputs"};                // key: job id
  Table<SafetyPolicyUpdate> policies{"postprocessing.policies"};  // one row, key "safety"; none: the built-in one

  template <class F>
  void for_each_table(F&& f) {
    f(runs);
    f(outputs);
    f(policies);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(runs);
    f(outputs);
    f(policies);
  }
};

}  // namespace lockstep::postprocessing
