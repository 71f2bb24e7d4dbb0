#include "runtime/loop.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

/// Takes numbers: a positive one is committed and said, 0 is only said; then it settles `rounds` more decisions.
struct Counter {
  struct Input {
    int number = 0;
    int rounds = 0;
  };
  struct Effect {
    std::string what;
  };

  std::vector<std::uint64_t> applied;  // the rev of each commit, in order
  int left = 0;
  std::size_t seen_by_settle = 0;  // how many commits the last settle saw

  static Plan<Effect> decide(std::string what, bool durable) {
    Plan<Effect> plan;
    plan.effect(what);
    if (durable) {
      plan.commit.emplace();
      plan.commit->changes.push_back({"numbers", what, RawJson{"1"}});
    }
    return plan;
  }
  Plan<Effect> step(const Input& input) {
    left = input.rounds;
    return decide(cat("said ", input.number), input.number > 0);
  }
  Plan<Effect> settle(const Input&) {
    seen_by_settle = applied.size();
    if (left == 0) return {};
    return decide(cat("settled ", left--), true);
  }
  void apply(const Commit& commit) { applied.push_back(commit.rev.value); }
};

template <class L>
std::vector<std::string> released(L& loop) {
  std::vector<std::string> out;
  while (const auto effect = loop.next_effect()) out.push_back(effect->what);
  return out;
}

TEST(Loop, an_effect_waits_until_its_commit_is_durable) {
  Counter machine;
  Loop loop(machine, Lsn{10});
  loop.input({.number = 1});
  EXPECT_EQ(machine.applied, std::vector<std::uint64_t>{11});  // memory changes at once
  EXPECT_TRUE(released(loop).empty());
  const std::vector<Record> batch = loop.take_batch();
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].lsn, Lsn{11});
  EXPECT_EQ(decode_commit(batch[0].body)->rev, Rev{11});
  EXPECT_TRUE(released(loop).empty());  // handed to the disk is not durable
  loop.durable(Lsn{11});
  EXPECT_EQ(released(loop), std::vector<std::string>{"said 1"});
}

TEST(Loop, an_effect_without_a_commit_waits_for_the_commits_before_it) {
  Counter machine;
  Loop loop(machine, Lsn{});
  loop.input({.number = 0});
  EXPECT_EQ(released(loop), std::vector<std::string>{"said 0"});  // nothing pending: at once
  loop.input({.number = 1});
  loop.input({.number = 0});
  EXPECT_TRUE(released(loop).empty());
  loop.durable(Lsn{1});
  EXPECT_EQ(released(loop), (std::vector<std::string>{"said 1", "said 0"}));
}

TEST(Loop, durability_of_one_commit_releases_nothing_of_the_next) {
  Counter machine;
  Loop loop(machine, Lsn{});
  loop.input({.number = 1});
  loop.input({.number = 2});
  loop.durable(Lsn{1});
  EXPECT_EQ(released(loop), std::vector<std::string>{"said 1"});
  loop.durable(Lsn{2});
  EXPECT_EQ(released(loop), std::vector<std::string>{"said 2"});
}

TEST(Loop, it_settles_until_nothing_more_is_decided_and_each_round_sees_the_one_before) {
  Counter machine;
  Loop loop(machine, Lsn{});
  loop.input({.number = 1, .rounds = 3});
  EXPECT_EQ(machine.applied, (std::vector<std::uint64_t>{1, 2, 3, 4}));
  EXPECT_EQ(machine.seen_by_settle, 4u);
  EXPECT_EQ(loop.applied(), Lsn{4});
  EXPECT_EQ(loop.durable(), Lsn{});
  const std::vector<Record> batch = loop.take_batch();
  ASSERT_EQ(batch.size(), 4u);
  for (std::size_t i = 0; i < batch.size(); ++i) EXPECT_EQ(batch[i].lsn, Lsn{i + 1});
  EXPECT_EQ(loop.pending(), 0u);
  loop.durable(Lsn{4});
  EXPECT_EQ(released(loop), (std::vector<std::string>{"said 1", "settled 3", "settled 2", "settled 1"}));
}

TEST(Loop, a_batch_is_handed_out_once) {
  Counter machine;
  Loop loop(machine, Lsn{});
  loop.input({.number = 1});
  EXPECT_EQ(loop.take_batch().size(), 1u);
  EXPECT_EQ(loop.take_batch().size(), 0u);
  loop.input({.number = 2});
  const std::vector<Record> batch = loop.take_batch();
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].lsn, Lsn{2});
}

}  // namespace
}  // namespace lockstep
