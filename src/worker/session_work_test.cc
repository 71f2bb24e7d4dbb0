#include "worker/session_work.h"

#include <gtest/gtest.h>

namespace lockstep::worker {
namespace {

ProcessingSessionCreated told(std::uint32_t expected) {
  ProcessingSessionCreated message;
  message.session_id = "ses_1";
  message.expected_operations = expected;
  return message;
}

SessionControlCommand command(SessionCommand word) { return {"ses_1", word, "", std::nullopt}; }

SessionProgressUpdate report(const SessionWork& work, std::int64_t now_ms) {
  return work.report("ses_1", WallTime{now_ms}, 1_GiB, Percent{50}).value_or(SessionProgressUpdate{});
}

TEST(SessionWork, the_estimate_comes_from_what_was_done) {
  SessionWork work;
  work.created(told(4), WallTime{0});
  EXPECT_EQ(report(work, 5000).progress_metrics.estimated_completion, Timestamp::of(WallTime{5000}));
  work.done("ses_1", 1);
  const SessionProgress progress = report(work, 1000).progress_metrics;
  EXPECT_EQ(progress.operations_completed, 1u);
  EXPECT_EQ(progress.operations_remaining, 3u);
  EXPECT_EQ(progress.estimated_completion, Timestamp::of(WallTime{4000}));
}

TEST(SessionWork, more_than_was_expected_leaves_nothing_and_not_a_huge_remainder) {
  SessionWork work;
  work.created(told(1), WallTime{0});
  work.done("ses_1", 3);
  EXPECT_EQ(report(work, 1).progress_metrics.operations_remaining, 0u);
}

TEST(SessionWork, a_session_that_is_told_again_goes_on_counting) {
  SessionWork work;
  work.created(told(4), WallTime{0});
  work.done("ses_1", 2);
  work.created(told(4), WallTime{9});
  EXPECT_EQ(report(work, 10).progress_metrics.operations_completed, 2u);
}

TEST(SessionWork, it_says_what_runs_and_that_it_is_paused) {
  SessionWork work;
  work.created(told(4), WallTime{0});
  EXPECT_EQ(report(work, 0).current_operation, "idle");
  work.running("ses_1", "inference_execution");
  EXPECT_TRUE(work.command(command(SessionCommand::pause_operations)));
  EXPECT_EQ(report(work, 0).current_operation, "inference_execution");  // it finishes
  work.done("ses_1", 1);
  EXPECT_EQ(report(work, 0).current_operation, "paused");
  EXPECT_TRUE(work.command(command(SessionCommand::resume_operations)));
  EXPECT_EQ(report(work, 0).current_operation, "idle");
}

TEST(SessionWork, a_session_that_ended_or_was_never_told_is_not_reported) {
  SessionWork work;
  EXPECT_FALSE(work.command(command(SessionCommand::pause_operations)));
  work.created(told(4), WallTime{0});
  EXPECT_TRUE(work.command(command(SessionCommand::cancel_operations)));
  EXPECT_FALSE(work.report("ses_1", WallTime{}, {}, {}).has_value());
  work.done("ses_1", 1);  // its last answer
  EXPECT_FALSE(work.report("ses_1", WallTime{}, {}, {}).has_value());
}

}  // namespace
}  // namespace lockstep::worker
