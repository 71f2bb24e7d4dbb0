#pragma once

// Transactions as people see them (§3.1-3.8): what they did, as documents, in `lockstep tx` and in the event stream,
// and the one way in which a person may decide instead of the protocol.
//
// The log follows the state: after every decision settle_transactions() compares what it knew of each open transaction
// with the tables, and writes the documents of what has happened. So a document cannot claim what is not in the state,
// and no place that decides can forget to report.

#include <optional>
#include <string>
#include <string_view>

#include "orchestrator/turn.h"

namespace lockstep {

/// What the next documents of the transaction should give as the reason. Nothing for one that is not open.
void note_reason(Turn& turn, const TransactionId& id, const std::string& reason);

/// A copy that runs: the newest state of it takes the place of the one before.
void load_progressed(Turn& turn, const TransactionId& id, double progress);
/// The next transaction of a load.
TransactionId next_transaction(Turn& turn);
/// A service of the coordinator said no, so the worker was not asked: a transaction that is aborted at once, with the
/// votes. Told once for a model and a worker, until it is prepared there or another service says no.
void load_refused(Turn& turn, const WorkerRecord& worker, const ModelId& model, const JobId& wanted_by,
                  const ServiceVotes& votes);
/// The load is not decided and will not be: what ended it.
void load_aborts(Turn& turn, const TransactionId& id, TransactionEvent event);
/// The load is about to be undone: while it still holds everything, what will be taken back, and in which order.
/// point: copy_failed, worker_lost
void load_fails(Turn& turn, const TransactionId& id, std::string_view point, const std::string& reason);
/// What the worker's own allocator counts now: proof that what failed loads had there is free again (§3.8).
void allocator_sampled(Turn& turn, const WorkerRecord& worker, const MemorySample& sample);

/// After a start: loads of an earlier life whose copy may still run; their worker lives, or is to be proven gone.
void take_up_loads(Turn& turn);
/// A run was given to the worker, or the worker is back with it.
void image_began(Turn& turn, const JobId& job, const std::string& run_id, std::uint32_t attempt,
                 const WorkerRecord& worker);
TransactionId image_transaction(const std::string& run_id);

/// Writes the documents of one change that the log has not seen; false when there is none.
bool settle_transactions(Turn& turn);

/// "transactions" and "transactions/<id>" as JSON.
std::optional<std::string> transaction_view_text(const Turn& turn, const std::string& path);

/// A person decides: journaled, told, and shown as what it is.
void on_resolve_transaction(Turn& turn, const in::ResolveTransaction& input);

}  // namespace lockstep
