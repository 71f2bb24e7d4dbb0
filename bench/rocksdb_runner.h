#pragma once

// RocksDB as a peer: bench/rocksdb_peer.cc, a program of its own that is built where RocksDB's header and library are,
// so that ours is not linked with it.

#include "bench/commit_peers.h"

namespace lockstep::bench {

/// not_found where that program is not.
Result<std::unique_ptr<CommitPeer>> start_rocksdb(const Programs& programs, const std::string& folder,
                                                  Placement placement);

/// What that program prints: "transactions/s NUMBER", and a line of microseconds for each of `count` transactions.
Result<CommitFigures> figures_of(std::string_view text, int count);

}  // namespace lockstep::bench
