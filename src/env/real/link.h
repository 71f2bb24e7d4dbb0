#pragma once

// A connection that carries frames, with descriptors beside them where the transport can pass them. FrameLink is the
// Unix socket.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "env/frame.h"
#include "env/real/fd.h"

namespace lockstep::real {

/// All of it is called, and calls back, on the reactor's thread. A link may be destroyed from inside either hook.
struct LinkHooks {
  std::function<void(Frame, std::vector<Fd>)> frame;
  /// Once; nothing is called after it.
  std::function<void(std::string reason)> closed;
  /// It takes more, after it said that it does not. May be empty.
  std::function<void()> drained = {};
};

class Link {
 public:
  virtual ~Link() = default;
  /// In order; a peer that does not read is lost, through closed().
  virtual void send(const Frame& frame, std::vector<SharedFd> descriptors) = 0;
  /// Whoever has a choice of what to send next asks first, for each frame: what the link, or the system behind it, has
  /// can not be overtaken any more. After a no drained() follows.
  virtual bool takes_more() = 0;
  /// While it is held nothing more is read: what the peer sends stays with the peer. What was read is still delivered.
  virtual void hold(bool /*held*/) {}
};

/// Makes the link of a connection that is there already.
using LinkFactory = std::function<std::unique_ptr<Link>(LinkHooks hooks)>;

}  // namespace lockstep::real
