#pragma once

// The worker's end of a TLS link: the dialing, and the bytes beside its frames by HTTP. What a frame brings is fetched
// by a thread of its own into a memory file; whoever uses it waits until it is sealed (wait_sealed).

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "env/real/link.h"
#include "env/real/pool.h"
#include "env/real/reactor.h"
#include "env/real/tls_context.h"

namespace lockstep::real {

class TlsDialer {
 public:
  /// address  "host:port" of a TlsListener; the host must stand in its certificate
  /// invalid_argument for an address that cannot be one.
  static Result<std::unique_ptr<TlsDialer>> make(Reactor& reactor, std::shared_ptr<TlsContext> context,
                                                 const std::string& address);
  /// Waits for what is fetched or put at this moment; each of it has a limit of its own.
  ~TlsDialer();
  TlsDialer(const TlsDialer&) = delete;
  TlsDialer& operator=(const TlsDialer&) = delete;

  /// Calls back once, on the reactor's thread: the connection's link can be made, or unavailable with the reason. One
  /// dialing at a time.
  void dial(std::function<void(Result<LinkFactory>)> done);

 private:
  class State;
  explicit TlsDialer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace lockstep::real
