#pragma once

// etcd as a peer: one member of its own, with every default, over the JSON gateway of its HTTP port (/v3/kv/txn) and
// connections that are kept: three compares and three puts in a transaction. Its gRPC port, which may be faster, is not
// measured.

#include <optional>

#include "bench/commit_peers.h"

namespace lockstep::bench {

Result<std::unique_ptr<CommitPeer>> start_etcd(const Programs& programs, const std::string& folder,
                                               Placement placement);

/// The whole request: three keys of `slot` are at `version` (0: not there), and get the next.
std::string etcd_request(int slot, std::uint64_t version);

/// The first answer in what was read: its size, and whether it says that the transaction succeeded. Nothing while it is
/// not whole; internal when it is no answer to one.
struct EtcdAnswer {
  std::size_t size = 0;
  bool succeeded = false;
};
Result<std::optional<EtcdAnswer>> etcd_answer(std::string_view bytes);

}  // namespace lockstep::bench
