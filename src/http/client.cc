#include "http/client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/text.h"
#include "events/json_read.h"
#include "http/event_reader.h"

namespace lockstep::http {

namespace beast = boost::beast;

namespace {

constexpr int connect_ms_max = 5000;

struct ErrorBody {
  std::string message;
  std::string code;
};
BOOST_DESCRIBE_STRUCT(ErrorBody, (), (message, code))
struct ErrorEnvelope {
  ErrorBody error;
};
BOOST_DESCRIBE_STRUCT(ErrorEnvelope, (), (error))

std::string host_text(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return v6 ? cat("[", address.host, "]:", address.port) : cat(address.host, ":", address.port);
}

Error nobody(const Address& address, std::string_view why) {
  return fail(ErrorCode::unavailable, cat("no server answers at http://", host_text(address), ": ", why));
}

/// A connected socket, closed at the end.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// The errno of connecting, 0 when it worked.
int connect_within(int fd, const sockaddr* address, socklen_t length) {
  if (::connect(fd, address, length) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd watched{fd, POLLOUT, 0};
  int ready = 0;
  do {
    ready = ::poll(&watched, 1, connect_ms_max);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return ETIMEDOUT;
  if (ready < 0) return errno;
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

Result<Socket> connect_to(const Address& address) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(address.host.c_str(), cat(address.port).c_str(), &wanted, &found);
  if (failed != 0) return nobody(address, ::gai_strerror(failed));
  int error = ECONNREFUSED;
  int fd = -1;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    fd = ::socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
      error = errno;
      continue;
    }
    error = connect_within(fd, each->ai_addr, each->ai_addrlen);
    if (error == 0) break;
    ::close(fd);
    fd = -1;
  }
  ::freeaddrinfo(found);
  if (fd < 0) return nobody(address, std::strerror(error));
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return Socket(fd);
}

/// A peer that stops reading may have answered already (a body that is too large), so a failure is not told here.
void send_all(const Socket& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

bool is_safe_in_header(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

Result<std::string> head_text(const Address& address, const std::string& method, const std::string& target,
                              std::size_t body_size, const std::map<std::string, std::string>& headers) {
  if (!is_safe_in_header(target) || target.find(' ') != std::string::npos) {
    return fail(ErrorCode::invalid_argument, "a target must not contain spaces or line breaks");
  }
  std::string out = cat(method, " ", target, " HTTP/1.1\r\nHost: ", host_text(address), "\r\nConnection: close\r\n");
  for (const auto& [name, value] : headers) {
    if (!is_safe_in_header(value)) return fail(ErrorCode::invalid_argument, cat("header ", name, " has a line break"));
    out += cat(name, ": ", value, "\r\n");
  }
  if (body_size > 0 || method == "POST") out += cat("Content-Length: ", body_size, "\r\n");
  return out + "\r\n";
}

/// One response as it arrives. The body can be taken out while more of it comes.
class Incoming {
 public:
  explicit Incoming(bool head_only) {
    parser_.body_limit(boost::none);
    parser_.header_limit(64u << 10);
    parser_.eager(true);
    parser_.skip(head_only);
  }

  /// Blocks for at most timeout_ms (-1: as long as it takes). False: nothing came in this time, or a signal did.
  Result<bool> read_more(const Address& address, const Socket& socket, int timeout_ms) {
    if (timeout_ms >= 0) {
      pollfd watched{socket.fd(), POLLIN, 0};
      if (::poll(&watched, 1, timeout_ms) <= 0) return false;
    }
    const auto space = buffer_.prepare(64u << 10);
    const ssize_t got = ::recv(socket.fd(), space.data(), space.size(), 0);
    if (got < 0 && errno == EINTR) return false;
    if (got < 0) return nobody(address, std::strerror(errno));
    boost::system::error_code error;
    if (got == 0) {
      if (parser_.got_some()) parser_.put_eof(error);
      if (error || !parser_.is_done()) return nobody(address, "the connection was closed before the answer was whole");
      return true;
    }
    buffer_.commit(static_cast<std::size_t>(got));
    while (buffer_.size() > 0 && !parser_.is_done()) {
      const std::size_t used = parser_.put(buffer_.data(), error);
      buffer_.consume(used);
      if (error == beast::http::error::need_more) break;
      if (error) return nobody(address, cat("the answer is no HTTP: ", error.message()));
      if (used == 0) break;
    }
    return true;
  }

  bool header_done() const { return parser_.is_header_done(); }
  bool done() const { return parser_.is_done(); }
  std::string take_body() { return std::exchange(parser_.get().body(), {}); }

  Response response() {
    Response out;
    out.status = static_cast<int>(parser_.get().result_int());
    for (const auto& field : parser_.get()) {
      std::string name(field.name_string().data(), field.name_string().size());
      std::ranges::transform(name, name.begin(),
                             [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      out.headers.insert_or_assign(std::move(name), std::string(field.value().data(), field.value().size()));
    }
    out.body = take_body();
    return out;
  }

 private:
  beast::flat_buffer buffer_;
  beast::http::response_parser<beast::http::string_body> parser_;
};

Result<Response> read_whole(const Address& address, const Socket& socket, Incoming& incoming) {
  while (!incoming.done()) LOCKSTEP_TRY(incoming.read_more(address, socket, -1));
  return incoming.response();
}

}  // namespace

Result<Address> address_from_url(const std::string& url) {
  const auto refused = [&] {
    return fail(ErrorCode::invalid_argument,
                cat("\"", shortened(url), "\" is no address of a server; it looks like http://127.0.0.1:7420"));
  };
  std::string_view rest = url;
  if (!rest.starts_with("http://")) return refused();
  rest.remove_prefix(7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (!is_safe_in_header(rest) || rest.find_first_of("/?#@ ") != std::string_view::npos) return refused();
  Address address;
  address.port = 80;
  std::string_view port;
  if (rest.starts_with('[')) {
    const std::size_t end = rest.find(']');
    if (end == std::string_view::npos) return refused();
    address.host = rest.substr(1, end - 1);
    port = rest.substr(end + 1);
  } else {
    const std::size_t colon = rest.find(':');
    address.host = rest.substr(0, colon);
    if (colon != std::string_view::npos) port = rest.substr(colon);
  }
  if (address.host.empty()) return refused();
  if (port.empty()) return address;
  if (port.front() != ':' || port.size() == 1) return refused();
  const char* const end = port.data() + port.size();
  const auto parsed = std::from_chars(port.data() + 1, end, address.port);
  if (parsed.ec != std::errc{} || parsed.ptr != end || address.port == 0) return refused();
  return address;
}

Result<Response> request(const Address& address, const std::string& method, const std::string& target,
                         const std::string& body, const std::map<std::string, std::string>& headers) {
  const std::string head = LOCKSTEP_TRY(head_text(address, method, target, body.size(), headers));
  const Socket socket = LOCKSTEP_TRY(connect_to(address));
  send_all(socket, head);
  send_all(socket, body);
  Incoming incoming(method == "HEAD");
  return read_whole(address, socket, incoming);
}

Error error_from(const Response& response) {
  if (const auto body = json::from_text<ErrorEnvelope>(response.body)) {
    return fail(error_code_named(body->error.code), body->error.message);
  }
  ErrorCode code = ErrorCode::internal;
  if (response.status == 404) code = ErrorCode::not_found;
  if (response.status == 502 || response.status == 503) code = ErrorCode::unavailable;
  if (response.status == 504) code = ErrorCode::outcome_unknown;
  return fail(code, cat("the server answered with status ", response.status));
}

struct EventStream::State {
  Address address;
  Socket socket;
  Incoming incoming{false};
  EventReader reader{};
};

EventStream::EventStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
EventStream::~EventStream() = default;

Result<std::unique_ptr<EventStream>> EventStream::open(const Address& address, const std::string& target,
                                                       const std::map<std::string, std::string>& headers) {
  std::map<std::string, std::string> all = headers;
  all.emplace("Accept", "text/event-stream");
  const std::string head = LOCKSTEP_TRY(head_text(address, "GET", target, 0, all));
  auto state = std::make_unique<State>(address, LOCKSTEP_TRY(connect_to(address)));
  send_all(state->socket, head);
  while (!state->incoming.header_done()) LOCKSTEP_TRY(state->incoming.read_more(address, state->socket, -1));
  Response response = state->incoming.response();
  if (response.status != 200) {
    Response whole = LOCKSTEP_TRY(read_whole(address, state->socket, state->incoming));
    whole.body.insert(0, response.body);
    return error_from(whole);
  }
  state->reader.add(response.body);
  return std::unique_ptr<EventStream>(new EventStream(std::move(state)));
}

std::string EventStream::last_id() const { return state_->reader.last_id(); }

Result<std::optional<ServerSentEvent>> EventStream::next(int timeout_ms) {
  using std::chrono::steady_clock;
  const auto until = steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (true) {
    if (auto ready = state_->reader.next()) return std::optional(*std::move(ready));
    if (state_->incoming.done()) return fail(ErrorCode::unavailable, "the server ended the event stream");
    // A piece may be half an event or a comment, so what arrives does not end the wait.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
    const int wait_ms = static_cast<int>(std::max<std::int64_t>(left, 0));
    if (!LOCKSTEP_TRY(state_->incoming.read_more(state_->address, state_->socket, wait_ms))) {
      return std::optional<ServerSentEvent>();
    }
    state_->reader.add(state_->incoming.take_body());
  }
}

}  // namespace lockstep::http
