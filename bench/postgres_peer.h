#pragma once

// PostgreSQL as a peer: a cluster of its own with every default but prepared transactions, driven by its own pgbench
// over a Unix socket: three small rows of three tables, PREPARE TRANSACTION, COMMIT PREPARED.

#include "bench/commit_peers.h"

namespace lockstep::bench {

Result<std::unique_ptr<CommitPeer>> start_postgres(const Programs& programs, const std::string& folder,
                                                   Placement placement);

/// The transaction as a script of pgbench: one message up to the promise, and one for the decision.
std::string postgres_script();
/// Rows of `clients` clients in three tables.
std::string postgres_schema(int clients);

/// Microseconds of each transaction from pgbench's log of one client or several:
/// "client number took script seconds microseconds".
Result<std::vector<double>> latencies_of(std::string_view log);
/// From its report, which also says whether each of `count` was done; internal when not.
Result<double> rate_of(std::string_view report, int count);

}  // namespace lockstep::bench
