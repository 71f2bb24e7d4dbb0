#pragma once

// The programs of others that a benchmark runs: found where they are installed, run to their end or beside it, and
// stopped afterwards.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/result.h"

namespace lockstep::bench {

/// Where programs are looked for: in the one folder that is named, or in PATH, where systems put servers, and beside
/// us.
class Programs {
 public:
  explicit Programs(const std::string& only_folder = "");
  /// Its whole path; empty when it is not installed.
  std::string find(std::string_view name) const;

 private:
  std::vector<std::string> folders_;
};

/// cpu   the processor it runs on; -1: any
/// user  who it runs as, where that is another one than ours
/// log   the file that gets what it says; empty: nowhere
struct Launch {
  int cpu = -1;
  std::string user;
  std::string log;
};

/// What it wrote to its standard output; unavailable, with its last words, when it did not end with status 0.
Result<std::string> output_of(const std::vector<std::string>& command, const Launch& launch);

/// A program that runs beside the benchmark, and ends with it at the latest.
class Running {
 public:
  Running() = default;
  Running(std::vector<std::string> command, const Launch& launch, int stop_signal);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  Running(Running&& other) noexcept;
  Running& operator=(Running&& other) noexcept;

  /// False once it has ended by itself.
  bool alive();
  void stop();

 private:
  pid_t process_ = -1;
  int stop_signal_ = 0;
};

/// Asks until it is there: deadline_exceeded after 30 s, unavailable when it ended before; both name it and its last
/// words in the log.
Status wait_until(const std::function<bool()>& ask, Running& program, std::string_view name, const std::string& log);

/// A TCP port that was free a moment ago.
std::uint16_t free_port();
/// Connected over the loopback, nothing held back for a fuller packet; -1 when nobody listens.
int connect_loopback(std::uint16_t port);

/// The last line of a file that says anything.
std::string last_words(const std::string& file);

/// Of a peer that did not start: one that is not installed (not_found) is left out, with a line for people; any other
/// failure ends the benchmark.
Status left_out(std::string_view peer, const Error& why);

}  // namespace lockstep::bench
