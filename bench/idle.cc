#include "bench/idle.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "base/text.h"
#include "bench/wire.h"
#include "env/real/blob_store.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

void pause_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

/// `lockstep serve` with room for all the streams; ended by the destructor.
class Listened {
 public:
  static Result<std::unique_ptr<Listened>> start(const std::string& folder, int clients) {
    const std::string config = cat(folder, "/lockstep.toml");
    std::ofstream(config) << "data_dir = \"" << folder << "/data\"\n[http]\nport = 0\nstreams_max = " << clients
                          << "\nconnections_max = " << clients + 64 << "\n";
    const std::string log = cat(folder, "/server.log");
    const std::string self = fs::read_symlink("/proc/self/exe").string();
    fs::create_directories(cat(folder, "/models"));
    std::unique_ptr<Listened> server(new Listened);
    server->process_ = in_process(-1, [&] {
      const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(file, 1);
      ::dup2(file, 2);
      const std::string models = cat(folder, "/models");
      ::execl(self.c_str(), self.c_str(), "serve", "--config", config.c_str(), "--models-dir", models.c_str(),
              "--workers", "0", nullptr);
      ::_exit(127);
    });
    for (int tries = 0; tries < 12'000; ++tries, pause_ms(10)) {  // two minutes: only a hang takes so long
      const auto text = real::read_file(log, 1 << 20);
      const std::size_t at = text ? text->find("listening on http://") : std::string::npos;
      if (at == std::string::npos || text->find('\n', at) == std::string::npos) continue;
      const std::size_t colon = text->find(':', at + 20);
      server->port_ = static_cast<std::uint16_t>(std::stoi(text->substr(colon + 1)));
      return server;
    }
    return fail(ErrorCode::deadline_exceeded, cat("the server did not start: ", log));
  }
  ~Listened() {
    for (const int each : streams_) ::close(each);
    if (process_ <= 0) return;
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  Listened(const Listened&) = delete;
  Listened& operator=(const Listened&) = delete;

  Status open_stream() {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port_);
    if (socket < 0 || ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      return fail(ErrorCode::resource_exhausted, "no connection for one more stream");
    }
    streams_.push_back(socket);
    char answer[16] = {};
    if (!write_all(socket, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n") ||
        !read_all(socket, answer, 12) || std::string_view(answer, 12) != "HTTP/1.1 200") {
      return fail(ErrorCode::unavailable, cat("a stream was refused: ", std::string_view(answer, 12)));
    }
    return {};
  }
  double resident_bytes() const {
    std::ifstream file(cat("/proc/", process_, "/statm"));
    std::uint64_t all = 0;
    std::uint64_t resident = 0;
    file >> all >> resident;
    return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  }
  double cpu_seconds() const {
    const auto text = real::read_file(cat("/proc/", process_, "/stat"), 1 << 16);
    if (!text) return 0;
    std::istringstream fields(text->substr(text->rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0;
    double system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  double cpu_percent(int window_ms) const {
    const double before = cpu_seconds();
    const std::uint64_t begin = now_ns();
    pause_ms(window_ms);
    return (cpu_seconds() - before) * 1e11 / static_cast<double>(now_ns() - begin);
  }

 private:
  Listened() = default;
  pid_t process_ = -1;
  std::uint16_t port_ = 0;
  std::vector<int> streams_;
};

}  // namespace

Result<IdleCost> idle_streams(const std::string& folder, int clients) {
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &descriptors);  // the server inherits it
  if (descriptors.rlim_max < static_cast<rlim_t>(clients) + 128) {
    return fail(ErrorCode::resource_exhausted, cat("only ", descriptors.rlim_max, " descriptors may be open"));
  }
  const auto server = LOCKSTEP_TRY(Listened::start(folder, clients));
  for (int i = 0; i < 16; ++i) LOCKSTEP_TRY_STATUS(server->open_stream());  // what is only paid once
  IdleCost cost;
  cost.cpu_without = server->cpu_percent(5000);
  const double before = server->resident_bytes();
  for (int i = 16; i < clients; ++i) LOCKSTEP_TRY_STATUS(server->open_stream());
  cost.bytes_each = (server->resident_bytes() - before) / (clients - 16);
  cost.cpu_percent = server->cpu_percent(10'000);
  return cost;
}

}  // namespace lockstep::bench
