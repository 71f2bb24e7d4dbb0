#include "base/histogram.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(Histogram, a_value_counts_in_the_first_bucket_that_holds_it) {
  static constexpr std::array<Nanos, 2> bounds{10, 20};
  Histogram histogram(bounds);
  for (const Nanos value : {0, 10, 11, 20, 21, 1000}) histogram.observe(value);
  EXPECT_EQ(histogram.counts(), (std::vector<std::uint64_t>{2, 2, 2}));
  EXPECT_EQ(histogram.count(), 6u);
  EXPECT_EQ(histogram.sum(), 1062);
}

TEST(Histogram, bounds_rise) {
  for (std::size_t i = 1; i < work_bounds.size(); ++i) EXPECT_LT(work_bounds[i - 1], work_bounds[i]);
  for (std::size_t i = 1; i < sync_bounds.size(); ++i) EXPECT_LT(sync_bounds[i - 1], sync_bounds[i]);
}

}  // namespace
}  // namespace lockstep
