#pragma once

// `lockstep sim`: runs seeds of the simulator from the command line.

#include <memory>
#include <optional>

namespace CLI {
class App;
}

namespace lockstep::sim {

class Command {
 public:
  explicit Command(CLI::App& app);
  ~Command();
  /// The exit status when this command was chosen.
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::sim
