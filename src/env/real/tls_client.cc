#include "env/real/tls_client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/text.h"
#include "env/real/blob_table.h"
#include "env/real/memory_file.h"
#include "env/real/tls_connection.h"
#include "env/real/tls_link.h"
#include "env/real/tls_listener.h"

namespace lockstep::real {

namespace {

namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds dial_patience{5};
constexpr timeval transfer_patience{30, 0};  // without a byte moving

Error transfer_failed(std::string_view what, const error_code& error) {
  return fail(ErrorCode::unavailable, cat(what, ": ", error.message()));
}

/// One blocking HTTP connection for one blob.
class Transfer {
 public:
  Transfer(std::shared_ptr<TlsContext> context, std::string host, std::string port)
      : host_(std::move(host)), port_(std::move(port)), connection_(tcp::socket(io_), std::move(context)) {}

  Status put(const std::string& name, int fd, std::uint64_t bytes) {
    LOCKSTEP_TRY_STATUS(open());
    http::request<http::buffer_body> request(http::verb::put, "/blobs/" + name, 11);
    request.set(http::field::host, host_);
    request.chunked(true);
    request.body().data = nullptr;
    request.body().more = true;
    http::request_serializer<http::buffer_body> out(request);
    error_code error;
    http::write_header(connection_.stream, out, error);
    if (error) return transfer_failed("putting a blob", error);
    for (std::uint64_t at = 0; at < bytes || request.body().more;) {
      const std::size_t want = std::min<std::uint64_t>(piece_.size(), bytes - at);
      const ssize_t got = want == 0 ? 0 : ::pread(fd, piece_.data(), want, static_cast<off_t>(at));
      if (want > 0 && got <= 0) return fail(ErrorCode::internal, "a result cannot be read");
      at += static_cast<std::uint64_t>(got);
      request.body().data = got == 0 ? nullptr : piece_.data();
      request.body().size = static_cast<std::size_t>(got);
      request.body().more = at < bytes;
      http::write(connection_.stream, out, error);
      if (error == http::error::need_buffer) error = {};
      if (error) return refused("putting a blob", error);
    }
    return answered(201);
  }

  Status get(const std::string& name, int fd, std::uint64_t bytes) {
    LOCKSTEP_TRY_STATUS(open());
    http::request<http::empty_body> request(http::verb::get, "/blobs/" + name, 11);
    request.set(http::field::host, host_);
    error_code error;
    http::write(connection_.stream, request, error);
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    if (!error) http::read_header(connection_.stream, buffer_, parser, error);
    if (error) return transfer_failed("fetching a blob", error);
    if (parser.get().result_int() != 200) {
      return fail(ErrorCode::unavailable, cat("fetching a blob gave HTTP status ", parser.get().result_int()));
    }
    std::uint64_t at = 0;
    while (!parser.is_done()) {
      parser.get().body().data = piece_.data();
      parser.get().body().size = piece_.size();
      http::read(connection_.stream, buffer_, parser, error);
      if (error == http::error::need_buffer) error = {};
      if (error) return transfer_failed("fetching a blob", error);
      const std::size_t got = piece_.size() - parser.get().body().size;
      if (at + got > bytes) return fail(ErrorCode::data_loss, cat("a blob has more than its ", bytes, " bytes"));
      for (std::size_t kept = 0; kept < got;) {
        const ssize_t wrote = ::pwrite(fd, piece_.data() + kept, got - kept, static_cast<off_t>(at + kept));
        if (wrote <= 0) return fail(ErrorCode::resource_exhausted, cat("no memory: ", std::strerror(errno)));
        kept += static_cast<std::size_t>(wrote);
      }
      at += got;
    }
    if (at != bytes) return fail(ErrorCode::data_loss, cat("a blob has ", at, " bytes, ", bytes, " were announced"));
    return {};
  }

 private:
  Status open() {
    error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(host_, port_, error);
    if (!error) boost::asio::connect(connection_.stream.lowest_layer(), found, error);
    if (error) return transfer_failed("reaching the orchestrator", error);
    const int socket = connection_.stream.lowest_layer().native_handle();
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &transfer_patience, sizeof transfer_patience);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &transfer_patience, sizeof transfer_patience);
    connection_.stream.lowest_layer().set_option(tcp::no_delay(true), error);
    connection_.stream.set_verify_callback(ssl::host_name_verification(host_));
    SSL_set_tlsext_host_name(connection_.stream.native_handle(), host_.c_str());
    offer_protocol(connection_.stream, alpn_http);
    connection_.stream.handshake(ssl::stream_base::client, error);
    if (error) return fail(ErrorCode::unavailable, handshake_failure(connection_.stream, error));
    return {};
  }

  /// The other side may have answered before it had everything: its sentence is worth more than a broken pipe.
  Status refused(std::string_view what, const error_code& error) {
    const Status answer = answered(0);
    return answer.error().code == ErrorCode::outcome_unknown ? Status(transfer_failed(what, error)) : answer;
  }

  Status answered(unsigned wanted) {
    http::response<http::string_body> response;
    error_code error;
    http::read(connection_.stream, buffer_, response, error);
    if (error) return fail(ErrorCode::outcome_unknown, cat("no answer: ", error.message()));
    if (response.result_int() == wanted) return {};
    return fail(ErrorCode::unavailable,
                cat("the orchestrator refused a blob: ", response.result_int(), " ", shortened(response.body(), 300)));
  }

  boost::asio::io_context io_;
  std::string host_;
  std::string port_;
  TlsConnection connection_;
  boost::beast::flat_buffer buffer_;
  std::array<char, 256u << 10> piece_{};
};

}  // namespace

class TlsDialer::State : public std::enable_shared_from_this<State> {
 public:
  State(Reactor& reactor, std::shared_ptr<TlsContext> context, std::string host, std::string port)
      : reactor_(reactor),
        context_(std::move(context)),
        host_(std::move(host)),
        port_(std::move(port)),
        resolver_(reactor.context()) {}

  void dial(std::function<void(Result<LinkFactory>)> done) {
    const auto connection = std::make_shared<TlsConnection>(tcp::socket(reactor_.context()), context_);
    const auto deadline = std::make_shared<boost::asio::steady_timer>(reactor_.context(), dial_patience);
    const auto answered = std::make_shared<bool>(false);
    const auto finish = [done = std::move(done), deadline, answered](Result<LinkFactory> result) {
      if (std::exchange(*answered, true)) return;
      deadline->cancel();
      done(std::move(result));
    };
    const auto failed = [this, finish](const std::string& why) {
      finish(fail(ErrorCode::unavailable, cat("cannot reach ", host_, ":", port_, ": ", why)));
    };
    deadline->async_wait([self = shared_from_this(), connection, failed](const error_code& fired) {
      if (fired) return;
      self->resolver_.cancel();
      error_code ignored;
      connection->stream.lowest_layer().close(ignored);
      failed("no answer in time");
    });
    resolver_.async_resolve(
        host_, port_,
        [self = shared_from_this(), connection, finish, failed](const error_code& error, const auto& found) {
          if (error) return failed(error.message());
          boost::asio::async_connect(
              connection->stream.lowest_layer(), found,
              [self, connection, finish, failed](const error_code& refused, const tcp::endpoint&) {
                if (refused) return failed(refused.message());
                self->shake_hands(connection, finish, failed);
              });
        });
  }

 private:
  template <class Finish, class Failed>
  void shake_hands(const std::shared_ptr<TlsConnection>& connection, Finish finish, Failed failed) {
    error_code ignored;
    connection->stream.lowest_layer().set_option(tcp::no_delay(true), ignored);
    connection->stream.set_verify_callback(ssl::host_name_verification(host_));
    SSL_set_tlsext_host_name(connection->stream.native_handle(), host_.c_str());
    offer_protocol(connection->stream, alpn_link);
    connection->stream.async_handshake(
        ssl::stream_base::client, [self = shared_from_this(), connection, finish, failed](const error_code& error) {
          if (error) return failed(handshake_failure(connection->stream, error));
          finish(LinkFactory([self, connection](LinkHooks hooks) {
            return make_tls_link(connection, self->port(), std::move(hooks));
          }));
        });
  }

  // What runs on the pool takes copies along and never this: the last owner of a pool must not be its own thread.
  BlobPort port() {
    BlobPort out;
    out.give = [self = shared_from_this()](std::vector<SharedFd> bytes, auto done) {
      self->transfers_.run(
          [where = self->where(), bytes = std::move(bytes), done = std::move(done), reactor = &self->reactor_] {
            reactor->post([done, names = put_all(where, bytes)] { done(names); });
          });
    };
    out.take = [self = shared_from_this()](const std::vector<NamedBlob>& names) { return self->fetch_all(names); };
    out.over = [] {};
    return out;
  }

  struct Where {
    std::shared_ptr<TlsContext> context;
    std::string host;
    std::string port;
  };
  Where where() const { return {context_, host_, port_}; }

  static Result<std::vector<NamedBlob>> put_all(const Where& where, const std::vector<SharedFd>& all) {
    std::vector<NamedBlob> names;
    for (const SharedFd& each : all) {
      const Bytes size = LOCKSTEP_TRY(size_of(each->get()));
      names.push_back({random_blob_name(), size.value});
      Transfer transfer(where.context, where.host, where.port);
      LOCKSTEP_TRY_STATUS(transfer.put(names.back().name, each->get(), size.value));
    }
    return names;
  }

  Result<std::vector<Fd>> fetch_all(const std::vector<NamedBlob>& names) {
    std::vector<Fd> out;
    for (const NamedBlob& each : names) {
      FillingFile file = LOCKSTEP_TRY(begin_filling("lockstep:blob", Bytes{each.bytes}));
      out.push_back(std::move(file.reader));
      transfers_.run([where = where(), each, filler = std::make_shared<Fd>(std::move(file.filler))] {
        Transfer transfer(where.context, where.host, where.port);
        Status done = transfer.get(each.name, filler->get(), each.bytes);
        if (done) done = finish_filling(filler->get());
        if (!done) std::fprintf(stderr, "lockstep worker: %s\n", done.error().message.c_str());
        filler->reset();  // whoever waits goes on, and finds it sealed or not
      });
    }
    return out;
  }

  Reactor& reactor_;
  std::shared_ptr<TlsContext> context_;
  std::string host_;
  std::string port_;
  tcp::resolver resolver_;
  Pool transfers_{2};  // one for each direction, so that a result does not wait for a model
};

TlsDialer::TlsDialer(std::shared_ptr<State> state) : state_(std::move(state)) {}
TlsDialer::~TlsDialer() = default;

Result<std::unique_ptr<TlsDialer>> TlsDialer::make(Reactor& reactor, std::shared_ptr<TlsContext> context,
                                                   const std::string& address) {
  auto [host, port] = LOCKSTEP_TRY(split_address(address));
  return std::unique_ptr<TlsDialer>(
      new TlsDialer(std::make_shared<State>(reactor, std::move(context), std::move(host), std::move(port))));
}

void TlsDialer::dial(std::function<void(Result<LinkFactory>)> done) { state_->dial(std::move(done)); }

}  // namespace lockstep::real
