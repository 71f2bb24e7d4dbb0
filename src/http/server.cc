#include "http/server.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/digest.h"
#include "base/text.h"
#include "http/event_feed.h"
#include "http/head.h"
#include "http/shapes.h"

namespace lockstep::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
using tcp = asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::uint32_t header_bytes_max = 16u << 10;
constexpr std::uint64_t json_bytes_max = 1u << 20;    // what the JSON reader takes
constexpr std::chrono::seconds idle_max{60};          // between requests, and for the header of one
constexpr std::chrono::seconds transfer_max{300};     // for one body, either way
constexpr std::chrono::seconds stream_stall_max{60};  // for one write to an event stream
constexpr std::chrono::seconds drain_max{5};
constexpr std::chrono::seconds keep_alive_every{5};
constexpr std::chrono::milliseconds accept_pause{100};
constexpr std::size_t drain_bytes_max = 256u << 20;
constexpr std::size_t stream_texts_per_write = 64;
constexpr std::size_t log_lines_max = 10'000;

/// Workers are started with exec: a socket they inherited would keep the port taken after our death.
void close_on_exec(int fd) { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

/// The kernel asks a silent client after 15 s whether it is still there, so one that has gone is noticed within half a
/// minute, also behind a cable that was pulled.
void keep_asking(int fd) {
  const auto set = [fd](int level, int name, int value) { (void)::setsockopt(fd, level, name, &value, sizeof value); };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Result<LogRequest> read_log_query(std::string_view query) {
  auto values = LOCKSTEP_TRY(query_values(query, {"lines", "after"}));
  LogRequest request{.after = std::move(values["after"])};
  if (!values.contains("lines")) return request;
  request.lines = LOCKSTEP_TRY(whole_number("lines", values.at("lines")));
  if (request.lines <= log_lines_max) return request;
  return fail(ErrorCode::invalid_argument, cat("lines is ", request.lines, "; it must be at most ", log_lines_max),
              "/lines");
}

StreamBuffer::Text shared_text(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

std::string_view view_of(beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

/// Everything here runs on the reactor's thread. Connections keep the state alive and the state keeps the connections;
/// Connection::close() cuts both.
struct Server::State : std::enable_shared_from_this<State> {
  struct Connection;

  State(real::Reactor& loop, ServerSettings chosen, ServerHooks given)
      : reactor(loop), settings(std::move(chosen)), hooks(std::move(given)), history(settings.history) {}

  Status listen();
  void accept();
  void accepted(tcp::socket socket);
  /// Tells each stream that has nothing else to say its place: a reader whose filter left everything out comes back
  /// there, and not to one that is no longer in the history.
  void bookmark();
  void beat();
  void stop();
  void end();
  /// Takes the connection that waits for this answer out of the list; nothing when its client went away.
  std::shared_ptr<Connection> take_due(ReplyId reply);
  void collect_files(std::shared_ptr<Connection> connection, std::shared_ptr<const out::ReplyImages> reply,
                     std::shared_ptr<std::vector<std::string>> files);
  std::vector<std::shared_ptr<Connection>> all() const;

  real::Reactor& reactor;
  const ServerSettings settings;
  ServerHooks hooks;
  EventHistory history;
  Rev bookmarked;  // every idle stream was told this place, or a later one
  HttpCounters counters;
  tcp::acceptor acceptor{reactor.context()};
  asio::steady_timer accept_timer{reactor.context()};
  asio::steady_timer beat_timer{reactor.context()};
  std::uint16_t port = 0;
  bool on_loopback = false;
  bool beating = false;
  bool stopping = false;
  bool ended = false;  // the server object is gone: nobody may be called any more
  ReplyId replies_made = 0;
  std::uint64_t connections_made = 0;
  std::size_t streams = 0;
  std::map<std::uint64_t, std::shared_ptr<Connection>> connections;
  std::map<ReplyId, std::shared_ptr<Connection>> due;
};

/// One client. It reads a request, waits for its answer, writes it, and starts again; or it becomes an event stream.
struct Server::State::Connection : std::enable_shared_from_this<Connection> {
  enum class Phase { reading, waiting, writing, streaming, ending, closed };

  Connection(std::shared_ptr<State> state, std::uint64_t number, tcp::socket accepted)
      : server(std::move(state)), id(number), socket(std::move(accepted)), timer(server->reactor.context()) {}

  // --- one request
  void read_head();
  void on_head(const error_code& error);
  void read_body();
  void on_broken(const error_code& error);
  void refuse(const Answer& answer);
  void dispatch();
  void generate();
  void check();
  void output();
  void set();
  void list_outputs();
  void worker_log();
  void journal();
  void model_route();
  bool wants_wait() const;
  /// Gives it to the core, with the key that the client calls it by.
  /// content: of a body that was not kept; otherwise the body itself is what another request would differ in
  void submit(decltype(Input::what) what, std::string_view content = {});
  /// A new reply id that this connection waits for.
  ReplyId expect(bool until_the_end);
  void wait();
  /// A client that stops sending is gone, where the answer may take minutes.
  void watch_for_hangup();
  void watch_for_reset();
  void on_readable();
  void send(Answer answer);
  void finish();
  void drain();
  void close();
  std::string base_url() const;

  // --- an event stream
  void start_stream();
  void publish(const out::Publish& what, const StreamBuffer::Text& everything);
  void show_life();
  void end_stream(std::string last);
  void pump();
  void write_stream();
  void read_nothing();

  /// Closes the connection when what goes on now is not over by then.
  void deadline(std::chrono::seconds from_now);
  void no_deadline();

  std::shared_ptr<State> server;
  const std::uint64_t id;
  tcp::socket socket;
  asio::steady_timer timer;
  std::uint64_t timer_round = 0;  // a deadline that fired while it was moved is nobody's
  Phase phase = Phase::reading;

  beast::flat_buffer buffer;
  std::optional<beast::http::request_parser<beast::http::string_body>> parser;
  Route route;
  std::string route_class;
  std::string key_text;     // the client's Idempotency-Key; empty when it has none
  std::string route_text;   // with a key: method and target
  std::string body_digest;  // with a key
  std::string host;
  bool keep_alive = false;
  bool head_only = false;
  ReplyId reply = 0;  // 0: no answer of the core is due
  bool watching = false;
  std::string head_out;
  Answer answer_out;
  std::array<char, 8192> scratch{};
  std::size_t drained = 0;

  std::optional<EventFeed> feed;
  std::vector<StreamBuffer::Text> in_flight;
  bool place_due = false;
};

// --- listening

Status Server::State::listen() {
  const auto refused = [&](std::string_view why) {
    return fail(ErrorCode::unavailable, cat("cannot listen on ", settings.address, ":", settings.port, ": ", why));
  };
  const auto refused_with = [&](const error_code& error) {
    if (error == asio::error::address_in_use) {
      return refused("the port is in use by another program; choose another with --port");
    }
    if (error == asio::error::access_denied) {
      return refused("this user may not use the port; choose one above 1023 with --port");
    }
    if (error == boost::system::errc::address_not_available) return refused("this machine has no such address");
    return refused(error.message());
  };
  error_code error;
  const std::string numeric = settings.address == "localhost" ? "127.0.0.1" : settings.address;
  const asio::ip::address address = asio::ip::make_address(numeric, error);
  if (error) return refused("this is no IP address");
  on_loopback = address.is_loopback();
  acceptor.open(address.is_v6() ? tcp::v6() : tcp::v4(), error);
  if (error) return refused_with(error);
  close_on_exec(acceptor.native_handle());
  // A restart must not wait for old connections to time out; a program that listens still refuses us the port.
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind({address, settings.port}, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    error_code ignored;
    acceptor.close(ignored);
    return refused_with(error);
  }
  port = acceptor.local_endpoint(error).port();
  accept();
  return {};
}

void Server::State::accept() {
  acceptor.async_accept([self = shared_from_this()](const error_code& error, tcp::socket socket) {
    if (self->stopping || error == asio::error::operation_aborted) return;
    if (!error) {
      self->accepted(std::move(socket));
      return self->accept();
    }
    // Out of descriptors, mostly: trying again at once would spin.
    self->accept_timer.expires_after(accept_pause);
    self->accept_timer.async_wait([self](const error_code& cancelled) {
      if (!cancelled && !self->stopping) self->accept();
    });
  });
}

void Server::State::accepted(tcp::socket socket) {
  if (connections.size() >= settings.connections_max) return;
  close_on_exec(socket.native_handle());
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  keep_asking(socket.native_handle());
  const std::uint64_t number = ++connections_made;
  auto connection = std::make_shared<Connection>(shared_from_this(), number, std::move(socket));
  connections.emplace(number, connection);
  connection->read_head();
}

// --- one request

void Server::State::Connection::deadline(std::chrono::seconds from_now) {
  timer.expires_after(from_now);
  timer.async_wait([weak = weak_from_this(), round = ++timer_round](const error_code& error) {
    const auto self = weak.lock();
    if (!error && self && self->timer_round == round) self->close();
  });
}

void Server::State::Connection::no_deadline() {
  ++timer_round;
  timer.cancel();
}

void Server::State::Connection::read_head() {
  phase = Phase::reading;
  reply = 0;
  route_class = "unknown";
  parser.emplace();
  parser->header_limit(header_bytes_max);
  parser->body_limit(server->settings.body_bytes_max);
  deadline(idle_max);
  beast::http::async_read_header(socket, buffer, *parser,
                                 [self = shared_from_this()](const error_code& error, std::size_t) {
                                   if (self->phase == Phase::reading) self->on_head(error);
                                 });
}

void Server::State::Connection::on_head(const error_code& error) {
  if (error) return on_broken(error);
  const auto& head = parser->get();
  keep_alive = parser->keep_alive();
  head_only = head.method() == beast::http::verb::head;
  host = std::string(view_of(head[beast::http::field::host]));
  const auto origin = head.find(beast::http::field::origin);
  if (origin != head.end() && !origin_allowed(view_of(origin->value()), host, server->on_loopback)) {
    return refuse(error_answer(403, "not_allowed", "pages of other sites may not use this server"));
  }
  auto found = route_of(view_of(head.method_string()), view_of(head.target()));
  if (!found) return refuse(found.error());
  route = *std::move(found);
  route_class = class_of(route);

  const std::uint64_t body_max = route.kind == Route::Kind::check
                                     ? server->settings.body_bytes_max
                                     : std::min<std::uint64_t>(server->settings.body_bytes_max, json_bytes_max);
  if (parser->content_length().value_or(0) > body_max) return on_broken(beast::http::error::body_limit);
  parser->body_limit(body_max);
  if (parser->is_done()) return dispatch();
  if (!has_token(view_of(head[beast::http::field::expect]), "100-continue")) return read_body();
  head_out = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(socket, asio::buffer(head_out), [self = shared_from_this()](const error_code& failed, std::size_t) {
    if (self->phase != Phase::reading) return;
    if (failed) return self->close();
    self->read_body();
  });
}

void Server::State::Connection::read_body() {
  deadline(transfer_max);
  beast::http::async_read(socket, buffer, *parser, [self = shared_from_this()](const error_code& error, std::size_t) {
    if (self->phase != Phase::reading) return;
    if (error) return self->on_broken(error);
    self->dispatch();
  });
}

void Server::State::Connection::on_broken(const error_code& error) {
  if (error == beast::http::error::end_of_stream) return close();
  const error_code example = beast::http::error::partial_message;
  if (error.category() != example.category()) return close();  // the socket is broken, not the request
  if (error == beast::http::error::body_limit) {
    const bool checks = parser->is_header_done() && route.kind == Route::Kind::check;
    const std::uint64_t limit = checks ? server->settings.body_bytes_max
                                       : std::min<std::uint64_t>(server->settings.body_bytes_max, json_bytes_max);
    return refuse(error_answer(413, "too_large", cat("the body is larger than the limit of ", limit, " bytes")));
  }
  if (error == beast::http::error::header_limit || error == beast::http::error::buffer_overflow) {
    return refuse(
        error_answer(431, "too_large", cat("the header is larger than the limit of ", header_bytes_max, " bytes")));
  }
  refuse(error_answer(400, "invalid_argument", cat("this is no HTTP request: ", error.message())));
}

void Server::State::Connection::refuse(const Answer& answer) {
  // What follows on this connection is the rest of a request that nobody reads.
  if (!parser->is_done()) keep_alive = false;
  send(answer);
}

bool Server::State::Connection::wants_wait() const {
  const auto [first, last] = parser->get().equal_range(beast::http::field::prefer);
  return std::none_of(first, last, [](const auto& each) { return has_token(view_of(each.value()), "respond-async"); });
}

void Server::State::Connection::dispatch() {
  wait();
  const auto& request = parser->get();
  const std::string_view named = view_of(request["Idempotency-Key"]);
  const bool reads = request.method() == beast::http::verb::get || request.method() == beast::http::verb::head;
  key_text = reads ? std::string() : std::string(named);
  if (request.count("Idempotency-Key") > 0 && !reads) {
    if (const Status good = check_key(named); !good) return send(error_answer(good.error()));
    route_text = cat(view_of(request.method_string()), " ", view_of(request.target()));
    body_digest = route.kind == Route::Kind::check ? "" : sha256_hex(request.body());
  }
  switch (route.kind) {
    case Route::Kind::livez: return send({.body = R"({"status":"ok"})"});
    case Route::Kind::view:
      if (route.name == "outputs") return list_outputs();
      return submit(in::View{expect(false), route.name});
    case Route::Kind::cancel: return submit(in::Cancel{expect(false), RequestId(route.name)});
    case Route::Kind::generate: return generate();
    case Route::Kind::check: return check();
    case Route::Kind::output: return output();
    case Route::Kind::events: return start_stream();
    case Route::Kind::metrics:
      return send({.body = server->hooks.metrics(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
    case Route::Kind::worker_log: return worker_log();
    case Route::Kind::journal: return journal();
    case Route::Kind::models:
    case Route::Kind::model:
    case Route::Kind::load_model:
    case Route::Kind::unload_model:
    case Route::Kind::verify_model: return model_route();
    case Route::Kind::setting: return set();
    case Route::Kind::command: return submit(command_at(expect(false), route.name, std::move(parser->get().body())));
    case Route::Kind::restart_worker: return submit(in::RestartWorker{expect(false), WorkerId(route.name)});
    case Route::Kind::calibrate_device: {
      const bool wait_for_it = wants_wait();
      return submit(in::CalibrateDevice{expect(wait_for_it), DeviceId(route.name), wait_for_it});
    }
  }
}

void Server::State::Connection::submit(decltype(Input::what) what, std::string_view content) {
  std::optional<IdempotencyKey> key;
  if (!key_text.empty()) {
    key = IdempotencyKey{
        key_text,
        sha256_hex(cat(route_text, "\n", wants_wait() ? "" : "async", "\n", content.empty() ? body_digest : content)),
        reply};
  }
  server->hooks.submit(std::move(what), std::move(key));
}

void Server::State::Connection::set() {
  const std::string method(view_of(parser->get().method_string()));
  if (method != "PUT" && method != "PATCH") return submit(in::View{expect(false), route.name});
  std::string body = std::move(parser->get().body());
  submit(in::Set{expect(false), route.name, method == "PUT", std::move(body)});
}

void Server::State::Connection::list_outputs() {
  const auto values = query_values(route.query, {"tag", "review", "sha256"});
  if (!values) return send(error_answer(values.error()));
  std::string body = "{";
  for (const auto& [key, value] : *values) {
    const bool boolean = key == "review" && (value == "true" || value == "false");
    body += cat(body.size() > 1 ? "," : "", json::to_text(key), ":", boolean ? value : json::to_text(value));
  }
  submit(in::ListOutputs{expect(false), body + "}"});
}

void Server::State::Connection::worker_log() {
  auto request = read_log_query(route.query);
  if (!request) return send(error_answer(request.error()));
  server->hooks.read_log(WorkerId(route.name), *std::move(request),
                         [self = shared_from_this()](Result<LogPiece> piece) {
                           if (self->server->ended || self->phase != Phase::waiting) return;
                           if (!piece) return self->send(error_answer(piece.error()));
                           self->send({.body = std::move(piece->text),
                                       .content_type = "text/plain; charset=utf-8",
                                       .headers = {{"Lockstep-Log-End", piece->end}, {"Cache-Control", "no-store"}}});
                         });
}

void Server::State::Connection::journal() {
  if (route.name == "journal/snapshot") return submit(in::KeepJournal{expect(false), std::nullopt});
  auto file = read_backup(parser->get().body());
  if (!file) return send(error_answer(file.error()));
  submit(in::KeepJournal{expect(false), *std::move(file)});
}

void Server::State::Connection::model_route() {
  const auto method = parser->get().method();
  const bool reads = method == beast::http::verb::get || method == beast::http::verb::head;
  const ModelId model(route.name);
  if (route.kind == Route::Kind::models) {
    if (reads) return submit(in::View{expect(false), "models"});
    auto order = read_add_model(parser->get().body());
    if (!order) return send(error_answer(order.error()));
    order->reply = expect(true);
    return submit(*std::move(order));
  }
  if (route.kind == Route::Kind::model) {
    if (reads) return submit(in::View{expect(false), cat("models/", route.name)});
    auto values = query_values(route.query, {"force"});
    if (!values) return send(error_answer(values.error()));
    const std::string force = values->contains("force") ? values->at("force") : "false";
    if (force != "true" && force != "false") {
      return send(error_answer(400, "invalid_argument", "force must be true or false", "/force"));
    }
    return submit(in::RemoveModel{expect(true), model, force == "true"});
  }
  const bool wait_for_it = wants_wait();
  if (route.kind == Route::Kind::verify_model) return submit(in::VerifyModel{expect(wait_for_it), model, wait_for_it});
  const bool loads = route.kind == Route::Kind::load_model;
  const auto choice = read_load_choice(parser->get().body());
  if (!choice) return send(error_answer(choice.error()));
  if (!loads && choice->priority) {
    return send(error_answer(400, "invalid_argument", "an unload has no priority", "/priority"));
  }
  const ReplyId number = expect(wait_for_it);
  const WorkerId worker = choice->worker.value_or(WorkerId{});
  if (!loads) return submit(in::UnloadModel{number, model, worker, wait_for_it});
  submit(in::LoadModel{number, model, worker, wait_for_it, choice->priority.value_or(AllocationPriority::normal)});
}

void Server::State::Connection::generate() {
  auto body = read_generate_body(parser->get().body());
  if (!body) return send(error_answer(body.error()));
  const bool wait_for_it = wants_wait();
  const ReplyId number = expect(wait_for_it);
  submit(in::Generate{number, *std::move(body), server->hooks.random(), wait_for_it});
}

void Server::State::Connection::check() {
  std::string bytes = std::move(parser->get().body());
  server->hooks.store_upload(std::move(bytes), [self = shared_from_this()](Result<ImageBuffer> stored) {
    if (self->server->ended || self->phase != Phase::waiting) return;
    if (!stored) return self->send(error_answer(stored.error()));
    const bool wait_for_it = self->wants_wait();
    const ReplyId number = self->expect(wait_for_it);
    self->submit(in::Check{number, *stored, wait_for_it}, stored->sha256);
  });
}

void Server::State::Connection::output() {
  Answer found;
  // The name is the hash of the bytes, so an answer never becomes wrong.
  const std::string etag = cat("\"", route.name, "\"");
  found.headers = {{"ETag", etag}, {"Cache-Control", "public, max-age=31536000, immutable"}};
  const bool known = has_token(view_of(parser->get()[beast::http::field::if_none_match]), etag);
  server->hooks.read_output(route.name, [self = shared_from_this(), found, known](Result<std::string> bytes) mutable {
    if (self->server->ended || self->phase != Phase::waiting) return;
    if (!bytes) return self->send(error_answer(bytes.error()));
    const ImageFormat* const format = image_format_of(*bytes);
    if (self->route.format != nullptr && self->route.format != format) {
      return self->send(error_answer(
          404, "not_found",
          cat("output ", self->route.name, " is ", format == nullptr ? std::string_view("no image") : format->name,
              ", not ", self->route.format->name)));
    }
    found.content_type = format == nullptr ? "application/octet-stream" : format->media_type;
    if (known) {
      found.status = 304;
    } else {
      found.body = *std::move(bytes);
    }
    self->send(std::move(found));
  });
}

ReplyId Server::State::Connection::expect(bool until_the_end) {
  reply = ++server->replies_made;
  server->due.emplace(reply, shared_from_this());
  if (until_the_end) watch_for_hangup();
  return reply;
}

void Server::State::Connection::wait() {
  phase = Phase::waiting;
  no_deadline();
}

void Server::State::Connection::watch_for_hangup() {
  watching = true;
  socket.async_wait(tcp::socket::wait_read, [self = shared_from_this(), number = reply](const error_code& error) {
    if (self->reply != number || self->phase != Phase::waiting) return;
    self->watching = false;
    if (!error) self->on_readable();
  });
}

void Server::State::Connection::on_readable() {
  char byte = 0;
  const ssize_t got = ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got > 0) return;  // the next request already; it waits for its turn
  if (got == 0) return watch_for_reset();
  if (errno == EAGAIN || errno == EINTR) return watch_for_hangup();
  close();
}

void Server::State::Connection::watch_for_reset() {
  // The client sends nothing more, and may still wait for its answer. One that has gone altogether resets the
  // connection when its system is next asked, which the kernel's keep-alive does.
  watching = true;
  socket.async_wait(tcp::socket::wait_error, [self = shared_from_this(), number = reply](const error_code& error) {
    if (error || self->reply != number || self->phase != Phase::waiting) return;
    self->watching = false;
    self->close();
  });
}

void Server::State::Connection::send(Answer answer) {
  if (phase == Phase::closed || phase == Phase::ending) return;
  phase = Phase::writing;
  reply = 0;
  ++server->counters.answers[{route_class, answer.status}];
  error_code ignored;
  if (watching) socket.cancel(ignored);
  watching = false;
  keep_alive = keep_alive && !server->stopping;
  answer_out = std::move(answer);
  head_out = head_text(answer_out, keep_alive);
  const bool no_body = head_only || answer_out.status == 304;
  const std::array<asio::const_buffer, 2> parts{asio::buffer(head_out),
                                                no_body ? asio::const_buffer() : asio::buffer(answer_out.body)};
  deadline(transfer_max);
  asio::async_write(socket, parts, [self = shared_from_this()](const error_code& error, std::size_t) {
    if (self->phase != Phase::writing) return;
    self->answer_out = {};
    if (error) return self->close();
    if (self->keep_alive && !self->server->stopping) return self->read_head();
    self->finish();
  });
}

void Server::State::Connection::finish() {
  const bool reads_already = phase == Phase::streaming;
  if (reads_already) --server->streams;
  phase = Phase::ending;
  error_code ignored;
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  // Closing over unread bytes resets the connection, and a reset can destroy the answer on its way.
  deadline(drain_max);
  if (!reads_already) drain();
}

void Server::State::Connection::drain() {
  socket.async_read_some(asio::buffer(scratch), [self = shared_from_this()](const error_code& error, std::size_t size) {
    if (self->phase == Phase::closed) return;
    self->drained += size;
    if (error || self->drained > drain_bytes_max) return self->close();
    self->drain();
  });
}

void Server::State::Connection::close() {
  if (phase == Phase::closed) return;
  const auto self = shared_from_this();  // the map below may hold the last other reference
  if (phase == Phase::streaming) --server->streams;
  phase = Phase::closed;
  no_deadline();
  error_code ignored;
  socket.close(ignored);
  server->connections.erase(id);
  if (reply != 0 && server->due.erase(reply) == 1 && !server->ended) server->hooks.submit(in::ReplyGone{reply}, {});
}

std::string Server::State::Connection::base_url() const {
  if (!host.empty()) return cat("http://", host);
  const bool v6 = server->settings.address.find(':') != std::string::npos;
  return v6 ? cat("http://[", server->settings.address, "]:", server->port)
            : cat("http://", server->settings.address, ":", server->port);
}

// --- an event stream

void Server::State::Connection::start_stream() {
  if (server->stopping) return send(error_answer(503, "unavailable", "the server is stopping"));
  if (server->streams >= server->settings.streams_max) {
    return send(error_answer(503, "unavailable",
                             cat(server->streams, " event streams are open, which is the limit; close one")));
  }
  const auto& head = parser->get();
  const auto place = head.find("Last-Event-ID");
  const auto last_event_id = place == head.end() ? std::nullopt : std::optional(view_of(place->value()));
  const Rev newest = std::max(server->history.newest(), server->hooks.rev());
  auto query = read_event_query(route.query, last_event_id, newest);
  if (!query) return send(error_answer(query.error()));
  phase = Phase::streaming;
  ++server->streams;
  ++server->counters.answers[{route_class, 200}];
  ++server->counters.streams_opened;
  server->counters.streams_resumed += query->after ? 1 : 0;
  feed.emplace(server->history, *std::move(query), server->settings.stream_buffer_max);
  keep_alive = false;
  const std::string head_and_opening =
      cat(head_line(200), "Date: ", http_date(),
          "\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
          "Connection: close\r\n\r\n",
          feed->opening());
  in_flight = {shared_text(head_and_opening)};
  write_stream();
  read_nothing();
  if (!server->beating) server->beat();
}

void Server::State::Connection::publish(const out::Publish& what, const StreamBuffer::Text& everything) {
  if (feed->publish(what, everything)) return pump();
  ++server->counters.stream_overflows;
  end_stream(event_text(Rev{}, real::Reactor::wall(), {"resync_required", "", RawJson{"{}"}}));
}

void Server::State::Connection::show_life() {
  place_due = !in_flight.empty();  // then when that is written
  if (place_due) return;
  const auto text = feed->keep_alive();
  if (!text) return;
  in_flight = {shared_text(*text)};
  write_stream();
}

void Server::State::Connection::end_stream(std::string last) {
  feed->finish_with(std::move(last));
  pump();
}

void Server::State::Connection::pump() {
  if (!in_flight.empty() || phase != Phase::streaming) return;
  in_flight = feed->take(stream_texts_per_write, real::Reactor::wall());
  if (!in_flight.empty()) return write_stream();
  if (feed->over()) return finish();
  if (place_due) show_life();
}

void Server::State::Connection::write_stream() {
  std::vector<asio::const_buffer> parts;
  for (const StreamBuffer::Text& text : in_flight) parts.push_back(asio::buffer(*text));
  deadline(stream_stall_max);
  asio::async_write(socket, parts, [self = shared_from_this()](const error_code& error, std::size_t) {
    self->in_flight.clear();
    if (self->phase != Phase::streaming) return;
    if (error) return self->close();
    self->no_deadline();
    self->pump();
  });
}

void Server::State::Connection::read_nothing() {
  socket.async_read_some(asio::buffer(scratch), [self = shared_from_this()](const error_code& error, std::size_t) {
    if (self->phase == Phase::closed) return;
    if (error) return self->close();
    self->read_nothing();
  });
}

void Server::State::bookmark() {
  bookmarked = history.newest();
  for (const auto& connection : all()) {
    if (connection->phase == Connection::Phase::streaming) connection->show_life();
  }
}

void Server::State::beat() {
  beating = true;
  beat_timer.expires_after(keep_alive_every);
  beat_timer.async_wait([self = shared_from_this()](const error_code& error) {
    self->beating = false;
    if (error || self->stopping || self->streams == 0) return;
    self->bookmark();
    self->beat();
  });
}

// --- answers

std::vector<std::shared_ptr<Server::State::Connection>> Server::State::all() const {
  std::vector<std::shared_ptr<Connection>> out;
  for (const auto& [number, connection] : connections) out.push_back(connection);
  return out;
}

std::shared_ptr<Server::State::Connection> Server::State::take_due(ReplyId reply) {
  const auto place = due.find(reply);
  if (place == due.end()) return nullptr;
  auto connection = std::move(place->second);
  due.erase(place);
  return connection;
}

void Server::State::collect_files(std::shared_ptr<Connection> connection, std::shared_ptr<const out::ReplyImages> reply,
                                  std::shared_ptr<std::vector<std::string>> files) {
  if (reply->as_url || files->size() == reply->images.size()) {
    Answer answer{.body = images_text(*reply, connection->base_url(), *files)};
    if (reply->again) answer.headers.emplace_back("Idempotency-Replayed", "true");
    return connection->send(std::move(answer));
  }
  const std::string& next = reply->images[files->size()].image.sha256;
  hooks.read_output(next, [self = shared_from_this(), connection, reply, files](Result<std::string> bytes) {
    if (self->ended || connection->phase != Connection::Phase::waiting) return;
    if (!bytes) {
      // The client asked for nothing that is absent: we lost what we had stored.
      Error error = bytes.error();
      if (error.code == ErrorCode::not_found) error.code = ErrorCode::data_loss;
      return connection->send(error_answer(error));
    }
    files->push_back(*std::move(bytes));
    self->collect_files(connection, reply, files);
  });
}

void Server::State::stop() {
  if (stopping) return;
  stopping = true;
  error_code ignored;
  acceptor.close(ignored);
  accept_timer.cancel();
  beat_timer.cancel();
  for (const auto& connection : all()) {
    if (connection->phase == Connection::Phase::reading) connection->close();
    if (connection->phase == Connection::Phase::streaming) connection->end_stream(": the server is stopping\n\n");
  }
}

void Server::State::end() {
  ended = true;
  stop();
  for (const auto& connection : all()) connection->close();
  hooks = {};
}

Server::Server(real::Reactor& reactor, ServerSettings settings, ServerHooks hooks)
    : state_(std::make_shared<State>(reactor, std::move(settings), std::move(hooks))) {}

Server::~Server() { state_->end(); }

Status Server::listen() { return state_->listen(); }

std::uint16_t Server::port() const { return state_->port; }

void Server::reply(const out::Reply& reply) {
  if (const auto connection = state_->take_due(reply.reply)) {
    Answer answer{.status = reply.status, .body = reply.body};
    if (!reply.location.empty()) answer.headers.emplace_back("Location", reply.location);
    if (reply.again) answer.headers.emplace_back("Idempotency-Replayed", "true");
    connection->send(std::move(answer));
  }
}

void Server::reply_images(const out::ReplyImages& reply) {
  const auto connection = state_->take_due(reply.reply);
  if (!connection) return;
  state_->collect_files(connection, std::make_shared<const out::ReplyImages>(reply),
                        std::make_shared<std::vector<std::string>>());
}

void Server::recover_history(Rev floor, std::vector<out::Publish> events) {
  state_->history.begin_after(floor);
  state_->bookmarked = floor.next();
  for (out::Publish& each : events) {
    state_->history.add(std::make_shared<const out::Publish>(std::move(each)));
  }
}

void Server::publish(const out::Publish& publish) {
  if (publish.events.empty()) return;
  if (publish.rev.value > 0) state_->history.add(std::make_shared<const out::Publish>(publish));
  if (state_->streams == 0) return;
  const auto everything = shared_text(events_text(publish.rev, publish.time, publish.events));
  for (const auto& connection : state_->all()) {
    if (connection->phase == State::Connection::Phase::streaming) connection->publish(publish, everything);
  }
  if (state_->history.floor() >= state_->bookmarked) state_->bookmark();  // the place they know is about to be gone
}

HttpCounters Server::counters() const {
  HttpCounters out = state_->counters;
  out.streams_open = state_->streams;
  out.connections_open = state_->connections.size();
  out.history_events = state_->history.events();
  out.history_bytes = state_->history.bytes();
  return out;
}

void Server::stop() { state_->stop(); }

}  // namespace lockstep::http
