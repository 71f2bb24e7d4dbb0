// What is counted follows the commits, and what exists is counted again by a replay (design §2: replay is apply).

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

const Counters& counters(const Stage& stage) { return stage.machine.live().counters; }

TEST(Design_counters, one_image_is_counted_once_in_every_stage) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.now += seconds(3);
  stage.until_inferring();
  EXPECT_EQ(counters(stage).jobs.at(JobStage::inferring), 1u);
  EXPECT_EQ(counters(stage).jobs.at(JobStage::queued), 0u);
  stage.now += seconds(2);
  stage.finish_image();
  EXPECT_EQ(counters(stage).stage_seconds.at(JobStage::queued).sum(), seconds(3));
  EXPECT_EQ(counters(stage).stage_seconds.at(JobStage::inferring).sum(), seconds(2));
  EXPECT_EQ(counters(stage).job_seconds.count(), 1u);
  EXPECT_EQ(counters(stage).job_seconds.sum(), seconds(5));
  EXPECT_EQ(counters(stage).jobs_ended.at(JobStage::completed), 1u);
  EXPECT_EQ(counters(stage).requests_accepted.at("generation"), 1u);
  EXPECT_EQ(counters(stage).requests_ended.at("completed"), 1u);
  EXPECT_EQ(counters(stage).load_seconds.count(), 1u);
  EXPECT_EQ(counters(stage).transactions_committed, 1u);
  EXPECT_EQ(counters(stage).cache_misses, 2u);
  EXPECT_TRUE(counters(stage).stage_entered.empty());  // nothing is kept of what has ended
  EXPECT_TRUE(counters(stage).job_accepted.empty());
  EXPECT_TRUE(counters(stage).load_decided.empty());
}

TEST(Design_counters, a_death_is_counted_once_with_its_cause_and_a_lost_run_is_no_duration) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.die("w0", "signal 9 (Killed)");
  EXPECT_EQ(counters(stage).worker_deaths,
            (std::map<std::pair<WorkerId, std::string>, Count>{{{WorkerId("w0"), "signal"}, 1}}));
  EXPECT_EQ(counters(stage).worker_starts.at(WorkerId("w0")), 2u);
  EXPECT_FALSE(counters(stage).stage_seconds.contains(JobStage::inferring));
  EXPECT_EQ(counters(stage).jobs.at(JobStage::queued), 1u);
  EXPECT_EQ(counters(stage).releases, 1u);
}

TEST(Design_counters, a_replay_counts_what_exists_and_not_what_happened) {
  Stage first(settings_of(1));
  first.ready();
  first.generate(1);
  first.generate(2);
  first.until_inferring();
  first.finish_image();
  Stage second(settings_of(1), first.journal);
  auto in_life = counters(first).jobs;
  std::erase_if(in_life, [](const auto& each) { return each.second == 0; });  // stages that were passed through
  EXPECT_EQ(counters(second).jobs, in_life);
  EXPECT_TRUE(counters(second).jobs_ended.empty());
  EXPECT_TRUE(counters(second).requests_accepted.empty());
}

TEST(Design_counters, a_refusal_is_counted_by_its_code) {
  Settings settings = settings_of(1);
  settings.accept.open_jobs_max = 1;
  Stage stage(settings);
  stage.ready();
  stage.generate(1, true, 2);
  stage.generate(2, true, 1);
  EXPECT_EQ(counters(stage).requests_refused.at("resource_exhausted"), 1u);
  EXPECT_EQ(counters(stage).requests_accepted.at("generation"), 1u);
}

}  // namespace
}  // namespace lockstep::design
