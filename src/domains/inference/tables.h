#pragma once

#include "domains/inference/types.h"
#include "state/table.h"

namespace lockstep::inference {

struct Tables {
  Table<Run> runs{"inference.runs"};  // key: job id

  template <class F>
  void for_each_table(F&& f) {
    f(runs);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(runs);
  }
};

}  // namespace lockstep::inference
