#pragma once

// A bounded pool for slow work: filling segments, hashing, image files. What it finishes comes back through
// Reactor::post, so the core's thread is the only one that sees results.

#include <functional>
#include <memory>

namespace lockstep::real {

class Pool {
 public:
  explicit Pool(std::size_t threads);
  /// Waits for running work.
  ~Pool();
  void run(std::function<void()> work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::real
