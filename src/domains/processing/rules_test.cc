#include "domains/processing/rules.h"

#include <gtest/gtest.h>

namespace lockstep::processing {
namespace {

const WorkerId worker("w0");

Job running(JobStage stage) {
  Job job;
  job.job_id = JobId("req_1/00");
  job.request_id = RequestId("req_1");
  job.stage = stage;
  job.attempt = 4;
  job.worker_id = worker;
  return job;
}

TEST(ProcessingRules, the_third_death_sets_a_job_aside_with_the_last_reason) {
  Job job = running(JobStage::inferring);
  for (std::uint32_t death = 1; death < 3; ++death) {
    job = after_worker_death(job, worker, "signal 9 (Killed)");
    EXPECT_EQ(job.stage, JobStage::queued);
    EXPECT_EQ(job.deaths, death);
    EXPECT_EQ(job.worker_id, WorkerId());
    EXPECT_FALSE(job.failure.has_value());
    job.stage = JobStage::inferring;
  }
  job = after_worker_death(job, worker, "signal 11 (Segmentation fault)");
  EXPECT_EQ(job.stage, JobStage::set_aside);
  ASSERT_TRUE(job.failure.has_value());
  EXPECT_EQ(job.failure->code, "poisonous");
  EXPECT_EQ(job.failure->message,
            "set aside after 3 workers died on it; the last was w0: signal 11 (Segmentation fault)");
}

TEST(ProcessingRules, a_death_in_postprocessing_keeps_the_pixels) {
  EXPECT_EQ(after_worker_death(running(JobStage::postprocessing), worker, "x").stage, JobStage::generated);
}

TEST(ProcessingRules, nothing_leads_out_of_an_end) {
  using E = JobEvent;
  for (const JobStage end : {JobStage::completed, JobStage::failed, JobStage::set_aside}) {
    EXPECT_TRUE(is_terminal(end));
    for (const E event :
         {E::inference_dispatched, E::inference_completed, E::postprocessing_dispatched, E::postprocessing_completed,
          E::verdict_only, E::stored, E::worker_lost, E::pixels_lost, E::failed, E::poisonous}) {
      EXPECT_EQ(job_lifecycle.next(end, event), std::nullopt);
    }
  }
}

TEST(ProcessingRules, a_request_ends_with_its_last_job_and_fails_with_the_first_failure) {
  Tables tables;
  const auto put = [&](const Job& job) {
    ASSERT_TRUE(tables.jobs.apply({"processing.jobs", job.job_id.str(), RawJson{json::to_text(job)}}, Rev{1}));
  };
  Request request;
  request.request_id = RequestId("req_1");
  Job first = running(JobStage::failed);
  first.failure = Failure{"cancelled", "x"};
  Job second = running(JobStage::storing);
  second.job_id = JobId("req_1/01");
  Job stranger = running(JobStage::queued);
  stranger.job_id = JobId("req_10/00");
  stranger.request_id = RequestId("req_10");
  put(first);
  put(second);
  put(stranger);
  EXPECT_EQ(jobs_of(tables, request.request_id).size(), 2u);
  EXPECT_EQ(open_jobs(tables), 2u);
  EXPECT_EQ(settled(tables, request, second, WallTime{5}).state, RequestState::accepted);
  second.stage = JobStage::completed;
  const Request ended = settled(tables, request, second, WallTime{5});
  EXPECT_EQ(ended.state, RequestState::failed);
  EXPECT_EQ(ended.finished, WallTime{5});
  ASSERT_TRUE(ended.failure.has_value());
  EXPECT_EQ(ended.failure->code, "cancelled");
}

TEST(ProcessingRules, job_ids_sort_in_order_of_images) {
  EXPECT_EQ(job_id(RequestId("r"), 2).str(), "r/02");
  EXPECT_LT(job_id(RequestId("r"), 9), job_id(RequestId("r"), 10));
}

// §2.4: what a pause waits for is a sentence of one form; another one is refused and not forgotten.
TEST(ProcessingRules, a_resume_condition_is_a_share_from_1_to_100) {
  EXPECT_EQ(read_resume_condition("memory_usage_below_80_percent").value(), Percent{80});
  for (const char* bad :
       {"", "memory_usage_below__percent", "memory_usage_below_0_percent", "80", "memory_usage_below_101_percent",
        "memory_usage_below_8x_percent", "memory_usage_below_-8_percent", "memory_usage_below_percent"}) {
    const auto read = read_resume_condition(bad);
    ASSERT_FALSE(read.has_value()) << bad;
    EXPECT_EQ(read.error().pointer, "/resume_condition");
  }
}

TEST(ProcessingRules, a_command_that_the_state_does_not_accept_names_both) {
  Session session;
  session.session_id = "ses_1";
  session.state = SessionState::created;
  const auto paused = after(session, SessionEvent::pause);
  ASSERT_FALSE(paused.has_value());
  EXPECT_EQ(paused.error().code, ErrorCode::invalid_transition);
  EXPECT_NE(paused.error().message.find("ses_1 is created"), std::string::npos) << paused.error().message;
}

}  // namespace
}  // namespace lockstep::processing
