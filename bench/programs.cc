#include "bench/programs.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <thread>
#include <utility>

#include "base/text.h"
#include "bench/wire.h"
#include "env/real/blob_store.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t output_max = 64u << 20;

/// Debian keeps the server of each version apart and puts only the clients into PATH; the newest comes first.
std::vector<std::string> postgresql_folders() {
  std::vector<std::pair<int, std::string>> versions;
  std::error_code none;
  for (const auto& each : fs::directory_iterator("/usr/lib/postgresql", none)) {
    versions.emplace_back(std::atoi(each.path().filename().c_str()), (each.path() / "bin").string());
  }
  std::ranges::sort(versions, std::greater{});
  std::vector<std::string> out;
  for (auto& [version, folder] : versions) out.push_back(std::move(folder));
  return out;
}

/// In the new process: becomes that user for good. The kernel forgets then that we must not outlive our parent.
bool become(const std::string& user, pid_t parent) {
  const passwd* const entry = ::getpwnam(user.c_str());
  if (entry == nullptr || ::initgroups(user.c_str(), entry->pw_gid) != 0 || ::setgid(entry->pw_gid) != 0 ||
      ::setuid(entry->pw_uid) != 0) {
    return false;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  return ::getppid() == parent;
}

pid_t launch_process(std::vector<std::string> command, const Launch& launch, int standard_output) {
  std::vector<char*> argv;
  for (std::string& each : command) argv.push_back(each.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  return in_process(launch.cpu, [&] {
    const int nowhere = ::open("/dev/null", O_RDWR);
    const int log =
        launch.log.empty() ? nowhere : ::open(launch.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    ::dup2(nowhere, 0);
    ::dup2(standard_output >= 0 ? standard_output : log, 1);
    ::dup2(log, 2);
    if (!launch.user.empty() && !become(launch.user, parent)) ::_exit(126);
    if (::chdir("/") != 0) ::_exit(126);  // where we were may be closed to that user
    ::execv(argv[0], argv.data());
    ::_exit(127);
  });
}

}  // namespace

Programs::Programs(const std::string& only_folder) {
  if (!only_folder.empty()) {
    folders_.push_back(fs::absolute(only_folder).string());
    return;
  }
  folders_ = postgresql_folders();  // ahead of PATH, whose clients there are scripts that choose a version
  const char* const path = std::getenv("PATH");
  std::string_view left = path == nullptr ? std::string_view() : path;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find(':'), left.size());
    if (end > 0) folders_.emplace_back(left.substr(0, end));
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  for (const char* each : {"/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"}) folders_.emplace_back(each);
  std::error_code none;
  folders_.push_back(fs::read_symlink("/proc/self/exe", none).parent_path().string());  // what was built with us
}

std::string Programs::find(std::string_view name) const {
  for (const std::string& folder : folders_) {
    std::string path = cat(folder, "/", name);
    std::error_code none;
    if (fs::is_regular_file(path, none) && ::access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

Result<std::string> output_of(const std::vector<std::string>& command, const Launch& launch) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(ErrorCode::unavailable, "no more descriptors for a pipe");
  const pid_t process = launch_process(command, launch, ends[1]);
  ::close(ends[1]);
  std::string out;
  char piece[1 << 16];
  for (ssize_t got = 0; (got = ::read(ends[0], piece, sizeof piece)) > 0 && out.size() < output_max;) {
    out.append(piece, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  if (wait_for(process)) return out;
  return fail(ErrorCode::unavailable, cat(command[0], " failed: ", last_words(launch.log)));
}

Running::Running(std::vector<std::string> command, const Launch& launch, int stop_signal)
    : process_(launch_process(std::move(command), launch, -1)), stop_signal_(stop_signal) {}
Running::~Running() { stop(); }
Running::Running(Running&& other) noexcept
    : process_(std::exchange(other.process_, -1)), stop_signal_(other.stop_signal_) {}
Running& Running::operator=(Running&& other) noexcept {
  if (this == &other) return *this;
  stop();
  process_ = std::exchange(other.process_, -1);
  stop_signal_ = other.stop_signal_;
  return *this;
}

bool Running::alive() {
  if (process_ > 0 && ::waitpid(process_, nullptr, WNOHANG) == process_) process_ = -1;
  return process_ > 0;
}

void Running::stop() {
  if (process_ <= 0) return;
  ::kill(process_, stop_signal_);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
}

Status wait_until(const std::function<bool()>& ask, Running& program, std::string_view name, const std::string& log) {
  const auto begin = std::chrono::steady_clock::now();
  while (!ask()) {
    if (!program.alive()) {
      return fail(ErrorCode::unavailable, cat(name, " ended before it answered: ", last_words(log)));
    }
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(30)) {
      return fail(ErrorCode::deadline_exceeded, cat(name, " does not answer after 30 s: ", last_words(log)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {};
}

std::uint16_t free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(probe, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(probe);
  return ntohs(address.sin_port);
}

int connect_loopback(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return socket;
  ::close(socket);
  return -1;
}

std::string last_words(const std::string& file) {
  const auto text = real::read_file(file, output_max);
  if (!text) return "it said nothing";
  const std::size_t end = text->find_last_not_of(" \n");
  if (end == std::string::npos) return "it said nothing";
  const std::size_t before = text->find_last_of('\n', end);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  return shortened(std::string_view(*text).substr(begin, end + 1 - begin), 300);
}

Status left_out(std::string_view peer, const Error& why) {
  if (why.code != ErrorCode::not_found) return why;
  std::cerr << peer << " is left out: " << why.message << "\n";
  return {};
}

}  // namespace lockstep::bench
