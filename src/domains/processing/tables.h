#pragma once

#include "domains/processing/types.h"
#include "state/table.h"

namespace lockstep::processing {

struct Tables {
  Table<Request> requests{"processing.requests"};  // key: request id
  Table<Job> jobs{"processing.jobs"};              // key: job id; ids sort in order of acceptance

  template <class F>
  void for_each_table(F&& f) {
    f(requests);
    f(jobs);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(requests);
    f(jobs);
  }
};

}  // namespace lockstep::processing
