#include "env/real/reactor.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::real {
namespace {

// Deadlines lie in the past, so that nothing waits; their order is what counts.
TEST(Reactor, timers_fire_in_the_order_of_their_deadlines) {
  Reactor reactor;
  std::vector<std::string> fired;
  const Nanos now = Reactor::now();
  const auto arm = [&](const std::string& name, Nanos deadline) {
    reactor.arm(name, deadline, [&fired, &reactor, name] {
      fired.push_back(name);
      if (fired.size() == 3) reactor.stop();
    });
  };
  arm("third", now - 1);
  arm("first", now - 3);
  arm("second", now - 2);
  reactor.run();
  EXPECT_EQ(fired, (std::vector<std::string>{"first", "second", "third"}));
}

TEST(Reactor, arming_again_moves_and_disarming_ends_a_timer) {
  Reactor reactor;
  std::vector<std::string> fired;
  const Nanos now = Reactor::now();
  reactor.arm("moved", now - 3, [&] { fired.push_back("before"); });
  reactor.arm("gone", now - 3, [&] { fired.push_back("gone"); });
  reactor.arm("moved", now - 1, [&] {
    fired.push_back("after");
    reactor.stop();
  });
  reactor.disarm("gone");
  reactor.disarm("never");
  reactor.run();
  EXPECT_EQ(fired, std::vector<std::string>{"after"});
}

TEST(Reactor, a_timer_may_arm_itself_again) {
  Reactor reactor;
  int fired = 0;
  std::function<void()> again = [&] {
    if (++fired == 3) return reactor.stop();
    reactor.arm("tick", Reactor::now() - 1, again);
  };
  reactor.arm("tick", Reactor::now() - 1, again);
  reactor.run();
  EXPECT_EQ(fired, 3);
}

TEST(Reactor, work_of_another_thread_runs_on_the_reactors) {
  Reactor reactor;
  std::thread::id ran_on;
  std::thread other([&] {
    reactor.post([&] {
      ran_on = std::this_thread::get_id();
      reactor.stop();
    });
  });
  reactor.run();
  other.join();
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

}  // namespace
}  // namespace lockstep::real
