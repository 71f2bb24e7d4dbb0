#include "env/real/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/text.h"

extern char** environ;

namespace lockstep::real {

namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// P_PIDFD came with glibc 2.36 headers; the kernel has it since 5.4.
constexpr auto by_pidfd = static_cast<idtype_t>(3);

}  // namespace

Result<Child> spawn(SpawnRequest request) {
  std::vector<std::string> environment;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string_view variable(*each);
    const bool replaced = std::ranges::any_of(request.environment, [&](const std::string& ours) {
      return variable.starts_with(std::string_view(ours).substr(0, ours.find('=') + 1));
    });
    if (!replaced) environment.emplace_back(variable);
  }
  environment.insert(environment.end(), request.environment.begin(), request.environment.end());
  const std::vector<char*> argv = pointers(request.command);
  const std::vector<char*> envp = pointers(environment);
  const Fd log(::open(request.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log) {
    return fail(ErrorCode::unavailable, cat("cannot write the log ", request.log_path, ": ", std::strerror(errno)));
  }
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  int failure[2];
  if (::pipe2(failure, O_CLOEXEC) != 0) return fail(ErrorCode::unavailable, "cannot make a pipe");
  const Fd failure_read(failure[0]);
  Fd failure_write(failure[1]);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto descriptors_end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
  const pid_t parent = ::getpid();
  const bool dies_with_us = request.dies_with_us;
  const int link = request.link.get();
  const int lock = request.lock.get();
  const std::array<int, 2> lives{request.life_lines[0].get(), request.life_lines[1].get()};

  const pid_t pid = ::fork();
  if (pid < 0) return fail(ErrorCode::unavailable, cat("cannot fork: ", std::strerror(errno)));
  if (pid == 0) {
    // Only async-signal-safe calls between fork and exec.
    if (dies_with_us) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
    ::setpgid(0, 0);                          // Ctrl-C on the terminal is for the orchestrator, which then drains
    // Above the targets first, so that no dup2 overwrites a source.
    const int high_link = ::fcntl(link, F_DUPFD_CLOEXEC, 100);
    const int high_lock = ::fcntl(lock, F_DUPFD_CLOEXEC, 100);
    const int high_life[2] = {::fcntl(lives[0], F_DUPFD_CLOEXEC, 100), ::fcntl(lives[1], F_DUPFD_CLOEXEC, 100)};
    // A socket that was accepted is inherited until its handler has marked it, and libraries do not mark theirs: the
    // child would hold a stranger's connection open for as long as it lives.
    if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
      for (int fd = 3; fd < descriptors_end; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    ::dup2(null.get(), 0);
    ::dup2(log.get(), 1);
    ::dup2(log.get(), 2);
    ::dup2(high_link, 3);
    ::dup2(high_lock, 4);
    ::dup2(high_life[0], 5);
    ::dup2(high_life[1], 6);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    ::execvpe(argv[0], argv.data(), envp.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t told = ::write(failure[1], &error, sizeof error);
    ::_exit(127);
  }
  failure_write.reset();
  int error = 0;
  if (::read(failure_read.get(), &error, sizeof error) == sizeof error) {
    ::waitpid(pid, nullptr, 0);
    return fail(ErrorCode::unavailable, cat("cannot run ", request.command.front(), ": ", std::strerror(error)));
  }
  Child child;
  child.pid = pid;
  child.start_ticks = start_ticks_of(pid);
  child.handle = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!child.handle) {
    const std::string why = std::strerror(errno);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail(ErrorCode::unavailable, cat("this kernel gives no process handles (pidfd_open): ", why));
  }
  ::fcntl(child.handle.get(), F_SETFD, FD_CLOEXEC);
  return child;
}

Result<Child> adopt(std::int64_t pid, std::uint64_t start_ticks) {
  Child child;
  child.pid = pid;
  child.start_ticks = start_ticks;
  child.handle = Fd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
  // Looked at after the handle was opened: from here on the handle means this process, whatever the pid comes to mean.
  if (!child.handle || start_ticks_of(pid) != start_ticks) {
    return fail(ErrorCode::not_found, cat("process ", pid, " is gone"));
  }
  ::fcntl(child.handle.get(), F_SETFD, FD_CLOEXEC);
  return child;
}

std::string reap(const Child& child) {
  siginfo_t info{};
  if (::waitid(by_pidfd, static_cast<id_t>(child.handle.get()), &info, WEXITED) != 0) return "its process ended";
  if (info.si_code == CLD_EXITED) return cat("exit status ", info.si_status);
  return cat("signal ", info.si_status, " (", ::strsignal(info.si_status), ")");
}

void kill_child(const Child& child) { ::syscall(SYS_pidfd_send_signal, child.handle.get(), SIGKILL, nullptr, 0); }

std::uint64_t start_ticks_of(std::int64_t pid) {
  std::ifstream file(cat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');  // the name may hold spaces and brackets
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22 && fields >> field; ++i) {
  }
  return std::strtoull(field.c_str(), nullptr, 10);
}

Result<Fd> try_lock(const std::string& path) {
  Fd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return fail(ErrorCode::unavailable, cat("cannot open ", path, ": ", std::strerror(errno)));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return Fd();
  return lock;
}

std::string tail_of(const std::string& path, std::size_t lines) {
  std::ifstream file(path);
  file.seekg(0, std::ios::end);
  const std::streamoff size = file.tellg();
  constexpr std::streamoff window = 8192;
  file.seekg(std::max<std::streamoff>(0, size - window));
  std::vector<std::string> all;
  std::string line;
  while (std::getline(file, line)) all.push_back(line);
  std::string out;
  for (std::size_t i = all.size() > lines ? all.size() - lines : 0; i < all.size(); ++i)
    out += cat("    ", all[i], "\n");
  return out;
}

}  // namespace lockstep::real
