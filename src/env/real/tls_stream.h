#pragma once

// A TLS connection as the .cc files of this room use it; not for other headers.

#include <string>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/system/error_code.hpp>

namespace lockstep::real {

using TlsStream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

/// The name in the other side's certificate: its first DNS name, or else its common name. Empty when it has neither.
std::string peer_name(TlsStream& stream);
/// The protocol both agreed on.
std::string agreed_protocol(TlsStream& stream);
/// Why a handshake failed, with what the certificate check said.
std::string handshake_failure(TlsStream& stream, const boost::system::error_code& error);
/// Offers one protocol; for the side that dials.
void offer_protocol(TlsStream& stream, std::string_view protocol);

}  // namespace lockstep::real
