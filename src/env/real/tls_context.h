#pragma once

// How TLS is spoken with workers that dial over a network: version 1.3, both sides with a certificate of one private
// authority. There is no other mode, and nothing here can be switched off.

#include <memory>
#include <string>

#include "base/result.h"

namespace boost::asio::ssl {
class context;
}

namespace lockstep::real {

/// PEM files: our chain and its key, and the authority whose certificates the other side may show.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string authority;
};

/// Protocols that a connection can be for, as ALPN says them.
inline constexpr std::string_view alpn_link = "lockstep-link/1";
inline constexpr std::string_view alpn_http = "http/1.1";

class TlsContext {
 public:
  /// invalid_argument names the file that cannot be used, and why.
  static Result<std::shared_ptr<TlsContext>> server(const TlsFiles& files);
  static Result<std::shared_ptr<TlsContext>> client(const TlsFiles& files);
  ~TlsContext();

  boost::asio::ssl::context& get() { return *context_; }

 private:
  explicit TlsContext(std::unique_ptr<boost::asio::ssl::context> context);
  static Result<std::shared_ptr<TlsContext>> make(const TlsFiles& files, bool serves);
  std::unique_ptr<boost::asio::ssl::context> context_;
};

}  // namespace lockstep::real
