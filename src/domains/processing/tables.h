#pragma once

#include "domains/processing/types.h"
#include "state/table.h"

namespace lockstep::processing {

struct Tables {
  Table<Request> requests{"processing.requests"};             // key: request id
  Table<Job> jobs{"processing.jobs"};                         // key: job id; ids sort in order of acceptance
  Table<Session> sessions{"processing.sessions"};             // key: session id
  Table<WorkflowTemplate> templates{"processing.templates"};  // key: name; those that people added

  template <class F>
  void for_each_table(F&& f) {
    f(requests);
    f(jobs);
    f(sessions);
    f(templates);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(requests);
    f(jobs);
    f(sessions);
    f(templates);
  }
};

}  // namespace lockstep::processing
