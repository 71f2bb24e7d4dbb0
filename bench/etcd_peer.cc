#include "bench/etcd_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <filesystem>

#include "base/text.h"
#include "bench/wire.h"
#include "http/shapes.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view participants[] = {"device", "memory", "model"};

struct Connection {
  int socket = -1;
  std::uint64_t version = 0;  // of its keys
  std::uint64_t begun = 0;
  std::string read;
};

/// All connections from one thread: what they wait for is the server.
class Client {
 public:
  Client(std::vector<Connection>& connections, int count, std::uint64_t* took)
      : connections_(connections), count_(count), took_(took) {}

  /// False when an answer is wrong or does not come.
  bool run() {
    std::vector<pollfd> watched;
    for (Connection& each : connections_) watched.push_back({each.socket, POLLIN, 0});
    for (std::size_t slot = 0; slot < connections_.size(); ++slot) {
      if (started_ < count_ && !begin(slot)) return false;
    }
    while (ended_ < count_) {
      if (::poll(watched.data(), watched.size(), 30'000) <= 0) return false;
      for (std::size_t slot = 0; slot < watched.size(); ++slot) {
        if (watched[slot].revents != 0 && !take(slot)) return false;
      }
    }
    return true;
  }

 private:
  bool begin(std::size_t slot) {
    Connection& own = connections_[slot];
    const std::string request = etcd_request(static_cast<int>(slot), own.version);
    own.begun = now_ns();
    ++started_;
    return write_all(own.socket, request);
  }
  bool take(std::size_t slot) {
    Connection& own = connections_[slot];
    char piece[1 << 14];
    const ssize_t got = ::recv(own.socket, piece, sizeof piece, 0);
    if (got <= 0) return false;
    own.read.append(piece, static_cast<std::size_t>(got));
    const auto answer = etcd_answer(own.read);
    if (!answer || (*answer && !(*answer)->succeeded)) return false;
    if (!*answer) return true;
    took_[ended_++] = now_ns() - own.begun;
    own.read.erase(0, (*answer)->size);
    ++own.version;
    return started_ >= count_ || begin(slot);
  }

  std::vector<Connection>& connections_;
  int count_;
  std::uint64_t* took_;
  int started_ = 0;
  int ended_ = 0;
};

class Etcd : public CommitPeer {
 public:
  Etcd(std::string folder, Placement placement) : folder_(std::move(folder)), placement_(placement) {}
  ~Etcd() override {
    server_.stop();
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  Status start(const std::string& program) {
    port_ = free_port();
    const std::string clients = cat("http://127.0.0.1:", port_);
    const std::string members = cat("http://127.0.0.1:", free_port());
    const std::string log = folder_ + "/log";
    server_ = Running({program, "--name", "peer", "--data-dir", folder_ + "/data", "--listen-client-urls", clients,
                       "--advertise-client-urls", clients, "--listen-peer-urls", members,
                       "--initial-advertise-peer-urls", members, "--initial-cluster", cat("peer=", members)},
                      {.cpu = placement_.hub, .log = log}, SIGTERM);
    // One transaction of keys that are not measured: it answers, and it is its own leader.
    return wait_until(
        [&] {
          std::vector<Connection> one(1);
          one[0].socket = connect_loopback(port_);
          std::uint64_t took = 0;
          const bool good = one[0].socket >= 0 && Client(one, 1, &took).run();
          if (one[0].socket >= 0) ::close(one[0].socket);
          if (good) versions_[0] = 1;
          return good;
        },
        server_, "etcd", log);
  }

  Result<CommitFigures> run(int in_flight, int count) override {
    std::vector<Connection> connections(static_cast<std::size_t>(in_flight));
    versions_.resize(std::max(versions_.size(), connections.size()));
    bool open = true;
    for (std::size_t slot = 0; slot < connections.size(); ++slot) {
      connections[slot].version = versions_[slot];
      connections[slot].socket = connect_loopback(port_);
      open = open && connections[slot].socket >= 0;
    }
    auto* const took = shared<std::uint64_t>(static_cast<std::size_t>(count));
    auto* const versions = shared<std::uint64_t>(connections.size());
    auto* const nanos = shared<std::uint64_t>();
    bool good = open;
    if (open) {
      good = wait_for(in_process(placement_.workers, [&] {
        const std::uint64_t begin = now_ns();
        if (!Client(connections, count, took).run()) ::_exit(1);
        *nanos = now_ns() - begin;
        for (std::size_t slot = 0; slot < connections.size(); ++slot) versions[slot] = connections[slot].version;
      }));
    }
    for (const Connection& each : connections) ::close(each.socket);
    if (!good) return fail(ErrorCode::internal, cat("etcd refused a transaction: ", last_words(folder_ + "/log")));
    std::copy_n(versions, connections.size(), versions_.begin());
    CommitFigures out;
    for (int i = 0; i < count; ++i) out.us.push_back(static_cast<double>(took[i]) / 1e3);
    out.per_s = count * 1e9 / static_cast<double>(*nanos);
    return out;
  }

 private:
  std::string folder_;
  Placement placement_;
  std::uint16_t port_ = 0;
  Running server_;
  std::vector<std::uint64_t> versions_{0};  // of each slot's keys, from one run to the next
};

}  // namespace

std::string etcd_request(int slot, std::uint64_t version) {
  std::string compares;
  std::string puts;
  const std::string value = http::base64(std::string(peer_value_size, 'x'));
  for (const std::string_view each : participants) {
    const std::string key = http::base64(cat(each, "/", slot));
    if (!compares.empty()) compares += ',';
    if (!puts.empty()) puts += ',';
    compares += cat(R"({"key":")", key, R"(","target":"VERSION","result":"EQUAL","version":")", version, R"("})");
    puts += cat(R"({"request_put":{"key":")", key, R"(","value":")", value, R"("}})");
  }
  const std::string body = cat(R"({"compare":[)", compares, R"(],"success":[)", puts, "]}");
  return cat("POST /v3/kv/txn HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ",
             body.size(), "\r\n\r\n", body);
}

Result<std::optional<EtcdAnswer>> etcd_answer(std::string_view bytes) {
  const std::size_t head = bytes.find("\r\n\r\n");
  if (head == std::string_view::npos) return std::nullopt;
  constexpr std::string_view field = "\r\nContent-Length: ";
  const std::size_t at = bytes.substr(0, head).find(field);
  std::size_t body = 0;
  if (at == std::string_view::npos ||
      std::from_chars(bytes.data() + at + field.size(), bytes.data() + head, body).ec != std::errc{}) {
    return fail(ErrorCode::internal, cat("an answer without Content-Length: ", shortened(bytes)));
  }
  if (!bytes.starts_with("HTTP/1.1 200 ")) {
    return fail(ErrorCode::internal, cat("not an answer to a transaction: ", shortened(bytes)));
  }
  const std::size_t whole = head + 4 + body;
  if (bytes.size() < whole) return std::nullopt;
  // A transaction whose compares do not hold has no such field.
  const bool succeeded = bytes.substr(head + 4, body).find(R"("succeeded":true)") != std::string_view::npos;
  return EtcdAnswer{whole, succeeded};
}

Result<std::unique_ptr<CommitPeer>> start_etcd(const Programs& programs, const std::string& parent,
                                               Placement placement) {
  const std::string program = programs.find("etcd");
  if (program.empty()) return fail(ErrorCode::not_found, "etcd is not installed");
  std::string folder = parent + "/etcd-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a folder for etcd");
  auto out = std::make_unique<Etcd>(folder, placement);
  LOCKSTEP_TRY_STATUS(out->start(program));
  return out;
}

}  // namespace lockstep::bench
