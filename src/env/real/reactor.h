#pragma once

// The one event loop of a process: sockets, timers, signals, completions of other threads. Asio inside, not in the
// header. Everything but post() is called on the thread that runs it.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

#include "base/units.h"

namespace boost::asio {
class io_context;
}

namespace lockstep::real {

class Reactor {
 public:
  Reactor();
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  /// Monotonic; for deadlines and durations.
  static Nanos now();
  /// For people and records.
  static WallTime wall();

  /// Runs `work` on the reactor's thread, soon. Any thread.
  void post(std::function<void()> work);

  /// One timer per name; arming again moves it. A deadline in the past fires at once.
  void arm(const std::string& name, Nanos deadline, std::function<void()> fired);
  void disarm(const std::string& name);

  /// Calls back whenever `fd` is readable, until unwatched. The descriptor stays the caller's: unwatch, then close.
  using WatchId = std::uint64_t;
  WatchId watch_readable(int fd, std::function<void()> ready);
  /// Calls back once, when `fd` is writable.
  WatchId wait_writable(int fd, std::function<void()> ready);
  void unwatch(WatchId id);

  void on_signals(std::initializer_list<int> signals, std::function<void(int)> arrived);

  /// Until stop().
  void run();
  void stop();

  boost::asio::io_context& context();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::real
