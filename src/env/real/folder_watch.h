#pragma once

// Tells when something in a folder, or in its sub-folders one and two levels down, was written, moved or deleted:
// inotify. What changed is for whoever looks; several changes may be one call.

#include <functional>
#include <string>

#include "base/result.h"
#include "env/real/fd.h"
#include "env/real/reactor.h"

namespace lockstep::real {

class FolderWatch {
 public:
  /// `changed` is called on the reactor's thread.
  FolderWatch(Reactor& reactor, std::string folder, std::function<void()> changed);
  ~FolderWatch();
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;

  /// Begins, or takes in sub-folders that came since; may be called again at any time. unavailable says why it cannot
  /// watch (no such folder, no more watches for this user): then somebody has to look by the clock.
  Status refresh();

 private:
  void read_events();

  Reactor& reactor_;
  std::string folder_;
  std::function<void()> changed_;
  Fd queue_;
  Reactor::WatchId watch_ = 0;
};

}  // namespace lockstep::real
