#include "bench/peers.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/text.h"
#include "bench/wire.h"

namespace lockstep::bench {

namespace {

constexpr std::size_t payload = 300;
constexpr int window = 4096;  // how far a publisher may be ahead of the first subscriber

bool read_until(int socket, std::string_view end) {
  std::string seen;
  char byte = 0;
  while (!seen.ends_with(end)) {
    if (!read_all(socket, &byte, 1)) return false;
    seen += byte;
  }
  return true;
}

}  // namespace

int Peer::connect() const {
  int socket = -1;
  if (kind_ == PeerKind::nats) {
    socket = connect_loopback(static_cast<std::uint16_t>(std::stoi(address_)));
    if (socket < 0) return -1;
    if (write_all(socket, "CONNECT {\"verbose\":false}\r\nPING\r\n") && read_until(socket, "PONG\r\n")) {
      return socket;
    }
  } else {
    socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    address_.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        write_all(socket, "PING\r\n") && read_until(socket, "+PONG\r\n")) {
      return socket;
    }
  }
  ::close(socket);
  return -1;
}

int Peer::subscribe() const {
  const int socket = connect();
  if (socket < 0) return -1;
  const bool done = kind_ == PeerKind::nats
                        ? write_all(socket, "SUB ch 1\r\nPING\r\n") && read_until(socket, "PONG\r\n")
                        : write_all(socket, "SUBSCRIBE ch\r\n") && read_until(socket, ":1\r\n");
  if (done) return socket;
  ::close(socket);
  return -1;
}

std::string Peer::publication() const {
  const std::string body(payload, 'x');
  if (kind_ == PeerKind::nats) return cat("PUB ch ", payload, "\r\n", body, "\r\n");
  if (kind_ == PeerKind::redis) {
    return cat("*3\r\n$7\r\nPUBLISH\r\n$2\r\nch\r\n$", payload, "\r\n", body, "\r\n");
  }
  return cat("*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n$", payload, "\r\n", body, "\r\n");
}

std::size_t Peer::delivery_size() const {
  const std::string head = kind_ == PeerKind::nats ? cat("MSG ch 1 ", payload, "\r\n")
                                                   : cat("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$", payload, "\r\n");
  return head.size() + payload + 2;
}

std::size_t Peer::reply_size() const { return kind_ == PeerKind::nats ? 0 : 4; }  // ":1\r\n"

Result<std::unique_ptr<Peer>> Peer::start(PeerKind kind, const std::string& folder, int cpu) {
  const std::string_view name = kind == PeerKind::nats ? "nats-server" : "redis-server";
  const std::string program = Programs().find(name);
  if (program.empty()) return fail(ErrorCode::not_found, cat(name, " is not installed"));
  const std::string port = cat(free_port());
  const std::string address = kind == PeerKind::nats ? port : cat(folder, "/redis.sock");
  std::unique_ptr<Peer> peer(new Peer(kind, address));
  std::vector<std::string> command{program, "-a", "127.0.0.1", "-p", port};
  if (kind != PeerKind::nats) {
    command = {program,  "--port",
               "0",      "--unixsocket",
               address,  "--save",
               "",       "--dir",
               folder,   "--client-output-buffer-limit",
               "pubsub", "0",
               "0",      "0"};
    if (kind == PeerKind::redis_synced) {
      for (const char* each : {"--appendonly", "yes", "--appendfsync", "always"}) command.emplace_back(each);
    }
  }
  const std::string log = cat(folder, "/", name, ".log");
  peer->server_ = Running(std::move(command), {.cpu = cpu, .log = log}, SIGTERM);
  const auto answers = [&] {
    const int socket = peer->connect();
    if (socket >= 0) ::close(socket);
    return socket >= 0;
  };
  LOCKSTEP_TRY_STATUS(wait_until(answers, peer->server_, name, log));
  return peer;
}

Peer::~Peer() {
  server_.stop();
  if (kind_ != PeerKind::nats) std::filesystem::remove(address_);
}

Result<std::vector<double>> Peer::one_way_us(Placement placement, int samples) {
  const int warm = std::max(10, samples / 10);
  const int all = samples + warm;
  auto* const sent = shared<std::uint64_t>(static_cast<std::size_t>(all));
  auto* const got = shared<std::uint64_t>(static_cast<std::size_t>(all));
  const Pair ack = socket_pair();
  const int listening = subscribe();
  const int telling = connect();
  if (listening < 0 || telling < 0) return fail(ErrorCode::unavailable, "the peer does not let us in");
  const pid_t listener = in_process(placement.workers, [&] {
    std::string bytes(delivery_size(), '\0');
    for (int i = 0; i < all; ++i) {
      if (!read_all(listening, bytes.data(), bytes.size())) ::_exit(1);
      got[i] = now_ns();
      if (!write_all(ack.a, "a")) ::_exit(1);
    }
  });
  const pid_t teller = in_process(placement.workers, [&] {
    const std::string one = publication();
    char answer[16];
    for (int i = 0; i < all; ++i) {
      sent[i] = now_ns();
      if (!write_all(telling, one) || !read_all(ack.b, answer, 1) || !read_all(telling, answer, reply_size())) {
        ::_exit(1);
      }
    }
  });
  const bool good = wait_for_all({listener, teller});
  for (const int each : {ack.a, ack.b, listening, telling}) ::close(each);
  if (!good) return fail(ErrorCode::internal, "the peer's measurement failed");
  std::vector<double> out;
  for (int i = warm; i < all; ++i) out.push_back(static_cast<double>(got[i] - sent[i]) / 1e3);
  return out;
}

Result<double> Peer::deliveries_per_s(int subscribers, int messages) {
  auto* const times = shared<std::uint64_t>(static_cast<std::size_t>(subscribers) + 1);
  const Pair ack = socket_pair();
  std::vector<int> sockets;
  std::vector<pid_t> processes;
  for (int i = 0; i < subscribers; ++i) {
    const int listening = subscribe();
    if (listening < 0) return fail(ErrorCode::unavailable, "the peer does not let us in");
    sockets.push_back(listening);
    processes.push_back(in_process(-1, [&, i, listening] {
      std::string buffer(std::size_t{1} << 18, '\0');
      const std::string acks(4096, 'a');
      std::size_t bytes = 0;
      for (int read = 0; read < messages;) {
        const ssize_t got = ::recv(listening, buffer.data(), buffer.size(), 0);
        if (got <= 0) ::_exit(1);
        bytes += static_cast<std::size_t>(got);
        const int now = static_cast<int>(bytes / delivery_size());
        const auto more = static_cast<std::size_t>(now - read);
        if (i == 0 && more > 0 && !write_all(ack.a, std::string_view(acks).substr(0, more))) ::_exit(1);
        read = now;
      }
      times[i + 1] = now_ns();
    }));
  }
  const int telling = connect();
  sockets.push_back(telling);
  processes.push_back(in_process(-1, [&] {
    const std::string one = publication();
    std::string batch;
    for (int i = 0; i < 64; ++i) batch += one;
    char bytes[4096];
    int acked = 0;
    times[0] = now_ns();
    for (int i = 0; i < messages;) {
      const int many = std::min(64, messages - i);
      if (!write_all(telling, std::string_view(batch).substr(0, static_cast<std::size_t>(many) * one.size()))) {
        ::_exit(1);
      }
      if (reply_size() > 0 && !read_all(telling, bytes, static_cast<std::size_t>(many) * reply_size())) ::_exit(1);
      i += many;
      while (i - acked > window) {
        const ssize_t more = ::recv(ack.b, bytes, sizeof bytes, 0);
        if (more <= 0) ::_exit(1);
        acked += static_cast<int>(more);
      }
    }
  }));
  const bool good = wait_for_all(processes);
  for (const int each : sockets) ::close(each);
  ::close(ack.a);
  ::close(ack.b);
  if (!good) return fail(ErrorCode::internal, "the peer's measurement failed");
  const std::uint64_t end = *std::max_element(times + 1, times + 1 + subscribers);
  return static_cast<double>(messages) * subscribers * 1e9 / static_cast<double>(end - times[0]);
}

Result<double> Peer::synced_per_s(int messages) {
  const int socket = connect();
  if (socket < 0) return fail(ErrorCode::unavailable, "the peer does not let us in");
  std::string batch;
  for (int i = 0; i < 64; ++i) batch += publication();
  const std::uint64_t begin = now_ns();
  int done = 0;
  char buffer[4096];
  bool good = true;
  while (good && done < messages) {
    good = write_all(socket, batch);
    for (int lines = 0; good && lines < 2 * 64;) {  // "$15\r\n" and the id of each entry
      const ssize_t got = ::recv(socket, buffer, sizeof buffer, 0);
      good = got > 0;
      if (good) lines += static_cast<int>(std::count(buffer, buffer + got, '\n'));
    }
    done += 64;
  }
  ::close(socket);
  if (!good) return fail(ErrorCode::internal, "the peer's measurement failed");
  return done * 1e9 / static_cast<double>(now_ns() - begin);
}

}  // namespace lockstep::bench
