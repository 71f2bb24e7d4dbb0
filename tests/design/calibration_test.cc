// §1.1 hardware-specific maintenance and calibration: a device is measured again when a person asks, and never beside a
// running task. The worker's side of it stands in worker_test.cc.

#include "tests/design/fixture.h"

#include "operations/views.h"

namespace lockstep::design {
namespace {

const DeviceId gpu_0("gpu_0");

class Design_1_1_calibration : public testing::Test {
 protected:
  Design_1_1_calibration() : stage(settings_of(1)) { stage.ready(); }

  void calibrate(const DeviceId& device, ReplyId reply, bool wait = true) {
    stage.input(in::CalibrateDevice{reply, device, wait});
  }
  std::size_t told() const { return stage.sent(FrameType::device_calibrate).size(); }
  void measured(double score, std::vector<std::string> can = {}, const std::string& op_id = "calibrate:gpu_0") {
    DeviceCapabilityDiscovered report;
    report.device_id = gpu_0;
    report.new_capabilities = std::move(can);
    report.capability_scores.items = {{"memory_bandwidth", score}};
    stage.say("w0", FrameType::device_capability_discovered, report, 0, op_id);
  }
  std::optional<out::Reply> answer(ReplyId reply) const {
    for (const out::Reply& each : stage.all<out::Reply>()) {
      if (each.reply == reply) return each;
    }
    return std::nullopt;
  }
  DeviceView view() {
    stage.input(in::View{++views, "devices/gpu_0"});
    return json::from_text<DeviceView>(answer(views)->body).value();
  }
  std::size_t events(const std::string& type) const {
    std::size_t count = 0;
    for (const out::Publish& each : stage.all<out::Publish>()) {
      for (const CommitEvent& event : each.events) count += event.type == type ? 1 : 0;
    }
    return count;
  }
  std::string task() const { return stage.machine.live().workers.at(WorkerId("w0")).task; }
  /// The worker comes back over link 7, with what it says it does.
  void rejoin(const std::vector<HeldTask>& tasks, LinkId link = 7) {
    const Incarnation incarnation = stage.incarnation("w0");
    Hello hello{WorkerId("w0"), "test", 4000};
    hello.rejoin = Rejoin{"cluster", "token of w0", stage.machine.live().epoch, {}, tasks, {}};
    stage.dial(link, hello, incarnation);
    ASSERT_EQ(stage.refusal(), "");
    stage.say("w0", FrameType::ready, Ready{});
  }

  Stage stage;
  ReplyId views = 9000;
};

TEST_F(Design_1_1_calibration, an_idle_worker_is_told_and_the_answer_says_what_changed) {
  measured(4, {"avx2", "avx512f"}, "");
  calibrate(gpu_0, 1);
  ASSERT_EQ(told(), 1u);
  const Sent order = stage.sent(FrameType::device_calibrate).front();
  EXPECT_EQ(order.body<DeviceCalibrate>().device_id, gpu_0);
  EXPECT_EQ(order.envelope.op_id, "calibrate:gpu_0");
  EXPECT_EQ(view().calibration, "running");
  EXPECT_FALSE(view().calibrated_at.has_value());
  EXPECT_FALSE(answer(1).has_value());

  measured(5, {"avx2", "amx_bf16"});
  ASSERT_TRUE(answer(1).has_value());
  EXPECT_EQ(answer(1)->status, 200);
  const auto said = json::from_text<CalibrationView>(answer(1)->body).value();
  EXPECT_EQ(*said.scores_before.find("memory_bandwidth"), 4);
  EXPECT_EQ(*said.scores_after.find("memory_bandwidth"), 5);
  EXPECT_EQ(said.capabilities_gained, std::vector<std::string>{"amx_bf16"});
  EXPECT_EQ(said.capabilities_lost, std::vector<std::string>{"avx512f"});
  EXPECT_EQ(said.calibrated_at, to_rfc3339(stage.wall()));
  EXPECT_EQ(view().calibrated_at, said.calibrated_at);
  EXPECT_FALSE(view().calibration.has_value());
  EXPECT_EQ(events("device_calibrated"), 1u);
  EXPECT_EQ(task(), "");
}

TEST_F(Design_1_1_calibration, it_waits_for_the_running_task_and_says_so) {
  stage.generate(1);
  stage.until_inferring();
  calibrate(gpu_0, 2);
  EXPECT_EQ(told(), 0u);
  EXPECT_NE(view().calibration->find("waiting: w0 works on inf:"), std::string::npos) << *view().calibration;
  stage.inference_done("w0", 100);
  // Between two tasks the worker is idle: the measurement goes first, and the image waits for it.
  EXPECT_EQ(told(), 1u);
  EXPECT_TRUE(stage.sent(FrameType::postprocessing_request).empty());
  measured(5);
  EXPECT_EQ(answer(2)->status, 200);
  EXPECT_EQ(stage.sent(FrameType::postprocessing_request).size(), 1u);
}

TEST_F(Design_1_1_calibration, no_task_is_started_beside_it) {
  calibrate(gpu_0, 1);
  EXPECT_EQ(task(), "calibrate:gpu_0");
  stage.generate(2);
  stage.fill_segments();
  EXPECT_TRUE(stage.sent(FrameType::transaction_prepare).empty());
  measured(5);
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
}

TEST_F(Design_1_1_calibration, one_that_is_asked_for_twice_is_done_once) {
  calibrate(gpu_0, 1);
  calibrate(gpu_0, 2);
  calibrate(gpu_0, 3, false);
  EXPECT_EQ(answer(3)->status, 202);
  EXPECT_EQ(told(), 1u);
  measured(5);
  EXPECT_EQ(answer(1)->status, 200);
  EXPECT_EQ(answer(2)->body, answer(1)->body);
  EXPECT_EQ(told(), 1u);
}

TEST_F(Design_1_1_calibration, a_client_that_went_away_is_not_answered_and_the_calibration_goes_on) {
  calibrate(gpu_0, 1);
  stage.input(in::ReplyGone{1});
  measured(5);
  EXPECT_FALSE(answer(1).has_value());
  EXPECT_EQ(events("device_calibrated"), 1u);
}

// A hung probe is a task without progress.
TEST_F(Design_1_1_calibration, a_measurement_that_never_ends_costs_the_worker_its_life_and_says_so) {
  calibrate(gpu_0, 1);
  stage.now += seconds(120);
  stage.input(in::TimerFired{"progress:w0"});
  const auto kills = stage.all<out::KillWorker>();
  ASSERT_EQ(kills.size(), 1u);
  EXPECT_NE(kills[0].why.find("calibrate:gpu_0"), std::string::npos) << kills[0].why;
  stage.die("w0", "signal 9 (Killed)");
  ASSERT_TRUE(answer(1).has_value());
  EXPECT_EQ(answer(1)->status, 503);
  EXPECT_NE(answer(1)->body.find("no progress"), std::string::npos) << answer(1)->body;
}

TEST_F(Design_1_1_calibration, a_worker_that_is_lost_drops_it_with_a_sentence) {
  stage.generate(1);
  stage.until_inferring();
  calibrate(gpu_0, 2);
  stage.die("w0");
  ASSERT_TRUE(answer(2).has_value());
  EXPECT_EQ(answer(2)->status, 503);
  EXPECT_NE(answer(2)->body.find("its worker w0 is gone: signal 11"), std::string::npos) << answer(2)->body;
  EXPECT_EQ(events("device_calibration_failed"), 1u);
  EXPECT_FALSE(view().calibration.has_value());
  stage.now += seconds(60);
  stage.input(in::TimerFired{"restart:w0"});
  stage.join("w0");
  EXPECT_EQ(told(), 0u);
}

TEST_F(Design_1_1_calibration, a_worker_that_cannot_measure_says_why_and_nothing_changes) {
  measured(4, {}, "");
  calibrate(gpu_0, 1);
  stage.say("w0", FrameType::task_failed, TaskFailed{"unavailable", "no NVIDIA driver"}, 0, "calibrate:gpu_0");
  ASSERT_TRUE(answer(1).has_value());
  EXPECT_EQ(answer(1)->status, 503);
  EXPECT_NE(answer(1)->body.find("no NVIDIA driver"), std::string::npos);
  EXPECT_EQ(*view().capability_scores.find("memory_bandwidth"), 4);
  EXPECT_FALSE(view().calibrated_at.has_value());
  EXPECT_EQ(task(), "");
}

TEST_F(Design_1_1_calibration, an_order_that_was_lost_with_its_link_is_given_again) {
  calibrate(gpu_0, 1);
  stage.input(in::LinkClosed{WorkerId("w0"), stage.incarnation("w0"), "connection reset", 0});
  EXPECT_EQ(view().calibration, "running");
  rejoin({});
  EXPECT_EQ(told(), 2u);
  measured(5);
  EXPECT_EQ(answer(1)->status, 200);
}

TEST_F(Design_1_1_calibration, a_worker_that_comes_back_while_it_measures_goes_on) {
  calibrate(gpu_0, 1);
  stage.input(in::LinkClosed{WorkerId("w0"), stage.incarnation("w0"), "connection reset", 0});
  rejoin({{"calibrate:gpu_0", 0}});
  EXPECT_EQ(told(), 1u);
  EXPECT_TRUE(stage.sent(FrameType::task_cancel).empty());
  EXPECT_EQ(task(), "calibrate:gpu_0");
  measured(5);
  EXPECT_EQ(answer(1)->status, 200);
}

// §3.7: the worker goes on measuring while the orchestrator is away; the next one keeps what it finds.
TEST_F(Design_1_1_calibration, what_is_measured_across_a_restart_counts_and_is_durable) {
  calibrate(gpu_0, 1);
  Stage next(settings_of(1), stage.journal);
  next.start();
  next.scan();
  Hello hello{WorkerId("w0"), "test", 4000};
  hello.rejoin = Rejoin{"cluster", "token of w0", stage.machine.live().epoch, {}, {{"calibrate:gpu_0", 0}}, {}};
  next.dial(7, hello, stage.incarnation("w0"));
  ASSERT_EQ(next.refusal(), "");
  next.say("w0", FrameType::ready, Ready{});
  DeviceCapabilityDiscovered report;
  report.device_id = gpu_0;
  report.capability_scores.items = {{"memory_bandwidth", 5}};
  next.say("w0", FrameType::device_capability_discovered, report, 0, "calibrate:gpu_0");
  ASSERT_TRUE(next.tables().device.capabilities.contains("gpu_0"));
  EXPECT_EQ(next.tables().device.capabilities.at("gpu_0").calibrated_at, next.wall());
  EXPECT_EQ(next.machine.live().workers.at(WorkerId("w0")).task, "");
  const Stage third(settings_of(1), next.journal);
  EXPECT_EQ(third.tables().device.capabilities.at("gpu_0").calibrated_at, next.wall());
}

TEST_F(Design_1_1_calibration, a_report_of_a_later_start_keeps_when_it_was_calibrated) {
  calibrate(gpu_0, 1);
  measured(5);
  const auto at = view().calibrated_at;
  stage.now += seconds(60);
  measured(6, {}, "");
  EXPECT_EQ(view().calibrated_at, at);
  EXPECT_EQ(*view().capability_scores.find("memory_bandwidth"), 6);
  measured(7);  // with the name of a calibration that nobody asked for
  EXPECT_EQ(view().calibrated_at, at);
}

TEST_F(Design_1_1_calibration, a_device_that_cannot_be_measured_now_is_refused_with_the_reason) {
  calibrate(DeviceId("gpu_9"), 1);
  EXPECT_EQ(answer(1)->status, 404);
  DeviceHealthUpdate hot;
  hot.device_id = gpu_0;
  hot.health_metrics.temperature = 95;
  stage.say("w0", FrameType::device_health_update, hot);
  calibrate(gpu_0, 2);
  EXPECT_EQ(answer(2)->status, 503);
  EXPECT_NE(answer(2)->body.find("temperature 95"), std::string::npos) << answer(2)->body;
  stage.die("w0");
  calibrate(gpu_0, 3);
  EXPECT_EQ(answer(3)->status, 503);
  EXPECT_NE(answer(3)->body.find("not online"), std::string::npos) << answer(3)->body;
  EXPECT_EQ(told(), 0u);
}

TEST_F(Design_1_1_calibration, a_stop_ends_it) {
  calibrate(gpu_0, 1);
  stage.input(in::StopRequested{});
  ASSERT_TRUE(answer(1).has_value());
  EXPECT_EQ(answer(1)->status, 503);
  EXPECT_NE(answer(1)->body.find("stopping"), std::string::npos);
  calibrate(gpu_0, 2);
  EXPECT_EQ(answer(2)->status, 503);
}

}  // namespace
}  // namespace lockstep::design
