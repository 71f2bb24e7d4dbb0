#pragma once

// The sagas of which something is left to undo outside the tables (§3.6): their definitions by name, and their records.
// What a load leaves to undo is in model_load.h; here is what rolled back outputs do.

#include <string>
#include <string_view>
#include <vector>

#include "operations/tables.h"
#include "transactions/saga.h"

namespace lockstep {

/// nullptr when this program has none of that name.
const SagaDefinition* saga_definition(std::string_view name);

/// A record with nothing due yet.
SagaRecord begin_compensation(const SagaDefinition& saga, const TransactionId& transaction, std::string why,
                              WallTime now);

/// Keeps the record, or ends it when it is compensated. It is told when one is parked, and when one ends.
void put_saga(const Tables& tables, const SagaRecord& record, Change& change);

/// The rollback of a request's outputs is a transaction of its own: each image had ended.
TransactionId rollback_of(const RequestId& request);

/// The record of a rollback: the files of these outputs are to be removed, the one that was stored last at first.
SagaRecord outputs_to_remove(const RequestId& request, std::vector<postprocessing::Output> outputs, std::string why,
                             WallTime now);

}  // namespace lockstep
