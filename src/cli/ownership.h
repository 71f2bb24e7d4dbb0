#pragma once

// `lockstep ownership [--json]`: which side writes which fact, how it crosses, and the critical sync points, from the
// tables that the core enforces. Without a server.

#include <memory>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace lockstep::cli {

/// Lines for people, or one object with "facts", "events" and "sync_points".
std::string ownership_text(bool json);

class Ownership {
 public:
  explicit Ownership(CLI::App& app);
  ~Ownership();
  /// The exit status when it was chosen.
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::cli
