#include "liveness/timing.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

// Design §6: restarts with backoff. A worker that dies at every start must not keep the machine busy with imports.
TEST(RestartBackoff, the_first_death_costs_nothing_and_the_wait_doubles_up_to_its_limit) {
  EXPECT_EQ(restart_backoff(0), 0);
  EXPECT_EQ(restart_backoff(1), 0);
  EXPECT_EQ(restart_backoff(2), milliseconds(500));
  EXPECT_EQ(restart_backoff(3), seconds(1));
  EXPECT_EQ(restart_backoff(4), seconds(2));
  EXPECT_EQ(restart_backoff(1000), seconds(30));
  for (std::uint32_t deaths = 1; deaths < 100; ++deaths)
    EXPECT_LE(restart_backoff(deaths), restart_backoff(deaths + 1));
}

// §3.7: the worker fences itself before the orchestrator gives it up, so that there are never two owners.
TEST(LivenessTiming, silence_freeze_and_heartbeat_leave_room_for_each_other) {
  constexpr LivenessTiming timing;
  EXPECT_GE(timing.silence, 3 * timing.heartbeat);
  EXPECT_GT(timing.silence + timing.freeze, seconds(20));  // worker/machine.h self_fence
}

}  // namespace
}  // namespace lockstep
