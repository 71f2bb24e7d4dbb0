#include "env/real/reactor.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <utility>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/check.h"

namespace lockstep::real {

namespace asio = boost::asio;

namespace {

/// A watched descriptor, on a duplicate of its own: epoll knows a descriptor once, and a link is watched for reading
/// and for writing at the same time.
struct Watch {
  asio::posix::stream_descriptor descriptor;
  std::function<void()> ready;
  bool once;
  bool stopped = false;
};

void wait(const std::shared_ptr<Watch>& watch) {
  const auto kind =
      watch->once ? asio::posix::stream_descriptor::wait_write : asio::posix::stream_descriptor::wait_read;
  watch->descriptor.async_wait(kind, [watch](const boost::system::error_code& error) {
    if (error || watch->stopped) return;
    watch->ready();
    if (!watch->once && !watch->stopped) wait(watch);
  });
}

}  // namespace

struct Reactor::State {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  std::map<std::string, std::shared_ptr<asio::steady_timer>> timers;
  std::map<WatchId, std::shared_ptr<Watch>> watches;
  std::vector<std::shared_ptr<asio::signal_set>> signals;
  WatchId watches_made = 0;

  WatchId add(int fd, std::function<void()> ready, bool once) {
    const WatchId id = ++watches_made;
    auto watch = std::make_shared<Watch>(asio::posix::stream_descriptor(context, ::fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                                         std::move(ready), once);
    watches.emplace(id, watch);
    wait(watch);
    return id;
  }
};

Reactor::Reactor() : state_(std::make_unique<State>()) {}
Reactor::~Reactor() = default;

Nanos Reactor::now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

WallTime Reactor::wall() {
  return {std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
              .count()};
}

void Reactor::post(std::function<void()> work) { asio::post(state_->context, std::move(work)); }

void Reactor::arm(const std::string& name, Nanos deadline, std::function<void()> fired) {
  auto& timer = state_->timers[name];
  if (timer) timer->cancel();
  timer = std::make_shared<asio::steady_timer>(
      state_->context, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(deadline)));
  timer->async_wait([this, name, mine = timer, fired = std::move(fired)](const boost::system::error_code& error) {
    const auto place = state_->timers.find(name);
    if (error || place == state_->timers.end() || place->second != mine) return;  // moved or disarmed meanwhile
    state_->timers.erase(place);
    fired();
  });
}

void Reactor::disarm(const std::string& name) {
  const auto place = state_->timers.find(name);
  if (place == state_->timers.end()) return;
  place->second->cancel();
  state_->timers.erase(place);
}

Reactor::WatchId Reactor::watch_readable(int fd, std::function<void()> ready) {
  return state_->add(fd, std::move(ready), false);
}

Reactor::WatchId Reactor::wait_writable(int fd, std::function<void()> ready) {
  return state_->add(fd, std::move(ready), true);
}

void Reactor::unwatch(WatchId id) {
  const auto place = state_->watches.find(id);
  if (place == state_->watches.end()) return;
  place->second->stopped = true;
  place->second->descriptor.close();
  state_->watches.erase(place);
}

void Reactor::on_signals(std::initializer_list<int> signals, std::function<void(int)> arrived) {
  auto set = std::make_shared<asio::signal_set>(state_->context);
  for (const int signal : signals) set->add(signal);
  state_->signals.push_back(set);
  // Rearmed after each signal: asking twice means now.
  auto again = std::make_shared<std::function<void()>>();
  *again = [set, arrived = std::move(arrived), weak = std::weak_ptr(again)] {
    set->async_wait([arrived, next = weak.lock()](const boost::system::error_code& error, int signal) {
      if (error) return;
      arrived(signal);
      if (next) (*next)();
    });
  };
  (*again)();
}

void Reactor::run() {
  state_->context.run();
  state_->context.restart();  // it may be run again
}
void Reactor::stop() { state_->context.stop(); }
asio::io_context& Reactor::context() { return state_->context; }

}  // namespace lockstep::real
