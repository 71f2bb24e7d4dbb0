#include "base/transition_table.h"

#include <gtest/gtest.h>

#include "base/error_table.h"

namespace lockstep {
namespace {

enum class Door { open, closed, locked };
enum class Push { open, close, lock };

constexpr auto door = transition_table<Door, Push>({
    {Door::open, Push::close, Door::closed},
    {Door::closed, Push::open, Door::open},
    {Door::closed, Push::lock, Door::locked},
    {Door::locked, Push::lock, Door::locked},
});
constexpr auto undecided = transition_table<Door, Push>({
    {Door::open, Push::close, Door::closed},
    {Door::closed, Push::open, Door::open},
    {Door::open, Push::close, Door::locked},
});

TEST(TransitionTable, a_row_moves_and_an_absent_pair_does_not) {
  EXPECT_EQ(door.next(Door::open, Push::close), Door::closed);
  EXPECT_EQ(door.next(Door::locked, Push::lock), Door::locked);
  EXPECT_EQ(door.next(Door::locked, Push::open), std::nullopt);
  EXPECT_EQ(door.next(Door::open, Push::lock), std::nullopt);
}

TEST(TransitionTable, two_rows_for_one_pair_are_noticed) {
  EXPECT_TRUE(door.deterministic());
  EXPECT_FALSE(undecided.deterministic());
}

TEST(ErrorTable, names_go_both_ways_and_an_unknown_one_is_internal) {
#define LOCKSTEP_X(code, status, retry, sentence) \
  EXPECT_EQ(error_code_named(error_facts(ErrorCode::code).name), ErrorCode::code);
  LOCKSTEP_ERROR_CODES(LOCKSTEP_X)
#undef LOCKSTEP_X
  EXPECT_EQ(error_code_named("from_the_future"), ErrorCode::internal);
}

}  // namespace
}  // namespace lockstep
