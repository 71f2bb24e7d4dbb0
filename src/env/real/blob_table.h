#pragma once

// Bytes that frames of a TLS link speak of, where no descriptor can ride with them: what the orchestrator offers for a
// worker to fetch, and what a worker has put before the frame that names it. Each belongs to one certificate name and
// is gone with that worker's last link.

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "env/real/fd.h"

namespace lockstep::real {

/// 32 hexadecimal digits that nobody can guess.
std::string random_blob_name();
bool is_blob_name(std::string_view text);

/// Used on the reactor's thread.
class BlobTable {
 public:
  static constexpr Bytes put_max{1ULL << 30};   // one blob of a worker: the largest image by far
  static constexpr Bytes puts_max{2ULL << 30};  // all that one worker has put and no frame has named
  static constexpr std::size_t puts_count_max = 64;

  void link_opened(const std::string& peer);
  /// With the last one everything of the peer goes.
  void link_closed(const std::string& peer);
  bool has_link(const std::string& peer) const { return peers_.contains(peer); }

  /// A name for the peer to fetch it by. The peer has a link.
  std::string offer(const std::string& peer, SharedFd bytes);
  /// nullptr when there is none of that name for this peer.
  SharedFd offered(const std::string& peer, const std::string& name) const;
  /// It was fetched whole.
  void taken(const std::string& peer, const std::string& name);

  /// Why no blob of this name may be put now; too_large, already_exists, unavailable (no link).
  Status may_put(const std::string& peer, const std::string& name, Bytes bytes) const;
  /// The peer may have gone while it was received: then it is dropped.
  void put(const std::string& peer, const std::string& name, Fd bytes, Bytes size);
  /// data_loss when no such blob was put.
  Result<Fd> claim(const std::string& peer, const std::string& name);

  /// What is held, over all peers; a test looks for leaks here.
  std::size_t size() const;

 private:
  struct Put {
    Fd bytes;
    Bytes size;
  };
  struct Peer {
    int links = 0;
    std::map<std::string, SharedFd> offers;
    std::map<std::string, Put> puts;
  };
  std::map<std::string, Peer> peers_;
};

}  // namespace lockstep::real
