// §3.7, design §6: a worker that never becomes ready is set aside, said to be, and comes back by a trial or a person.

#include "orchestrator/starts.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

Settings settings_with(int workers, Nanos trial_after = seconds(600)) {
  Settings settings = settings_of(workers);
  settings.breaker = {.deaths_max = 5, .window = seconds(600), .trial_after = trial_after};
  return settings;
}

class SetAside : public testing::Test {
 protected:
  /// Dies before it was ready until it is set aside; waits out each pause in between.
  static void fail_starts(Stage& stage, const std::string& worker, int times) {
    for (int i = 0; i < times; ++i) {
      const auto record = stage.tables().liveness.workers.at(worker);
      ASSERT_NE(record.state, WorkerState::gone) << "start " << i << " was not tried";
      stage.input(in::WorkerGone{WorkerId(worker), record.incarnation, "exit status 1", "no module named torch"});
      stage.now += seconds(30);
      stage.input(in::TimerFired{cat("restart:", worker)});
    }
  }
  static std::size_t spawns(const Stage& stage) { return stage.all<out::SpawnWorker>().size(); }
  static std::vector<CommitEvent> events(const Stage& stage, const std::string& type) {
    std::vector<CommitEvent> out;
    for (const out::Publish& each : stage.all<out::Publish>()) {
      for (const CommitEvent& event : each.events) {
        if (event.type == type) out.push_back(event);
      }
    }
    return out;
  }
  static std::string view(Stage& stage, const std::string& path) {
    stage.input(in::View{999, path});
    return stage.all<out::Reply>().back().body;
  }
  static bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
};

TEST_F(SetAside, the_fifth_death_before_ready_ends_the_restarts) {
  Stage stage(settings_with(1));
  stage.start();
  stage.scan();
  fail_starts(stage, "w0", 4);
  EXPECT_EQ(spawns(stage), 5u);
  EXPECT_TRUE(events(stage, "worker_set_aside").empty());
  fail_starts(stage, "w0", 1);
  EXPECT_EQ(spawns(stage), 5u);
  ASSERT_EQ(events(stage, "worker_set_aside").size(), 1u);
  EXPECT_TRUE(has(events(stage, "worker_set_aside")[0].body.text, "no module named torch"));
  const auto device = stage.tables().device.devices.at("gpu_0");
  EXPECT_EQ(device.availability, device::Availability::offline);
  EXPECT_EQ(device.reason, "w0 is set aside: it died 5 times before it was ready; the last time: exit status 1");
  const std::string worker = view(stage, "workers/w0");
  EXPECT_TRUE(has(worker, R"("state":"broken")")) << worker;
  EXPECT_TRUE(has(worker, R"("last_words":"no module named torch")")) << worker;
  EXPECT_TRUE(has(view(stage, "workers"), R"("broken_because":"it died 5 times)"));
  EXPECT_TRUE(has(view(stage, "readyz"), "no worker can be used: w0 is set aside"));
}

TEST_F(SetAside, a_trial_after_the_pause_that_becomes_ready_heals_it) {
  Stage stage(settings_with(1));
  stage.start();
  stage.scan();
  fail_starts(stage, "w0", 5);
  stage.now += seconds(569);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(spawns(stage), 5u);
  stage.now += seconds(1);
  stage.input(in::TimerFired{"restart:w0"});
  ASSERT_EQ(spawns(stage), 6u);
  EXPECT_TRUE(has(view(stage, "readyz"), "set aside"));  // not before it is ready
  stage.join("w0");
  EXPECT_TRUE(has(view(stage, "readyz"), R"("ready":true)"));
  EXPECT_FALSE(has(view(stage, "workers/w0"), "set aside"));
  EXPECT_EQ(stage.tables().device.devices.at("gpu_0").reason, "");
  stage.generate(1, false);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 202);
}

TEST_F(SetAside, a_trial_that_dies_waits_a_whole_pause_again) {
  Stage stage(settings_with(1));
  stage.start();
  stage.scan();
  fail_starts(stage, "w0", 5);
  stage.now += seconds(600);
  stage.input(in::TimerFired{"restart:w0"});
  ASSERT_EQ(spawns(stage), 6u);
  stage.die("w0", "exit status 2");
  EXPECT_EQ(events(stage, "worker_set_aside").size(), 2u);
  EXPECT_TRUE(has(view(stage, "workers/w0"), "it died again on a trial"));
  stage.now += seconds(599);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(spawns(stage), 6u);
  stage.now += seconds(1);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(spawns(stage), 7u);
}

TEST_F(SetAside, without_trials_only_a_person_starts_it) {
  Stage stage(settings_with(1, 0));
  stage.start();
  stage.scan();
  fail_starts(stage, "w0", 5);
  stage.now += seconds(1'000'000);
  stage.input(in::TimerFired{"restart:w0"});
  EXPECT_EQ(spawns(stage), 5u);
  EXPECT_FALSE(has(view(stage, "workers/w0"), "next_start_seconds"));
  stage.input(in::RestartWorker{7, WorkerId("w0")});
  EXPECT_EQ(stage.all<out::Reply>().back().status, 202);
  EXPECT_EQ(spawns(stage), 6u);
  // The count begins anew.
  stage.die("w0", "exit status 1");
  EXPECT_EQ(events(stage, "worker_set_aside").size(), 1u);
}

TEST_F(SetAside, a_restart_of_the_orchestrator_tries_again) {
  Stage first(settings_with(1));
  first.start();
  fail_starts(first, "w0", 5);
  Stage second(settings_with(1), first.journal);
  second.start();
  EXPECT_EQ(spawns(second), 1u);
  EXPECT_FALSE(has(view(second, "workers/w0"), "set aside"));
}

TEST_F(SetAside, a_worker_that_was_ready_in_between_is_not) {
  Stage stage(settings_with(1));
  stage.start();
  stage.scan();
  for (int i = 0; i < 10; ++i) {
    stage.join("w0");
    stage.die("w0");
    stage.now += seconds(30);
    stage.input(in::TimerFired{"restart:w0"});
  }
  EXPECT_EQ(spawns(stage), 11u);
  EXPECT_TRUE(events(stage, "worker_set_aside").empty());
}

// Nothing accepted is lost, and nothing waits in silence.
TEST_F(SetAside, a_job_waits_with_a_sentence_and_new_ones_are_refused_with_it) {
  Stage stage(settings_with(1));
  stage.start();
  stage.scan();
  stage.generate(1, false);
  const std::string job = "requests/req_000001_000001";
  EXPECT_TRUE(has(view(stage, job), R"("waits_for":"it waits until a worker is ready; starting: w0")"))
      << view(stage, job);
  fail_starts(stage, "w0", 5);
  EXPECT_TRUE(has(view(stage, job), "every worker that has it is set aside: w0 is set aside: it died 5 times"))
      << view(stage, job);
  stage.generate(2);
  const auto reply = stage.all<out::Reply>().back();
  EXPECT_EQ(reply.status, 503);
  EXPECT_TRUE(has(reply.body, "no worker can be used: w0 is set aside: it died 5 times")) << reply.body;
  stage.input(in::RestartWorker{7, WorkerId("w0")});
  stage.join("w0");
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
  EXPECT_TRUE(has(view(stage, job), R"("waits_for":"")")) << view(stage, job);
}

TEST_F(SetAside, with_one_worker_left_the_work_goes_on) {
  Stage stage(settings_with(2));
  stage.start();
  stage.scan();
  stage.join("w1");
  fail_starts(stage, "w0", 5);
  stage.generate(1, false);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 202);
  stage.generate(2, false);
  EXPECT_TRUE(has(view(stage, "readyz"), R"("ready":true)"));
  EXPECT_TRUE(has(view(stage, "requests/req_000001_000002"), "busy with other images"));
}

// ---- a person restarts --------------------------------------------------------------------------------------------

TEST_F(SetAside, a_restart_of_a_live_worker_costs_its_job_nothing_but_time) {
  Stage stage(settings_with(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.input(in::RestartWorker{7, WorkerId("w0")});
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 202);
  stage.input(in::RestartWorker{8, WorkerId("w0")});  // twice: once is enough
  EXPECT_EQ(stage.all<out::KillWorker>().size(), 1u);
  stage.die("w0", "signal 9 (Killed)");
  EXPECT_EQ(spawns(stage), 2u);  // at once
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), processing::JobStage::queued);
  EXPECT_EQ(stage.tables().processing.jobs.at("req_000001_000001/00").deaths, 0u);
}

TEST_F(SetAside, a_restart_of_nobody_is_refused) {
  Stage stage(settings_with(1));
  stage.ready();
  stage.input(in::RestartWorker{7, WorkerId("w9")});
  EXPECT_EQ(stage.all<out::Reply>().back().status, 404);
  Stage smaller(settings_with(0), stage.journal);
  smaller.start();
  smaller.die("w0", "proven gone by its lock");
  smaller.input(in::RestartWorker{7, WorkerId("w0")});
  EXPECT_EQ(smaller.all<out::Reply>().back().status, 409);
  EXPECT_TRUE(has(smaller.all<out::Reply>().back().body, "not in the configuration"));
}

}  // namespace
}  // namespace lockstep::design
