#include "orchestrator/on_memory.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

// §3.8: what a worker's allocator may count when a load that failed has left nothing there.

TEST(ReleasedAtMost, a_load_that_left_everything_never_fits_beside_the_models) {
  for (const Bytes load : {Bytes{2}, 10_MiB, 256_MiB, 8_GiB}) {
    for (const Bytes beyond : {Bytes{}, 100_MiB, 255_MiB}) {
      const QuietSample before{2_GiB + beyond, 2_GiB};
      EXPECT_LT(released_at_most(2_GiB, load, before), 2_GiB + beyond + load);
      EXPECT_LT(released_at_most(3_GiB, load, before), 3_GiB + beyond + load) << "another model came";
      EXPECT_LT(released_at_most(1_GiB, load, before), 1_GiB + beyond + load) << "a model went";
    }
  }
}

TEST(ReleasedAtMost, what_the_worker_held_before_it_may_still_hold) {
  EXPECT_EQ(released_at_most(2_GiB, 100_MiB, QuietSample{2_GiB + 100_MiB, 2_GiB}), 2_GiB + 150_MiB);
  EXPECT_EQ(released_at_most(3_GiB, 100_MiB, QuietSample{2_GiB + 100_MiB, 2_GiB}), 3_GiB + 150_MiB);
}

TEST(ReleasedAtMost, no_worker_may_hold_more_beside_its_models_than_is_tolerated_of_all) {
  EXPECT_EQ(released_at_most(2_GiB, 8_GiB, std::nullopt), 2_GiB + leak_tolerance);
  EXPECT_EQ(released_at_most(2_GiB, 8_GiB, QuietSample{4_GiB, 2_GiB}), 2_GiB + leak_tolerance);
  EXPECT_EQ(released_at_most(3_GiB, 8_GiB, QuietSample{4_GiB, 2_GiB}), 3_GiB + leak_tolerance);
}

// Rows that say more than a model really takes must not hide a load beside it, nor be missed when the model is gone.
TEST(ReleasedAtMost, models_that_take_less_than_their_rows_hide_nothing) {
  const QuietSample before{2_GiB - 200_MiB, 2_GiB};
  EXPECT_EQ(released_at_most(2_GiB, 100_MiB, before), 2_GiB - 150_MiB);
  EXPECT_EQ(released_at_most(Bytes{}, 100_MiB, before), 50_MiB);
}

}  // namespace
}  // namespace lockstep
