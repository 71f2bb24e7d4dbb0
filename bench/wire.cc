#include "bench/wire.h"

#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>

#include "base/check.h"

namespace lockstep::bench {

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

void pin(int cpu) {
  if (cpu < 0) return;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<std::size_t>(cpu), &only);
  ::sched_setaffinity(0, sizeof only, &only);
}

Pair socket_pair() {
  int ends[2] = {-1, -1};
  LOCKSTEP_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  return {ends[0], ends[1]};
}

pid_t in_process(int cpu, const std::function<void()>& body) {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  pin(cpu);
  body();
  ::_exit(0);
}

bool wait_for(pid_t process) {
  int status = 0;
  return process > 0 && ::waitpid(process, &status, 0) == process && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool wait_for_all(const std::vector<pid_t>& processes) {
  bool good = true;
  std::vector<pollfd> ends;
  for (const pid_t each : processes) {
    const int end = each > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, each, 0)) : -1;
    good = good && end >= 0;
    ends.push_back({end, POLLIN, 0});
  }
  for (;;) {
    bool waits = false;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].fd < 0) continue;
      if (!good) ::kill(processes[i], SIGKILL);
      if (good && ends[i].revents == 0) {
        waits = true;
        continue;
      }
      ::close(ends[i].fd);
      ends[i].fd = -1;
      if (wait_for(processes[i]) || !good) continue;
      good = false;
      waits = true;  // once more, from the first: those that were passed over are to be killed
    }
    if (!waits) return good;
    if (good) ::poll(ends.data(), ends.size(), -1);
  }
}

FrameReader::FrameReader(int socket) : socket_(socket), buffer_(std::size_t{1} << 18, '\0') {}

bool FrameReader::fill() {
  if (begin_ > 0) {  // the part of a frame that came last
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
  const ssize_t got = ::recv(socket_, buffer_.data() + end_, buffer_.size() - end_, 0);
  if (got <= 0) return false;
  end_ += static_cast<std::size_t>(got);
  return true;
}

std::optional<FrameReader::View> FrameReader::next() {
  if (end_ - begin_ < frame_header_size) return std::nullopt;
  const auto* const at = reinterpret_cast<const std::uint8_t*>(buffer_.data() + begin_);
  const auto header = decode_header(std::span<const std::uint8_t, frame_header_size>(at, frame_header_size));
  if (!header || end_ - begin_ < frame_header_size + header->body_length) return std::nullopt;
  const std::string_view body(buffer_.data() + begin_ + frame_header_size, header->body_length);
  begin_ += frame_header_size + header->body_length;
  return View{*header, body};
}

bool write_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool read_all(int socket, char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(socket, bytes, size, 0);
    if (got <= 0) return false;
    bytes += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

void* shared_memory(std::size_t size) {
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  LOCKSTEP_CHECK(at != MAP_FAILED);
  return at;
}

}  // namespace lockstep::bench
