#pragma once

// All durable state of the orchestrator, domain by domain. Changed by apply(commit) only.

#include <boost/describe.hpp>

#include "domains/device/tables.h"
#include "domains/inference/tables.h"
#include "domains/memory/tables.h"
#include "domains/model/tables.h"
#include "domains/postprocessing/tables.h"
#include "domains/processing/tables.h"
#include "liveness/worker_record.h"
#include "operations/idempotency.h"
#include "operations/requests.h"
#include "propagation/outbox.h"
#include "state/table.h"
#include "transactions/two_phase_commit.h"

namespace lockstep {

/// cluster_id is made once per data directory; a worker or a client of another one is told apart by it.
struct Identity {
  std::string cluster_id;
  Epoch epoch;
  std::string version;
};
BOOST_DESCRIBE_STRUCT(Identity, (), (cluster_id, epoch, version))

struct Tables {
  Table<Identity> identity{"orchestrator.identity"};  // one row, key "self"
  LivenessTables liveness;
  TransactionTables transactions;
  RequestTables requests;
  IdempotencyTables idempotency;
  PropagationTables propagation;
  device::Tables device;
  memory::Tables memory;
  model::Tables model;
  processing::Tables processing;
  inference::Tables inference;
  postprocessing::Tables postprocessing;

  template <class Self, class F>
  static void each(Self& self, F& f) {
    f(self.identity);
    self.liveness.for_each_table(f);
    self.transactions.for_each_table(f);
    self.requests.for_each_table(f);
    self.idempotency.for_each_table(f);
    self.propagation.for_each_table(f);
    self.device.for_each_table(f);
    self.memory.for_each_table(f);
    self.model.for_each_table(f);
    self.processing.for_each_table(f);
    self.inference.for_each_table(f);
    self.postprocessing.for_each_table(f);
  }
  template <class F>
  void for_each_table(F&& f) {
    each(*this, f);
  }
  template <class F>
  void for_each_table(F&& f) const {
    each(*this, f);
  }
};

}  // namespace lockstep
