#pragma once

// Frames over one connected Unix stream socket, with descriptors beside them (SCM_RIGHTS). It decodes headers and
// nothing else. A broken header, a missing or unannounced descriptor, or too much unsent data closes the link.

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "env/frame_reader.h"
#include "env/real/link.h"
#include "env/real/reactor.h"

namespace lockstep::real {

class FrameLink : public Link {
 public:
  using Hooks = LinkHooks;
  FrameLink(Reactor& reactor, Fd socket, Hooks hooks);
  ~FrameLink() override;
  FrameLink(const FrameLink&) = delete;
  FrameLink& operator=(const FrameLink&) = delete;

  void send(const Frame& frame, std::vector<SharedFd> descriptors) override;
  /// The other side has read what was given before, but for a small frame or two.
  bool takes_more() override;
  void hold(bool held) override;

  static constexpr std::size_t unsent_max = 64u << 20;  // bytes; a peer that does not read for so long is lost

 private:
  struct Outgoing {
    std::string bytes;
    std::size_t sent = 0;
    std::vector<SharedFd> descriptors;  // ride with the first byte
  };
  void read();
  bool deliver();
  bool too_many_arrived() const;
  void write();
  void await_room();
  void close(std::string reason);

  Reactor& reactor_;
  Fd socket_;
  std::shared_ptr<Hooks> hooks_;  // a callback that destroys the link must outlive it
  Reactor::WatchId reading_ = 0;
  Reactor::WatchId writing_ = 0;
  FrameReader reader_;
  std::deque<Fd> arrived_;
  std::deque<Outgoing> outgoing_;
  std::size_t unsent_ = 0;
  // Guards callbacks that destroy the link: the flag outlives it.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lockstep::real
