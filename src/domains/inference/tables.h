#pragma once

#include "domains/inference/types.h"
#include "state/table.h"

namespace lockstep::inference {

struct Tables {
  Table<Run> runs{"inference.runs"};           // key: job id
  Table<Tuning> tunings{"inference.tunings"};  // key: model id

  template <class F>
  void for_each_table(F&& f) {
    f(runs);
    f(tunings);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(runs);
    f(tunings);
  }
};

}  // namespace lockstep::inference
