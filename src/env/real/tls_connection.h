#pragma once

// For the .cc files of this room: a connection between its handshake and its use.

#include <memory>
#include <string>

#include "env/real/tls_context.h"
#include "env/real/tls_stream.h"

namespace lockstep::real {

class TlsConnection {
 public:
  TlsConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<TlsContext> made_with)
      : context(std::move(made_with)), stream(std::move(socket), context->get()) {}

  std::shared_ptr<TlsContext> context;  // outlives the stream
  TlsStream stream;
  std::string peer;  // the name in its certificate
};

}  // namespace lockstep::real
