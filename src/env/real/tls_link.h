#pragma once

// Frames over one TLS connection. Descriptors cannot ride here: behind the body of a frame stands a name for each of
// them, and the bytes go by HTTP over a connection of their own (docs/formats/wire.md).

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/real/link.h"
#include "env/real/reactor.h"

namespace lockstep::real {

class TlsConnection;  // tls_link.cc; a connection after its handshake

/// What a frame says of one descriptor that could not ride with it: on the wire 32 characters of name, then 8 bytes
/// of size, little-endian.
struct NamedBlob {
  std::string name;
  std::uint64_t bytes = 0;
};
inline constexpr std::size_t named_blob_size = 40;

/// How descriptors become names and names become descriptors, on this side of the link.
struct BlobPort {
  /// Calls back on the reactor's thread, at once or later, when the other side can use the names. An error closes the
  /// link.
  std::function<void(std::vector<SharedFd>, std::function<void(Result<std::vector<NamedBlob>>)>)> give;
  /// The descriptors of a frame that arrived; they may still be filling (wait_sealed). An error closes the link.
  std::function<Result<std::vector<Fd>>(const std::vector<NamedBlob>&)> take;
  /// The link is gone.
  std::function<void()> over;
};

/// Link over the connection; it lives on the reactor's thread.
std::unique_ptr<Link> make_tls_link(std::shared_ptr<TlsConnection> connection, BlobPort port, LinkHooks hooks);

}  // namespace lockstep::real
