// The server on a real loopback socket, driven by the client of this room. The other side of it, the core, is a fake
// that remembers what was submitted. Everything waits for something that happens; nothing waits for time.

#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "base/text.h"
#include "http/client.h"

namespace lockstep::http {
namespace {

using What = decltype(Input::what);

const std::string hash(64, 'a');
const std::string png_bytes("\x89PNG\r\n\x1a\n bytes", 14);
constexpr int patience_ms = 20'000;  // a bound for a hanging test, never waited out when things work

/// A server with its loop on a thread of its own, and a fake core.
class HttpServer : public testing::Test {
 protected:
  explicit HttpServer(ServerSettings settings = {}) {
    settings.port = 0;
    ServerHooks hooks;
    hooks.submit = [this](What what, std::optional<IdempotencyKey> key) {
      {
        const std::lock_guard lock(mutex_);
        keys.push_back(std::move(key));
      }
      take(std::move(what));
    };
    hooks.random = [] { return std::uint64_t{4711}; };
    hooks.read_output = [](const std::string& sha256, const std::function<void(Result<std::string>)>& done) {
      if (sha256 == hash) return done(png_bytes);
      done(fail(ErrorCode::not_found, "there is no such output"));
    };
    hooks.store_upload = [](const std::string& bytes, const std::function<void(Result<ImageBuffer>)>& done) {
      if (bytes.starts_with("PNG")) return done(ImageBuffer{"png", 8, 8, bytes.size(), hash});
      done(fail(ErrorCode::invalid_argument, "this is no PNG"));
    };
    server_ = std::make_unique<Server>(reactor_, settings, hooks);
    const Status listening = server_->listen();
    EXPECT_TRUE(listening.has_value());
    address_ = {"127.0.0.1", server_->port()};
    loop_ = std::thread([this] { reactor_.run(); });
  }
  ~HttpServer() override {
    on_loop([this] { server_.reset(); });
    reactor_.stop();
    loop_.join();
  }

  void on_loop(const std::function<void()>& work) {
    std::promise<void> done;
    reactor_.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  void publish(out::Publish what) {
    on_loop([&] { server_->publish(what); });
  }

  /// On the loop: views and cancellations are answered at once, the rest waits for the test.
  void take(What what) {
    if (const auto* view = std::get_if<in::View>(&what)) {
      return server_->reply({view->reply, view->path == "readyz" ? 503 : 200, cat("{\"path\":\"", view->path, "\"}")});
    }
    if (const auto* cancel = std::get_if<in::Cancel>(&what)) {
      return server_->reply({cancel->reply, 200, cat("{\"request_id\":\"", cancel->request_id.str(), "\"}")});
    }
    if (const auto* generate = std::get_if<in::Generate>(&what); generate != nullptr && !generate->wait) {
      server_->reply({generate->reply, 202, R"({"request_id":"req_1","state":"accepted"})"});
    }
    const std::lock_guard lock(mutex_);
    taken_.push_back(std::move(what));
    arrived_.notify_all();
  }
  template <class T>
  T next() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(arrived_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return !taken_.empty(); }));
    What what = std::move(taken_.front());
    taken_.pop_front();
    return std::get<T>(what);
  }

  Response get(const std::string& target, const std::map<std::string, std::string>& headers = {}) {
    const auto response = request(address_, "GET", target, {}, headers);
    EXPECT_TRUE(response.has_value()) << response.error().message;
    return response.value_or(Response{});
  }
  Response post(const std::string& target, const std::string& body,
                const std::map<std::string, std::string>& headers = {}) {
    const auto response = request(address_, "POST", target, body, headers);
    EXPECT_TRUE(response.has_value()) << response.error().message;
    return response.value_or(Response{});
  }
  std::unique_ptr<EventStream> open_stream(const std::string& target = "/api/v1/events") {
    auto stream = EventStream::open(address_, target);
    EXPECT_TRUE(stream.has_value()) << stream.error().message;
    return *std::move(stream);
  }

  std::vector<std::optional<IdempotencyKey>> keys_seen() {
    const std::lock_guard lock(mutex_);
    return keys;
  }

  int raw_socket() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(address_.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    return fd;
  }
  static void send_raw(int fd, const std::string& bytes) {
    (void)!::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);  // the server may have closed already
  }
  static std::string read_to_end(int fd) {
    std::string out;
    char piece[4096];
    for (ssize_t got = 0; (got = ::recv(fd, piece, sizeof piece, 0)) > 0;) out.append(piece, static_cast<size_t>(got));
    return out;
  }
  /// Sends the bytes, ends its own side, and returns everything that came back.
  std::string exchange(const std::string& bytes) {
    const int fd = raw_socket();
    send_raw(fd, bytes);
    ::shutdown(fd, SHUT_WR);
    const std::string out = read_to_end(fd);
    ::close(fd);
    return out;
  }

  real::Reactor reactor_;
  std::unique_ptr<Server> server_;
  Address address_;
  std::thread loop_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<What> taken_;
  std::vector<std::optional<IdempotencyKey>> keys;
};

class SmallHttpServer : public HttpServer {
 protected:
  SmallHttpServer()
      : HttpServer({.body_bytes_max = 1000, .streams_max = 1, .stream_buffer_max = 10, .history = {.events_max = 5}}) {}
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(HttpServer, it_is_alive_without_the_core) {
  const Response response = get("/livez");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"status":"ok"})");
  EXPECT_EQ(response.headers.at("content-type"), "application/json");
}

TEST_F(HttpServer, views_are_the_cores_answers) {
  EXPECT_EQ(get("/api/v1/status").body, R"({"path":"status"})");
  EXPECT_EQ(get("/api/v1/requests/req_1?x=1").body, R"({"path":"requests/req_1"})");
  EXPECT_EQ(get("/v1/models").body, R"({"path":"v1/models"})");
  EXPECT_EQ(post("/api/v1/requests/req_1/cancel", "").body, R"({"request_id":"req_1"})");
  const Response ready = get("/readyz");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.headers.at("retry-after"), "1");
}

TEST_F(HttpServer, a_generation_waits_for_its_images) {
  auto answer = std::async([&] { return post("/v1/images/generations", R"({"prompt":"a house"})"); });
  const auto input = next<in::Generate>();
  EXPECT_EQ(input.body.prompt, "a house");
  EXPECT_EQ(input.seed, 4711u);
  EXPECT_TRUE(input.wait);
  out::ReplyImages images{input.reply, RequestId("req_1"), WallTime{5000}, false, {}};
  images.images.push_back({{"png", 8, 8, 9, hash}, 4711});
  on_loop([&] { server_->reply_images(images); });
  const Response response = answer.get();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(has(response.body, R"("data":[{"b64_json":"iVBORw0KGgogYnl0ZXM="}])")) << response.body;
}

TEST_F(HttpServer, links_name_the_host_that_was_asked) {
  auto answer = std::async([&] { return post("/v1/images/generations", R"({"prompt":"a"})"); });
  out::ReplyImages images{next<in::Generate>().reply, RequestId("req_1"), WallTime{5000}, true, {}};
  images.images.push_back({{"png", 8, 8, 9, hash}, 4711});
  on_loop([&] { server_->reply_images(images); });
  EXPECT_TRUE(has(answer.get().body, cat("\"http://127.0.0.1:", address_.port, "/api/v1/outputs/", hash, ".png\"")));
}

TEST_F(HttpServer, a_lost_file_is_an_error_of_the_server) {
  auto answer = std::async([&] { return post("/v1/images/generations", R"({"prompt":"a"})"); });
  out::ReplyImages images{next<in::Generate>().reply, RequestId("req_1"), WallTime{5000}, false, {}};
  images.images.push_back({{"png", 8, 8, 9, std::string(64, 'b')}, 1});
  on_loop([&] { server_->reply_images(images); });
  const Response response = answer.get();
  EXPECT_EQ(response.status, 500);
  EXPECT_TRUE(has(response.body, "\"code\":\"data_loss\"")) << response.body;
}

TEST_F(HttpServer, respond_async_does_not_wait) {
  const Response response = post("/v1/images/generations", R"({"prompt":"a"})", {{"Prefer", "respond-async"}});
  EXPECT_EQ(response.status, 202);
  EXPECT_FALSE(next<in::Generate>().wait);
}

TEST_F(HttpServer, a_client_that_leaves_gives_its_answer_up) {
  const int fd = raw_socket();
  const std::string body = R"({"prompt":"a"})";
  send_raw(fd,
           cat("POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const ReplyId reply = next<in::Generate>().reply;
  const linger at_once{1, 0};  // its system says that it is gone, as it does when a keep-alive asks
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ::close(fd);
  EXPECT_EQ(next<in::ReplyGone>().reply, reply);
  on_loop([&] { server_->reply({reply, 200, "{}"}); });  // late: nobody's
  EXPECT_EQ(get("/livez").status, 200);
}

TEST_F(HttpServer, a_client_that_has_sent_everything_gets_its_answer_and_its_leaving_is_still_noticed) {
  const std::string body = R"({"prompt":"a"})";
  const std::string request =
      cat("POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ", body.size(),
          "\r\n\r\n", body);
  const auto half_closed = [&] {
    const int fd = raw_socket();
    send_raw(fd, request);
    ::shutdown(fd, SHUT_WR);
    return fd;
  };
  const int patient = half_closed();
  const ReplyId answered = next<in::Generate>().reply;
  EXPECT_EQ(get("/livez").status, 200);  // the loop has seen the end of its side
  on_loop([&] { server_->reply({answered, 400, R"({"error":{}})"}); });
  EXPECT_TRUE(read_to_end(patient).starts_with("HTTP/1.1 400 "));
  ::close(patient);

  const int leaving = half_closed();
  const ReplyId given_up = next<in::Generate>().reply;
  EXPECT_EQ(get("/livez").status, 200);
  const linger at_once{1, 0};
  ::setsockopt(leaving, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ::close(leaving);
  EXPECT_EQ(next<in::ReplyGone>().reply, given_up);
}

TEST_F(HttpServer, a_check_stores_the_picture_first) {
  auto answer = std::async([&] { return post("/api/v1/checks", "PNG..."); });
  const auto input = next<in::Check>();
  EXPECT_EQ(input.source.sha256, hash);
  EXPECT_TRUE(input.wait);
  on_loop([&] { server_->reply({input.reply, 200, R"({"verdict":1})"}); });
  EXPECT_EQ(answer.get().body, R"({"verdict":1})");
  EXPECT_EQ(post("/api/v1/checks", "JPEG").status, 400);
}

// consistency.md §3.5: what makes a request the same one is its method, its target and its body.
TEST_F(HttpServer, a_key_goes_to_the_core_with_what_the_request_is) {
  const std::map<std::string, std::string> async{{"Prefer", "respond-async"}, {"Idempotency-Key", "k1"}};
  post("/v1/images/generations", R"({"prompt":"a"})", async);
  post("/v1/images/generations", R"({"prompt":"a"})", async);
  post("/v1/images/generations", R"({"prompt":"b"})", async);
  post("/api/v1/requests/req_1/cancel", "", {{"Idempotency-Key", "k2"}});
  post("/api/v1/requests/req_2/cancel", "", {{"Idempotency-Key", "k2"}});
  post("/api/v1/requests/req_2/cancel", "");
  get("/api/v1/requests", {{"Idempotency-Key", "k3"}});
  const auto seen = keys_seen();
  ASSERT_EQ(seen.size(), 7u);
  EXPECT_EQ(seen[0]->text, "k1");
  EXPECT_GT(seen[0]->reply, 0u);
  EXPECT_EQ(seen[0]->fingerprint, seen[1]->fingerprint);
  EXPECT_NE(seen[0]->fingerprint, seen[2]->fingerprint);
  EXPECT_NE(seen[3]->fingerprint, seen[4]->fingerprint);
  EXPECT_FALSE(seen[5].has_value());
  EXPECT_FALSE(seen[6].has_value()) << "a read changes nothing";
  const Response refused = post("/api/v1/requests/req_2/cancel", "", {{"Idempotency-Key", std::string(256, 'x')}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("1 to 255"), std::string::npos) << refused.body;
}

TEST_F(HttpServer, outputs_never_change) {
  const Response response = get("/api/v1/outputs/" + hash + ".png");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, png_bytes);
  EXPECT_EQ(response.headers.at("content-type"), "image/png");
  EXPECT_EQ(response.headers.at("etag"), "\"" + hash + "\"");
  EXPECT_TRUE(has(response.headers.at("cache-control"), "immutable"));
  EXPECT_EQ(get("/api/v1/outputs/" + hash, {{"If-None-Match", "\"" + hash + "\""}}).status, 304);
  EXPECT_EQ(get("/api/v1/outputs/" + std::string(64, 'b')).status, 404);
  const auto head = request(address_, "HEAD", "/api/v1/outputs/" + hash);
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->body, "");
  EXPECT_EQ(head->headers.at("content-length"), "14");
  const Response other = get("/api/v1/outputs/" + hash + ".webp");  // a name that would lie
  EXPECT_EQ(other.status, 404);
  EXPECT_TRUE(has(other.body, "is png, not webp")) << other.body;
}

TEST_F(HttpServer, malformed_bodies_are_400_and_name_the_place) {
  const std::string target = "/v1/images/generations";
  for (const std::string body : {"", "{", "[]", "nonsense", "{}", R"({"prompt":1})", R"({"prompt":"a","n":-1})",
                                 R"({"prompt":"a","n":1.5})", R"({"prompt":"a","prompt":"b"})", "{\"prompt\":\"\xff\"}",
                                 R"({"prompt":"a"} x)", R"({"prompt":"a","colour":1})"}) {
    const Response response = post(target, body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_TRUE(has(response.body, "\"type\":\"invalid_request_error\"")) << response.body;
    EXPECT_TRUE(has(response.body, "\"code\":\"invalid_argument\"")) << response.body;
  }
  EXPECT_TRUE(has(post(target, R"({"prompt":"a","n":-1})").body, "\"param\":\"n\""));
}

TEST_F(HttpServer, unknown_paths_methods_and_origins_are_refused) {
  EXPECT_EQ(get("/nothing").status, 404);
  EXPECT_EQ(get("/api/v1/outputs/../../etc/passwd").status, 404);
  EXPECT_EQ(get("/api/v1/outputs/..%2f..%2fetc%2fpasswd").status, 404);
  EXPECT_EQ(get("/api/v1/requests/%00").status, 404);
  const Response wrong = post("/api/v1/status", "x");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD");
  EXPECT_EQ(get("/api/v1/status", {{"Origin", "http://evil.example"}}).status, 403);
  EXPECT_EQ(get("/api/v1/status", {{"Origin", cat("http://127.0.0.1:", address_.port)}}).status, 200);
}

TEST_F(SmallHttpServer, a_large_body_is_413_however_it_comes) {
  const Response declared = post("/api/v1/checks", "PNG" + std::string(4 << 20, 'x'));
  EXPECT_EQ(declared.status, 413);
  EXPECT_TRUE(has(declared.body, "\"code\":\"too_large\"")) << declared.body;
  std::string chunked = "POST /api/v1/checks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) chunked += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_TRUE(exchange(chunked + "0\r\n\r\n").starts_with("HTTP/1.1 413 "));
}

TEST_F(HttpServer, a_connection_serves_many_requests_and_expectations) {
  const int fd = raw_socket();
  send_raw(fd,
           "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
           "POST /api/v1/checks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
           "Connection: close\r\n\r\nJPEG");
  const std::string all = read_to_end(fd);
  ::close(fd);
  EXPECT_TRUE(has(all, R"({"status":"ok"})")) << all;
  EXPECT_TRUE(has(all, R"({"path":"status"})")) << all;
  EXPECT_TRUE(has(all, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 ")) << all;
}

TEST_F(HttpServer, malformed_requests_do_no_harm) {
  const std::string good =
      "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"";
  for (std::size_t cut = 1; cut < good.size(); cut += 2) {
    const std::string out = exchange(good.substr(0, cut));
    EXPECT_TRUE(out.empty() || out.starts_with("HTTP/1.1 400 ")) << cut << ": " << out;
  }
  std::mt19937 random(7);
  for (int i = 0; i < 60; ++i) {
    std::string garbage(1 + random() % 3000, '\0');
    for (char& c : garbage) c = static_cast<char>(random() % 256);
    const std::string out = exchange(garbage);
    EXPECT_TRUE(out.empty() || out.starts_with("HTTP/1.1 4")) << out;
  }
  EXPECT_TRUE(
      exchange("GET /livez HTTP/1.1\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n").starts_with("HTTP/1.1 431 "));
  EXPECT_TRUE(exchange(std::string("GET /api/v1/requests/a\0b HTTP/1.1\r\n\r\n", 37)).starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(exchange("GET /livez HTTP/1.1\r\nContent-Length: x\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(exchange("POST /api/v1/checks HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nabcd")
                  .starts_with("HTTP/1.1 400 "));
  EXPECT_EQ(get("/livez").status, 200);
}

TEST_F(HttpServer, a_stream_tells_durable_events_from_progress) {
  const auto stream = open_stream();
  publish({Rev{5}, WallTime{0}, {{"request_accepted", "req_1", {}}, {"worker_ready", "w1", {}}}});
  publish({Rev{}, WallTime{0}, {{"inference_progress", "req_1", {}}}});
  const auto first = stream->next(patience_ms);
  ASSERT_TRUE(first && *first);
  EXPECT_EQ((*first)->id, "");  // the id is at the end of its commit
  EXPECT_EQ((*first)->type, "request_accepted");
  EXPECT_TRUE(has((*first)->data, "\"rev\":5")) << (*first)->data;
  const auto second = stream->next(patience_ms);
  ASSERT_TRUE(second && *second);
  EXPECT_EQ((*second)->type, "worker_ready");
  EXPECT_EQ((*second)->id, "5");
  const auto progress = stream->next(patience_ms);
  ASSERT_TRUE(progress && *progress);
  EXPECT_EQ((*progress)->id, "");
  EXPECT_FALSE(has((*progress)->data, "\"rev\""));
  const auto nothing = stream->next(0);
  ASSERT_TRUE(nothing.has_value());
  EXPECT_FALSE(nothing->has_value());
}

TEST_F(HttpServer, a_stream_may_follow_one_subject) {
  const auto stream = open_stream("/api/v1/events?subject=req_2");
  publish({Rev{1}, WallTime{0}, {{"request_accepted", "req_1", {}}, {"request_accepted", "req_2", {}}}});
  publish({Rev{2}, WallTime{0}, {{"request_completed", "req_1", {}}}});
  publish({Rev{3}, WallTime{0}, {{"request_completed", "req_2", {}}}});
  EXPECT_EQ(stream->next(patience_ms).value()->type, "request_accepted");
  EXPECT_EQ(stream->next(patience_ms).value()->type, "request_completed");
}

// Design §6: bookmarks before compaction. A filter that leaves everything out must not cost the reader its place.
TEST_F(SmallHttpServer, a_reader_is_told_a_place_before_the_history_loses_the_one_it_knows) {
  const auto stream = open_stream("/api/v1/events?domain=memory");
  for (std::uint64_t rev = 1; rev <= 12; ++rev) publish({Rev{rev}, WallTime{0}, {{"worker_ready", "w0", {}}}});
  // A write of the stream may be on its way: each of these is behind one more.
  for (int i = 0; i < 3; ++i) {
    publish({Rev{}, WallTime{0}, {{"vram_usage_update", "gpu_0", {}}}});
    ASSERT_EQ(stream->next(patience_ms).value()->type, "vram_usage_update");
  }
  EXPECT_GE(std::stoull(stream->last_id()), 7u) << "the history begins after rev 7 now";
}

TEST_F(SmallHttpServer, a_slow_reader_is_told_to_list_again) {
  const auto stream = open_stream();
  const RawJson large{cat("\"", std::string(1 << 20, 'x'), "\"")};
  for (std::uint64_t rev = 1; rev <= 40; ++rev) publish({Rev{rev}, WallTime{0}, {{"big", "s", large}}});
  std::string last;
  while (true) {
    const auto event = stream->next(patience_ms);
    if (!event) break;
    ASSERT_TRUE(event->has_value());
    last = (*event)->type;
  }
  EXPECT_EQ(last, "resync_required");
}

TEST_F(SmallHttpServer, a_slow_reader_misses_progress_only) {
  const auto stream = open_stream();
  const RawJson large{cat("\"", std::string(1 << 20, 'x'), "\"")};
  for (int i = 0; i < 40; ++i) publish({Rev{}, WallTime{0}, {{"progress", "s", large}}});
  publish({Rev{1}, WallTime{0}, {{"done", "s", {}}}});
  int progress = 0;
  while (true) {
    const auto event = stream->next(patience_ms);
    ASSERT_TRUE(event && *event);
    if ((*event)->type == "done") break;
    ++progress;
  }
  EXPECT_LT(progress, 40);
  EXPECT_GE(progress, 9);
}

TEST_F(SmallHttpServer, streams_are_limited) {
  auto first = open_stream();
  const auto second = EventStream::open(address_, "/api/v1/events");
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(has(second.error().message, "1 event streams are open")) << second.error().message;
}

TEST_F(HttpServer, a_taken_port_is_named) {
  real::Reactor other;
  Server second(other, {.port = address_.port}, {});
  const Status listening = second.listen();
  ASSERT_FALSE(listening.has_value());
  EXPECT_EQ(listening.error().message, cat("cannot listen on 127.0.0.1:", address_.port,
                                           ": the port is in use by another program; choose another with --port"));
  EXPECT_FALSE(Server(other, {.address = "not an address"}, {}).listen().has_value());
  const Status foreign = Server(other, {.address = "192.0.2.1", .port = 0}, {}).listen();
  ASSERT_FALSE(foreign.has_value());
  EXPECT_TRUE(has(foreign.error().message, "no such address")) << foreign.error().message;
}

TEST_F(HttpServer, a_stop_ends_streams_and_lets_due_answers_go_out) {
  const auto stream = open_stream();
  auto answer = std::async([&] { return post("/v1/images/generations", R"({"prompt":"a"})"); });
  const ReplyId reply = next<in::Generate>().reply;
  on_loop([&] { server_->stop(); });
  const auto end = stream->next(patience_ms);
  if (end) {
    EXPECT_FALSE(end->has_value());
    EXPECT_FALSE(stream->next(patience_ms).has_value());
  }
  const auto refused = request(address_, "GET", "/livez");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  on_loop([&] { server_->reply({reply, 200, R"({"late":true})"}); });
  EXPECT_EQ(answer.get().body, R"({"late":true})");
}

TEST(HttpClient, an_address_is_a_plain_url) {
  const auto address = address_from_url("http://[::1]:80/");
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(address->host, "::1");
  EXPECT_EQ(address_from_url("http://h:7420")->port, 7420);
  EXPECT_EQ(address_from_url("http://h")->port, 80);
  for (const std::string url : {"", "h:1", "https://h", "http://", "http://h:", "http://h:0", "http://h:99999",
                                "http://h:1/x", "http://a@h", "http://h:1x", "http://[::1"}) {
    EXPECT_FALSE(address_from_url(url).has_value()) << url;
  }
}

TEST(HttpClient, nobody_at_the_address_is_unavailable) {
  const auto response = request({"127.0.0.1", 1}, "GET", "/livez");
  ASSERT_FALSE(response.has_value());
  EXPECT_EQ(response.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(has(response.error().message, "no server answers at http://127.0.0.1:1")) << response.error().message;
}

}  // namespace
}  // namespace lockstep::http
