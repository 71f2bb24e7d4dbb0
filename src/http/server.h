#pragma once

// The HTTP side: routes, JSON shapes, error mapping. It holds no state of the system: a request becomes an input of
// the core, an effect of the core becomes an answer. docs/formats/http_api.md lists the routes.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "env/real/reactor.h"
#include "http/event_history.h"
#include "orchestrator/effect.h"
#include "orchestrator/input.h"

namespace lockstep::http {

struct ServerSettings {
  std::string address = "127.0.0.1";
  std::uint16_t port = 7420;  // 0: any free one
  std::size_t body_bytes_max = 32u << 20;
  std::size_t streams_max = 256;         // open event streams
  std::size_t stream_buffer_max = 4096;  // events a slow reader may fall behind
  std::size_t connections_max = 1024;    // of all kinds; one more is closed at once
  HistorySettings history;               // committed events that a stream can go back to
};

/// lines   of the end of a worker's log, or, with `after` (the end of an earlier piece), what came since
struct LogRequest {
  std::size_t lines = 100;
  std::string after;
};
struct LogPiece {
  std::string text;
  std::string end;  // where the next piece begins
};

/// Since the start; for /metrics. A class is a route without the ids in it.
struct HttpCounters {
  std::map<std::pair<std::string, int>, std::uint64_t> answers;  // by class and status
  std::uint64_t streams_opened = 0;
  std::uint64_t streams_resumed = 0;  // of these: with a place to go on from
  std::uint64_t stream_overflows = 0;
  std::size_t streams_open = 0;
  std::size_t connections_open = 0;
  std::size_t history_events = 0;
  std::size_t history_bytes = 0;
};

/// What the HTTP side needs from the rest; all called and answered on the reactor's thread.
struct ServerHooks {
  /// One of the API inputs of in::, for the core, with the key that its client calls it by.
  std::function<void(decltype(Input::what), std::optional<IdempotencyKey>)> submit;
  /// For a generation without a seed, below 2^62.
  std::function<std::uint64_t()> random;
  /// A stored output by its content hash; not_found when there is none.
  std::function<void(std::string sha256, std::function<void(Result<std::string>)> done)> read_output;
  /// Stores an uploaded PNG; invalid_argument when it is none.
  std::function<void(std::string bytes, std::function<void(Result<ImageBuffer>)> done)> store_upload;
  /// A piece of a worker's log; not_found for a worker that nobody knows.
  std::function<void(WorkerId worker, LogRequest request, std::function<void(Result<LogPiece>)> done)> read_log;
  /// The newest rev that was decided; a reader may come back with any up to it.
  std::function<Rev()> rev = [] { return Rev{}; };
  /// The body of /metrics.
  std::function<std::string()> metrics = [] { return std::string(); };
};

class Server {
 public:
  Server(real::Reactor& reactor, ServerSettings settings, ServerHooks hooks);
  ~Server();

  /// Opens the listener; unavailable names address, port and reason (in use, not permitted).
  Status listen();
  HttpCounters counters() const;
  /// The port that was bound.
  std::uint16_t port() const;

  void reply(const out::Reply& reply);
  void reply_images(const out::ReplyImages& reply);
  /// Before listen(): the committed events that recovery found. What was committed up to `floor` is not among them.
  void recover_history(Rev floor, std::vector<out::Publish> events);
  /// To every open event stream, and into the history when it is durable.
  void publish(const out::Publish& publish);
  /// Ends streams and connections; answers that are due are still written.
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace lockstep::http
