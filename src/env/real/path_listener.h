#pragma once

// The path socket that workers dial: a Unix socket with mode 0600, and who is at the other end from the kernel.

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "env/real/fd.h"
#include "env/real/link.h"
#include "env/real/reactor.h"

namespace lockstep::real {

/// From SO_PEERCRED. pid is 0 for a process of another pid namespace; start_ticks tells a reused pid apart.
struct PathPeer {
  uid_t uid = 0;
  std::int64_t pid = 0;
  std::uint64_t start_ticks = 0;
};

class PathListener {
 public:
  /// `arrived` is called for each connection; one whose factory it does not use is closed.
  PathListener(Reactor& reactor, std::string path,
               std::function<void(const LinkFactory& make, const PathPeer& peer)> arrived);
  ~PathListener();
  PathListener(const PathListener&) = delete;
  PathListener& operator=(const PathListener&) = delete;

  /// Replaces what an ended process left at the path; unavailable when somebody listens there, or the path is longer
  /// than a socket's may be.
  Status listen();

 private:
  void accept();

  Reactor& reactor_;
  std::string path_;
  std::function<void(const LinkFactory&, const PathPeer&)> arrived_;
  Fd socket_;
  Reactor::WatchId watch_ = 0;
};

/// A connection to a path socket; unavailable when nobody listens there. Does not block.
Result<Fd> dial_path(const std::string& path);

}  // namespace lockstep::real
