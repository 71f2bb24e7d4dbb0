#pragma once

// The port for workers of other machines: TLS 1.3 with a certificate from both sides. A connection is a worker's link,
// or HTTP for the bytes that its frames speak of; ALPN says which.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "env/real/blob_table.h"
#include "env/real/link.h"
#include "env/real/reactor.h"
#include "env/real/tls_context.h"

namespace lockstep::real {

struct TlsPeer {
  std::string certificate_name;
  std::string address;  // for people
};

class TlsListener {
 public:
  struct Hooks {
    /// A link's connection; one whose factory is not used is closed.
    std::function<void(const LinkFactory& make, const TlsPeer& peer)> arrived;
    /// A connection that did not get through its handshake, for the log.
    std::function<void(const std::string& address, const std::string& why)> refused;
  };

  TlsListener(Reactor& reactor, std::shared_ptr<TlsContext> context, Hooks hooks);
  ~TlsListener();
  TlsListener(const TlsListener&) = delete;
  TlsListener& operator=(const TlsListener&) = delete;

  /// "host:port"; port 0 takes any free one. Returns the port. unavailable when it cannot be listened on.
  Result<std::uint16_t> listen(const std::string& address);

  const BlobTable& blobs() const;

  /// A handshake, and a request's head, must come within this; at most so many connections wait for it at once.
  static constexpr Nanos patience = seconds(5);
  static constexpr std::size_t strangers_max = 64;

 private:
  class State;
  std::shared_ptr<State> state_;
};

/// "host:port" or "[v6]:port" in two; invalid_argument otherwise.
Result<std::pair<std::string, std::string>> split_address(const std::string& address);

}  // namespace lockstep::real
