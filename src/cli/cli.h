#pragma once

// The client sub-commands. They speak HTTP to a server and hold nothing; whatever they print came from there.
// Exit codes are in cli/exit_code.h.

#include <memory>
#include <optional>

namespace CLI {
class App;
}

namespace lockstep::cli {

/// Adds status, generate, check, models list, workers, sessions, workflows, outputs, policy, requests, cancel and
/// events to a program. After parsing, run() executes the chosen one and returns the exit code; nothing when none of
/// them was chosen.
class Client {
 public:
  explicit Client(CLI::App& app);
  ~Client();
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::cli
