#pragma once

// Redis and NATS as peers of the propagation rows: their own server, started for the measurement, and the least client
// that speaks to it. One that is not installed is absent.

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/programs.h"
#include "bench/shapes.h"

namespace lockstep::bench {

enum class PeerKind { redis, redis_synced, nats };

class Peer {
 public:
  /// not_found when it is not installed. `folder` is for its socket and files.
  static Result<std::unique_ptr<Peer>> start(PeerKind kind, const std::string& folder, int cpu);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  /// Publish to deliver, 300 bytes, one in flight. Not for redis_synced.
  Result<std::vector<double>> one_way_us(Placement placement, int samples);
  /// Deliveries in a second, 300 bytes each.
  Result<double> deliveries_per_s(int subscribers, int messages);
  /// Entries in a second that a synced stream takes, 64 in one pipeline. redis_synced only.
  Result<double> synced_per_s(int messages);

 private:
  Peer(PeerKind kind, std::string address) : kind_(kind), address_(std::move(address)) {}
  int connect() const;
  int subscribe() const;
  std::string publication() const;
  std::size_t delivery_size() const;
  std::size_t reply_size() const;  // what the server answers to one publication

  PeerKind kind_;
  std::string address_;  // of a Unix socket, or the port
  Running server_;
};

}  // namespace lockstep::bench
