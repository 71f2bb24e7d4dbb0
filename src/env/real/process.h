#pragma once

// Child processes: started with an inherited link, watched through their process handle (pidfd), and proven gone by
// a lock that only a living process can hold.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/real/fd.h"

namespace lockstep::real {

struct SpawnRequest {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // "NAME=value", beside the parent's
  Fd link;                               // becomes descriptor 3
  Fd lock;                               // becomes descriptor 4, locked; held for as long as the process lives
  std::array<Fd, 2> life_lines;          // become descriptors 5 and 6: pipes that break when the process begins to end
  std::string log_path;                  // stdout and stderr are appended there
  bool dies_with_us = true;              // by the kernel's parent-death signal; a worker that can rejoin does not
};

struct Child {
  std::int64_t pid = 0;
  std::uint64_t start_ticks = 0;
  Fd handle;  // pidfd: readable when the process has ended
};

/// The child inherits no other descriptor.
Result<Child> spawn(SpawnRequest request);

/// A handle of a process that is not our child: its end is seen and it can be killed, not reaped. not_found when it is
/// gone or `start_ticks` says that the pid was used again.
Result<Child> adopt(std::int64_t pid, std::uint64_t start_ticks);

/// Collects an ended child: "exit status 1" or "signal 9 (Killed)".
std::string reap(const Child& child);

/// SIGKILL through the handle; a no-op when it has ended.
void kill_child(const Child& child);

/// When the process was started, in clock ticks since boot; 0 when there is no such process. Tells a reused pid apart.
std::uint64_t start_ticks_of(std::int64_t pid);

/// The lock of a worker's life. Empty Fd when another living process holds it; unavailable when the file cannot be
/// opened.
Result<Fd> try_lock(const std::string& path);

/// The last `lines` lines of a log file, for the report of a death.
std::string tail_of(const std::string& path, std::size_t lines);

}  // namespace lockstep::real
