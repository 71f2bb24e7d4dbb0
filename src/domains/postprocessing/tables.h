#pragma once

#include "domains/postprocessing/types.h"
#include "state/table.h"

namespace lockstep::postprocessing {

struct Tables {
  Table<Run> runs{"postprocessing.runs"};           // key: job id
  Table<Output> outputs{"postprocessing.outputs"};  // key: job id

  template <class F>
  void for_each_table(F&& f) {
    f(runs);
    f(outputs);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(runs);
    f(outputs);
  }
};

}  // namespace lockstep::postprocessing
