#include "env/real/tls_listener.h"

#include <sys/stat.h>

#include <charconv>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/text.h"
#include "env/real/blob_session.h"
#include "env/real/tls_connection.h"
#include "env/real/tls_link.h"

namespace lockstep::real {

using boost::asio::ip::tcp;
using boost::system::error_code;

Result<std::pair<std::string, std::string>> split_address(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  unsigned number = 0;
  const auto read = std::from_chars(port.data(), port.data() + port.size(), number);
  const bool is_port = !port.empty() && read.ec == std::errc{} && read.ptr == port.data() + port.size();
  if (host.empty() || !is_port || number > 65535 || (!bracketed && host.find(':') != std::string::npos)) {
    return fail(ErrorCode::invalid_argument,
                cat("the address is \"", shortened(address), "\"; it must be host:port, with a port up to 65535"));
  }
  return std::pair(std::move(host), port);
}

class TlsListener::State : public std::enable_shared_from_this<State> {
 public:
  State(Reactor& reactor, std::shared_ptr<TlsContext> context, Hooks hooks)
      : context_(std::move(context)), hooks_(std::move(hooks)), io_(reactor.context()), acceptor_(io_), timer_(io_) {}

  Result<std::uint16_t> listen(const std::string& address) {
    const auto [host, port] = LOCKSTEP_TRY(split_address(address));
    error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(host, port, tcp::resolver::passive, error);
    if (!error) acceptor_.open(found.begin()->endpoint().protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(found.begin()->endpoint(), error);
    if (!error) acceptor_.listen(static_cast<int>(strangers_max), error);
    if (error) return fail(ErrorCode::unavailable, cat("cannot listen on ", address, ": ", error.message()));
    accept();
    return acceptor_.local_endpoint().port();
  }

  void stop() {
    hooks_ = {};
    error_code ignored;
    acceptor_.close(ignored);
    timer_.cancel();
  }

  const BlobTable& blobs() const { return *blobs_; }

 private:
  void accept() {
    acceptor_.async_accept([self = shared_from_this()](const error_code& error, tcp::socket socket) {
      if (error == boost::asio::error::operation_aborted || !self->acceptor_.is_open()) return;
      if (error) return self->accept_later();
      self->greet(std::move(socket));
      self->accept();
    });
  }

  /// No descriptor is left, most likely: at once would be in vain.
  void accept_later() {
    timer_.expires_after(std::chrono::milliseconds(100));
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->accept();
    });
  }

  void greet(tcp::socket socket) {
    error_code error;
    const auto from = socket.remote_endpoint(error);
    const std::string address = error ? "?" : cat(from.address().to_string(), ":", from.port());
    if (strangers_ >= strangers_max) {
      return refuse(address, cat(strangers_, " others have not finished their handshakes"));
    }
    socket.set_option(tcp::no_delay(true), error);
    ++strangers_;
    const auto connection = std::make_shared<TlsConnection>(std::move(socket), context_);
    const auto deadline = std::make_shared<boost::asio::steady_timer>(io_, std::chrono::nanoseconds(patience));
    deadline->async_wait([connection](const error_code& fired) {
      error_code ignored;
      if (!fired) connection->stream.lowest_layer().close(ignored);
    });
    connection->stream.async_handshake(
        boost::asio::ssl::stream_base::server,
        [self = shared_from_this(), connection, deadline, address](const error_code& failed) {
          --self->strangers_;
          const bool late = deadline->cancel() == 0;
          if (failed) {
            return self->refuse(address,
                                late ? "its handshake took too long" : handshake_failure(connection->stream, failed));
          }
          connection->peer = peer_name(connection->stream);
          self->shake_hands(connection, address);
        });
  }

  void refuse(const std::string& address, const std::string& why) {
    if (hooks_.refused) hooks_.refused(address, why);
  }

  void shake_hands(const std::shared_ptr<TlsConnection>& connection, const std::string& address) {
    if (connection->peer.empty()) return refuse(address, "its certificate names nobody");
    if (agreed_protocol(connection->stream) == alpn_http) return serve_blobs(connection, blobs_);
    if (agreed_protocol(connection->stream) != alpn_link) {
      return refuse(address, cat("it asks for neither ", alpn_link, " nor ", alpn_http));
    }
    if (!hooks_.arrived) return;
    hooks_.arrived(
        [this_blobs = blobs_, connection](LinkHooks hooks) {
          return make_tls_link(connection, port_for(this_blobs, connection->peer), std::move(hooks));
        },
        {connection->peer, address});
  }

  static BlobPort port_for(const std::shared_ptr<BlobTable>& blobs, const std::string& peer) {
    blobs->link_opened(peer);
    BlobPort port;
    port.give = [blobs, peer](std::vector<SharedFd> bytes, auto done) {
      std::vector<NamedBlob> names;
      for (SharedFd& each : bytes) {
        struct stat facts{};
        if (::fstat(each->get(), &facts) != 0) return done(fail(ErrorCode::internal, "a descriptor has no size"));
        names.push_back({blobs->offer(peer, std::move(each)), static_cast<std::uint64_t>(facts.st_size)});
      }
      done(std::move(names));
    };
    port.take = [blobs, peer](const std::vector<NamedBlob>& names) -> Result<std::vector<Fd>> {
      std::vector<Fd> out;
      for (const NamedBlob& each : names) out.push_back(LOCKSTEP_TRY(blobs->claim(peer, each.name)));
      return out;
    };
    port.over = [blobs, peer] { blobs->link_closed(peer); };
    return port;
  }

  std::shared_ptr<TlsContext> context_;
  Hooks hooks_;
  boost::asio::io_context& io_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<BlobTable> blobs_ = std::make_shared<BlobTable>();
  std::size_t strangers_ = 0;
};

TlsListener::TlsListener(Reactor& reactor, std::shared_ptr<TlsContext> context, Hooks hooks)
    : state_(std::make_shared<State>(reactor, std::move(context), std::move(hooks))) {}

TlsListener::~TlsListener() { state_->stop(); }

Result<std::uint16_t> TlsListener::listen(const std::string& address) { return state_->listen(address); }

const BlobTable& TlsListener::blobs() const { return state_->blobs(); }

}  // namespace lockstep::real
