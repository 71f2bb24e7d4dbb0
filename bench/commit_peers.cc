#include "bench/commit_peers.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/text.h"
#include "bench/etcd_peer.h"
#include "bench/postgres_peer.h"
#include "bench/rocksdb_runner.h"

namespace lockstep::bench {

std::span<const CommitPeerKind> commit_peers() {
  static constexpr std::array all{CommitPeerKind{"postgresql", start_postgres, 5},
                                  CommitPeerKind{"etcd", start_etcd, 5}, CommitPeerKind{"rocksdb", start_rocksdb, 2}};
  return all;
}

std::optional<double> target_beside(const Ordered<double>& peers) {
  std::optional<double> out;
  for (const CommitPeerKind& each : commit_peers()) {
    if (const double* figure = peers.find(each.name)) out = std::max(out.value_or(0), each.times * *figure);
  }
  return out;
}

}  // namespace lockstep::bench
