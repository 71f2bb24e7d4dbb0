#include "liveness/breaker.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

constexpr BreakerPolicy policy{.deaths_max = 3, .window = seconds(100), .trial_after = seconds(50)};

TEST(Breaker, opens_at_the_last_death_that_is_allowed_within_the_window) {
  Breaker breaker;
  EXPECT_FALSE(breaker.died(seconds(0), policy));
  EXPECT_FALSE(breaker.died(seconds(60), policy));
  EXPECT_FALSE(breaker.open());
  EXPECT_TRUE(breaker.died(seconds(100), policy));
  EXPECT_TRUE(breaker.open());
  EXPECT_EQ(breaker.deaths(), 3u);
}

TEST(Breaker, deaths_that_are_far_apart_never_open_it) {
  Breaker breaker;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(breaker.died(seconds(51) * i, policy)) << i;
  EXPECT_FALSE(breaker.open());
}

TEST(Breaker, becoming_ready_forgets_the_past) {
  Breaker breaker;
  breaker.died(seconds(0), policy);
  breaker.died(seconds(1), policy);
  breaker.reset();
  EXPECT_FALSE(breaker.died(seconds(2), policy));
  EXPECT_FALSE(breaker.died(seconds(3), policy));
  EXPECT_TRUE(breaker.died(seconds(4), policy));
  breaker.reset();
  EXPECT_FALSE(breaker.open());
  EXPECT_EQ(breaker.deaths(), 0u);
}

// Half open: one start after the pause; its death opens for a whole pause more, however long ago the others were.
TEST(Breaker, a_trial_that_dies_costs_one_start_and_a_pause) {
  Breaker breaker;
  for (int i = 0; i < 3; ++i) breaker.died(seconds(i), policy);
  EXPECT_FALSE(breaker.trial_due(seconds(51), policy));
  EXPECT_TRUE(breaker.trial_due(seconds(52), policy));
  EXPECT_TRUE(breaker.died(seconds(1000), policy));
  EXPECT_TRUE(breaker.open());
  EXPECT_FALSE(breaker.trial_due(seconds(1049), policy));
  EXPECT_TRUE(breaker.trial_due(seconds(1050), policy));
}

TEST(Breaker, a_pause_of_zero_waits_for_a_person) {
  BreakerPolicy patient = policy;
  patient.trial_after = 0;
  Breaker breaker;
  for (int i = 0; i < 3; ++i) breaker.died(0, patient);
  EXPECT_FALSE(breaker.trial_due(seconds(1'000'000), patient));
}

TEST(Breaker, a_closed_one_has_no_trial) { EXPECT_FALSE(Breaker().trial_due(seconds(1'000'000), policy)); }

// The window's default holds the slowest failure there is: every start runs into its deadline.
TEST(Breaker, five_starts_that_run_into_their_deadline_fall_into_the_default_window) {
  constexpr BreakerPolicy usual;
  Breaker breaker;
  Nanos now = 0;
  bool opened = false;
  for (std::uint32_t i = 0; i < usual.deaths_max; ++i) {
    now += seconds(120) + milliseconds(4000);  // with the backoff in between
    opened = breaker.died(now, usual);
  }
  EXPECT_TRUE(opened);
}

}  // namespace
}  // namespace lockstep
