// Images of one request that a worker makes at once (§1.5 "Inference batch processing and queue management", §2.5
// inference_orchestration), by hand.

#include <algorithm>
#include <set>

#include "domains/inference/rules.h"
#include "events/inference_events.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

class Design_2_5_batch : public testing::Test {
 protected:
  Design_2_5_batch() { stage.ready(); }

  void ask(std::uint32_t n, std::uint32_t batch_size, std::optional<std::string> vram_limit = {}) {
    GenerateBody body;
    body.n = n;
    body.batch_size = batch_size;
    if (vram_limit) body.vram_limit = SizeText{*vram_limit};
    stage.generate_with(1, body);
  }
  std::vector<Sent> runs() const { return stage.sent(FrameType::inference_request); }
  std::vector<Sent> orders() const { return stage.sent(FrameType::inference_orchestration); }
  void answer(const Sent& run, HandleId handle) {
    InferenceCompleted done;
    done.request_id = run.envelope.op_id;
    done.result_location = cat("sha256:", std::string(64, 'b'));
    done.result = Stage::picture("rgb8");
    stage.say("w0", FrameType::inference_completed, done, run.envelope.attempt, done.request_id, {handle});
  }
  void fail_run(const Sent& run, const std::string& code) {
    stage.say("w0", FrameType::task_failed, TaskFailed{code, "too much"}, run.envelope.attempt, run.envelope.op_id);
  }
  JobStage stage_of(int image) const { return stage.stage_of(cat("req_000001_000001/0", image)); }
  bool busy() const { return !stage.machine.live().workers.at(WorkerId("w0")).task.empty(); }

  Stage stage{settings_of(1)};
};

TEST_F(Design_2_5_batch, images_of_a_request_are_one_task_with_one_order) {
  ask(3, 3);
  stage.until_inferring();
  ASSERT_EQ(orders().size(), 1u);
  const auto order = orders()[0].body<InferenceOrchestration>();
  EXPECT_EQ(order.batch_configuration.batch_size, 3u);
  EXPECT_TRUE(order.batch_configuration.parallel_execution);
  EXPECT_EQ(order.batch_configuration.optimization_strategy, "throughput");
  EXPECT_EQ(order.resource_allocation.vram_limit.bytes().value(), 1_GiB) << "what the device has";
  ASSERT_EQ(runs().size(), 3u);
  std::set<std::uint64_t> seeds;
  for (const Sent& run : runs()) {
    const auto message = run.body<InferenceRequest>();
    EXPECT_EQ(message.batch_id, order.batch_id);
    seeds.insert(*message.inference_parameters.seed);
  }
  EXPECT_EQ(seeds, (std::set<std::uint64_t>{7, 8, 9}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(stage_of(i), JobStage::inferring) << i;
  EXPECT_EQ(stage.tables().model.usages.at(tiny.str()).uses, 3u) << "images, not tasks";
}

TEST_F(Design_2_5_batch, a_request_that_says_nothing_is_made_image_by_image) {
  stage.generate(1, true, 3);
  stage.until_inferring();
  EXPECT_TRUE(orders().empty());
  ASSERT_EQ(runs().size(), 1u);
  EXPECT_FALSE(runs()[0].body<InferenceRequest>().batch_id.has_value());
}

TEST_F(Design_2_5_batch, the_worker_is_free_when_the_last_image_is_answered) {
  ask(3, 3);
  stage.until_inferring();
  const auto made = runs();
  answer(made[1], 100);
  EXPECT_EQ(stage_of(1), JobStage::generated);
  EXPECT_EQ(stage_of(0), JobStage::inferring);
  EXPECT_TRUE(busy());
  EXPECT_TRUE(stage.sent(FrameType::postprocessing_request).empty()) << "one task at a time";
  answer(made[1], 101);  // a second time: nobody waits for it
  answer(made[0], 102);
  answer(made[2], 103);
  EXPECT_EQ(stage.sent(FrameType::postprocessing_request).size(), 1u) << "the next task is the first image's";
  EXPECT_TRUE(std::ranges::any_of(stage.all<out::DropHandle>(), [](const auto& each) { return each.handle == 101; }));
}

// §3.4: a worker that hands over one image after the other makes progress, also when it tells none between them.
TEST_F(Design_2_5_batch, each_image_that_is_answered_is_progress) {
  ask(3, 3);
  stage.until_inferring();
  const auto armed = [&] {
    return std::ranges::count(stage.all<out::ArmTimer>(), "progress:w0", &out::ArmTimer::name);
  };
  const auto before = armed();
  answer(runs()[0], 100);
  EXPECT_EQ(armed(), before + 1);
  answer(runs()[1], 101);
  EXPECT_EQ(armed(), before + 2);
}

TEST_F(Design_2_5_batch, no_more_than_the_request_allows) {
  ask(5, 2);
  stage.until_inferring();
  EXPECT_EQ(orders().at(0).body<InferenceOrchestration>().batch_configuration.batch_size, 2u);
  EXPECT_EQ(runs().size(), 2u);
  EXPECT_EQ(stage_of(2), JobStage::queued);
}

// One image is the reason, or none is: each goes on by itself, so that it can not hurt the others again.
TEST_F(Design_2_5_batch, after_a_death_each_image_is_made_by_itself) {
  ask(2, 2);
  stage.until_inferring();
  stage.die("w0");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(stage_of(i), JobStage::queued) << i;
    EXPECT_EQ(stage.tables().processing.jobs.at(cat("req_000001_000001/0", i)).deaths, 1u) << i;
  }
  stage.now += seconds(60);
  stage.input(in::TimerFired{"restart:w0"});
  stage.join("w0");
  stage.until_inferring();
  ASSERT_EQ(orders().size(), 2u);
  EXPECT_EQ(orders()[1].body<InferenceOrchestration>().batch_configuration.batch_size, 1u);
  EXPECT_EQ(orders()[1].body<InferenceOrchestration>().batch_configuration.optimization_strategy, "latency");
}

TEST_F(Design_2_5_batch, too_many_at_once_says_nothing_about_one) {
  ask(2, 2);
  stage.until_inferring();
  const auto made = runs();
  fail_run(made[0], "resource_exhausted");
  EXPECT_EQ(stage_of(0), JobStage::queued);
  fail_run(made[1], "resource_exhausted");
  ASSERT_EQ(runs().size(), 3u) << "the next one, by itself";
  EXPECT_EQ(orders().back().body<InferenceOrchestration>().batch_configuration.batch_size, 1u);
  fail_run(runs().back(), "resource_exhausted");
  EXPECT_EQ(stage_of(0), JobStage::failed) << "by itself it is the image that is too large";
}

TEST_F(Design_2_5_batch, an_image_that_fails_leaves_the_others) {
  ask(2, 2);
  stage.until_inferring();
  const auto made = runs();
  fail_run(made[0], "internal");
  EXPECT_EQ(stage_of(0), JobStage::failed);
  EXPECT_EQ(stage_of(1), JobStage::inferring);
  EXPECT_TRUE(busy());
}

TEST_F(Design_2_5_batch, a_cancelled_request_cancels_each_of_its_images) {
  ask(2, 2);
  stage.until_inferring();
  const auto made = runs();
  stage.input(in::Cancel{2, RequestId("req_000001_000001")});
  std::set<std::string> cancelled;
  for (const Sent& each : stage.sent(FrameType::task_cancel)) cancelled.insert(each.envelope.op_id);
  EXPECT_EQ(cancelled, (std::set<std::string>{made[0].envelope.op_id, made[1].envelope.op_id}));
  fail_run(made[0], "cancelled");
  EXPECT_TRUE(busy());
  // The other one does not stop.
  stage.now += seconds(60);
  stage.input(in::TimerFired{"cancel:w0"});
  EXPECT_EQ(stage.all<out::KillWorker>().size(), 1u);
}

// §2.5 vram_limit: a demand above the limit is refused, never granted, and the answer names it.
TEST_F(Design_2_5_batch, a_limit_below_the_model_is_refused_by_its_name) {
  ask(2, 2, "100MB");
  EXPECT_TRUE(runs().empty());
  ASSERT_EQ(stage_of(0), JobStage::failed);
  const auto failure = stage.tables().processing.jobs.at("req_000001_000001/00").failure;
  EXPECT_EQ(failure->code, "resource_exhausted");
  EXPECT_NE(failure->message.find("vram_limit"), std::string::npos) << failure->message;
  EXPECT_NE(failure->message.find("100MB"), std::string::npos) << failure->message;
}

TEST_F(Design_2_5_batch, a_limit_is_told_to_the_worker_and_bounds_the_batch) {
  ask(1, 1, "200MB");
  stage.until_inferring();
  EXPECT_EQ(orders().at(0).body<InferenceOrchestration>().resource_allocation.vram_limit.bytes().value(), 200_MiB);
  // It took 40 MiB beside its model: of the 50 that the limit leaves, two images would take 80.
  InferenceCompleted done;
  done.request_id = runs()[0].envelope.op_id;
  done.result = Stage::picture("rgb8");
  done.result_metadata.final_vram_usage = SizeText{"190MB"};
  stage.say("w0", FrameType::inference_completed, done, 1, done.request_id, {100});
  stage.postprocessing_done("w0", 101);
  stage.stored();
  GenerateBody two;
  two.n = 2;
  two.batch_size = 2;
  two.vram_limit = SizeText{"200MB"};
  stage.generate_with(2, two);
  EXPECT_EQ(orders().back().body<InferenceOrchestration>().batch_configuration.batch_size, 1u);
}

TEST_F(Design_2_5_batch, a_worker_that_comes_back_goes_on_with_what_it_has) {
  ask(3, 3);
  stage.until_inferring();
  const auto made = runs();
  const Welcome welcome = stage.sent(FrameType::welcome).back().body<Welcome>();
  const Sent load = stage.sent(FrameType::model_load_request).back();
  stage.input(in::LinkClosed{WorkerId("w0"), stage.incarnation("w0"), "cut", 0});
  Hello hello{WorkerId("w0"), "test", 4000};
  hello.rejoin = Rejoin{"cluster", welcome.token, Epoch{1}, {}, {}, {}};
  hello.rejoin->holdings = {{TransactionId(load.envelope.op_id.substr(5)), tiny, 150_MiB, HoldingState::loaded}};
  for (int i : {0, 2}) hello.rejoin->tasks.push_back({made[static_cast<std::size_t>(i)].envelope.op_id, 1});
  stage.dial(9, hello, stage.incarnation("w0"));
  ASSERT_EQ(stage.refusal(), "");
  EXPECT_EQ(stage_of(0), JobStage::inferring);
  EXPECT_EQ(stage_of(1), JobStage::queued) << "what it does not have was lost";
  answer(made[0], 100);
  EXPECT_TRUE(busy());
  EXPECT_EQ(runs().size(), 3u);
  answer(made[2], 101);
  EXPECT_EQ(stage_of(2), JobStage::generated);
}

TEST_F(Design_2_5_batch, what_can_not_be_is_refused_with_the_field) {
  GenerateBody body;
  body.batch_size = 17;
  stage.generate_with(1, body);
  EXPECT_NE(stage.all<out::Reply>().back().body.find("batch_size is 17; it must be 1 to 16"), std::string::npos);
  body.batch_size = 2;
  body.vram_limit = SizeText{"much"};
  stage.generate_with(2, body);
  EXPECT_NE(stage.all<out::Reply>().back().body.find("vram_limit is \\\"much\\\""), std::string::npos)
      << stage.all<out::Reply>().back().body;
}

}  // namespace
}  // namespace lockstep::design
