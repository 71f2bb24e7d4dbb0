#pragma once

// `lockstep bench NAME`: measures ours beside its floor in one run. Prints one object (design §8).

#include <memory>
#include <optional>

namespace CLI {
class App;
}

namespace lockstep::bench {

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

}  // namespace lockstep::bench
