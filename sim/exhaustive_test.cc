#include "sim/exhaustive.h"

#include <gtest/gtest.h>

#include "sim/script.h"

namespace lockstep::sim {
namespace {

TEST(Exhaustive, a_crash_is_written_as_it_is_read) {
  const auto crashes = crashes_of("orchestrator:17,power:4,worker_1:1");
  ASSERT_TRUE(crashes.has_value());
  EXPECT_EQ(*crashes, (std::vector<Crash>{{"orchestrator", 17}, {"power", 4}, {"worker_1", 1}}));
  EXPECT_EQ(text_of(*crashes), "orchestrator:17,power:4,worker_1:1");
  for (const char* wrong : {"orchestrator", "orchestrator:", "orchestrator:0", "power:4x", "nobody:1", ":1"}) {
    EXPECT_FALSE(crashes_of(wrong).has_value()) << wrong;
  }
}

TEST(Exhaustive, every_script_does_its_work_when_nothing_ends) {
  for (const Script& each : scripts()) {
    const Report report = run(options_of(std::string(each.name), 1, {}));
    EXPECT_TRUE(report.violations.empty()) << each.name << ": " << report.violations.front();
    EXPECT_GE(each.acts.size(), 1u);
    EXPECT_LE(each.acts.size(), 3u);
    for (const char* where : {"orchestrator", "power", "kept", "lost", "worker_0", "worker_1", "cut", "delayed"}) {
      EXPECT_GT(report.points.at(where), 10u) << each.name << " " << where;
    }
  }
  EXPECT_EQ(run(options_of("load", 1, {})).loads, 1u);
  EXPECT_EQ(run(options_of("change", 1, {})).loads, 2u);
  EXPECT_EQ(run(options_of("undone", 1, {})).loads, 1u);
  EXPECT_EQ(run(options_of("late", 1, {})).aborted, 1u);
  const Report refused = run(options_of("refused", 1, {}));
  EXPECT_GE(refused.aborted, 1u);
  EXPECT_EQ(refused.loads, 0u);
  EXPECT_EQ(run(options_of("generate", 1, {})).completed, 1u);
  EXPECT_EQ(run(options_of("again", 1, {})).completed, 1u);
  EXPECT_EQ(run(options_of("gate", 1, {})).failed, 1u);
  EXPECT_EQ(run(options_of("cancel", 1, {})).failed, 1u);
}

TEST(Exhaustive, a_message_that_is_lost_or_late_is_a_place_of_its_own) {
  for (const char* where : {"cut", "delayed"}) {
    const Options options = options_of("load", 1, {{where, 20}});
    const Report report = run(options);
    EXPECT_TRUE(report.violations.empty()) << report.violations.front();
    EXPECT_EQ(report.crashed, 1u);
    EXPECT_NE(report.trace_hash, run(options_of("load", 1, {})).trace_hash);
  }
  ExhaustiveOptions options;
  options.scripts = {"change"};
  options.depth = 1;
  options.every = 1000;
  const ExhaustiveReport two = exhaust(options);
  EXPECT_FALSE(two.scripts[0].points.contains("cut")) << "of one operation only";
  EXPECT_TRUE(two.scripts[0].points.contains("power"));
}

TEST(Exhaustive, the_same_ends_are_the_same_run) {
  const Options options = options_of("generate", 1, {{"orchestrator", 40}, {"power", 7}});
  const Report first = run(options);
  const Report second = run(options);
  EXPECT_TRUE(first.violations.empty()) << first.violations.front();
  EXPECT_EQ(first.crashed, 2u);
  EXPECT_EQ(first.trace_hash, second.trace_hash);
  EXPECT_NE(first.trace_hash, run(options_of("generate", 1, {{"orchestrator", 40}})).trace_hash);
}

TEST(Exhaustive, each_point_of_a_script_is_tried_and_the_recovery_too) {
  ExhaustiveOptions options;
  options.scripts = {"load"};
  options.depth = 1;
  const ExhaustiveReport all = exhaust(options);
  ASSERT_EQ(all.scripts.size(), 1u);
  std::uint64_t points = 0;
  for (const auto& [where, count] : all.scripts[0].points) points += count;
  EXPECT_TRUE(all.whole);
  EXPECT_EQ(all.runs, points + 1);
  EXPECT_TRUE(all.violations.empty()) << all.violations[0].what;

  options.every = 7;
  const ExhaustiveReport seventh = exhaust(options);
  points = 0;
  for (const auto& [where, count] : all.scripts[0].points) points += (count + 6) / 7;
  EXPECT_EQ(seventh.runs, points + 1) << "each place keeps its first point";
  options.every = 1;

  options.parts = 3;
  std::uint64_t together = 0;
  for (options.part = 1; options.part <= 3; ++options.part) together += exhaust(options).runs - 1;
  EXPECT_EQ(together, all.runs - 1) << "and each its own peaceful run";
  options.part = options.parts = 1;

  int left = static_cast<int>(all.runs) + 60;
  options.depth = 2;
  options.go_on = [&left] { return --left > 0; };
  const ExhaustiveReport some = exhaust(options);
  EXPECT_FALSE(some.whole);
  EXPECT_GT(some.scripts[0].pairs, 30u);
  EXPECT_TRUE(some.violations.empty()) << some.violations[0].what;
}

}  // namespace
}  // namespace lockstep::sim
