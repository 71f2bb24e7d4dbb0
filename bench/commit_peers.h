#pragma once

// What the durable transactions of `lockstep bench transactions` stand beside: PostgreSQL, etcd and RocksDB, each a
// server or program of its own, started for the measurement in a folder of its own and stopped after it. Every one
// syncs. One that is not installed is left out with a line. docs/performance.md says what each does.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "bench/programs.h"
#include "bench/shapes.h"
#include "events/ordered.h"

namespace lockstep::bench {

/// us     what each transaction took, in microseconds, the first ones of a warm-up among them
/// per_s  transactions in a second, all of them counted
struct CommitFigures {
  std::vector<double> us;
  double per_s = 0;
};

class CommitPeer {
 public:
  virtual ~CommitPeer() = default;
  /// At least `count` transactions with `in_flight` of them at a time; each changes three rows or keys of its own.
  virtual Result<CommitFigures> run(int in_flight, int count) = 0;
};

/// name   as in Row::peers
/// start  not_found when it is not installed, or cannot run as it must. Servers run on placement.hub, their clients on
///        placement.workers
/// times  how much more than it `commit_64` must do
struct CommitPeerKind {
  std::string_view name;
  Result<std::unique_ptr<CommitPeer>> (*start)(const Programs& programs, const std::string& folder,
                                               Placement placement);
  double times = 0;
};
std::span<const CommitPeerKind> commit_peers();

/// The most that a peer's figure asks of `commit_64`; nothing when there is none.
std::optional<double> target_beside(const Ordered<double>& peers);

/// What each participant of a peer's transaction writes.
inline constexpr std::size_t peer_value_size = 100;

}  // namespace lockstep::bench
