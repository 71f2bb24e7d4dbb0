#include "bench/wire.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace lockstep::bench {
namespace {

TEST(BenchProcesses, all_that_end_well_are_waited_for) {
  const Pair pair = socket_pair();
  const pid_t late = in_process(-1, [&] {
    char byte = 0;
    if (::read(pair.a, &byte, 1) != 1) ::_exit(1);
  });
  const pid_t early = in_process(-1, [&] {
    if (::write(pair.b, "x", 1) != 1) ::_exit(1);
  });
  EXPECT_TRUE(wait_for_all({late, early}));
  ::close(pair.a);
  ::close(pair.b);
}

// Nobody writes any more: without the kill the first one would be waited for until the whole benchmark is ended by
// hand.
TEST(BenchProcesses, one_that_fails_ends_those_that_wait_for_it) {
  const Pair pair = socket_pair();
  const auto waits = [&] {
    char byte = 0;
    if (::read(pair.a, &byte, 1) != 1) ::_exit(1);
  };
  const pid_t first = in_process(-1, waits);
  const pid_t fails = in_process(-1, [] { ::_exit(1); });
  const pid_t last = in_process(-1, waits);
  EXPECT_FALSE(wait_for_all({first, fails, last}));
  EXPECT_FALSE(wait_for_all({in_process(-1, waits), -1})) << "one that could not begin";
  ::close(pair.a);
  ::close(pair.b);
}

}  // namespace
}  // namespace lockstep::bench
