// §3.4 streaming: images of a request are handed over one by one; a gate that fails on one stops the rest, and what was
// delivered stays or goes as the request's error_handling says.

#include <algorithm>

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::ErrorHandling;
using processing::JobStage;

/// From here on nothing with a score below 0.5 is delivered; nothing without one either.
void guard(Stage& stage) {
  stage.input(command_at(700, "policies/safety",
                         R"({"event_type":"safety_policy_update","policy_version":"v2","safety_thresholds":)"
                         R"({"content_safety_minimum":0.5,"quality_minimum":0,"technical_compliance":"strict"},)"
                         R"("enforcement_actions":{"below_safety_threshold":"reject",)"
                         R"("below_quality_threshold":"reject"}})"));
}

class Design_3_4_gates : public testing::Test {
 protected:
  Design_3_4_gates() : stage(settings_of(1)) { stage.ready(); }
  /// Three images; the first is delivered, the second fails its safety check, the third is not made yet.
  void second_is_unsafe(std::optional<ErrorHandling> handling) {
    GenerateBody body;
    body.n = 3;
    body.error_handling = handling;
    stage.generate_with(1, body);
    stage.until_inferring();
    stage.finish_image();
    first_output = stage.tables().postprocessing.outputs.at(job(0).job_id.str()).image.sha256;
    guard(stage);
    stage.inference_done("w0", 102);
    unsafe();
  }
  void unsafe() {
    const auto request = stage.sent(FrameType::postprocessing_request);
    PostprocessingCompleted done;
    done.request_id = request.back().envelope.op_id;
    done.final_results.safety_analysis = SafetyAnalysis{0.1, "unsafe", {}};
    stage.say("w0", FrameType::postprocessing_completed, done, request.back().envelope.attempt, done.request_id);
  }
  const processing::Job& job(std::uint32_t index) const {
    return stage.tables().processing.jobs.at(cat("req_000001_000001/0", index));
  }
  const processing::Request& request() const { return stage.tables().processing.requests.at("req_000001_000001"); }
  std::size_t inferences() const { return stage.sent(FrameType::inference_request).size(); }

  Stage stage;
  std::string first_output;
};

TEST_F(Design_3_4_gates, a_gate_that_fails_stops_the_rest_and_what_was_delivered_stays) {
  second_is_unsafe(std::nullopt);
  EXPECT_EQ(job(0).stage, JobStage::completed);
  EXPECT_EQ(job(1).stage, JobStage::failed);
  EXPECT_EQ(job(1).failure->code, "safety_blocked");
  EXPECT_EQ(job(2).stage, JobStage::failed);
  EXPECT_NE(job(2).failure->message.find("image 1 of the request failed a gate"), std::string::npos)
      << job(2).failure->message;
  EXPECT_EQ(request().state, processing::RequestState::failed);
  EXPECT_EQ(request().failure->code, "safety_blocked");
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 1u);
  EXPECT_TRUE(stage.all<out::RemoveOutput>().empty());
  EXPECT_EQ(inferences(), 2u) << "the third was not begun";
}

// Of a batch the images come one by one: what is still being made when one of them fails its gate is cancelled.
TEST(Design_3_4_gates_of_a_batch, what_is_being_made_when_a_gate_fails_is_cancelled) {
  Settings settings = settings_of(2);
  settings.workers[1].memory_budget = 1_MiB;  // the pipeline needs none, the model does not fit
  Stage stage(settings);
  stage.ready();
  GenerateBody body;
  body.n = 2;
  body.batch_size = 2;
  stage.generate_with(1, body);
  stage.until_inferring();
  const auto runs = stage.sent(FrameType::inference_request);
  ASSERT_EQ(runs.size(), 2u);
  InferenceCompleted first;
  first.request_id = runs[0].envelope.op_id;
  first.result_location = cat("sha256:", std::string(64, 'b'));
  first.result = Stage::picture("rgb8");
  stage.say("w0", FrameType::inference_completed, first, runs[0].envelope.attempt, first.request_id, {100});
  const auto post = stage.sent(FrameType::postprocessing_request);
  ASSERT_EQ(post.size(), 1u);
  EXPECT_EQ(post[0].effect.worker_id, WorkerId("w1")) << "handed over while the batch goes on";
  guard(stage);
  PostprocessingCompleted unsafe;
  unsafe.request_id = post[0].envelope.op_id;
  unsafe.final_results.safety_analysis = SafetyAnalysis{0.1, "unsafe", {}};
  stage.say("w1", FrameType::postprocessing_completed, unsafe, post[0].envelope.attempt, unsafe.request_id);
  const auto cancels = stage.sent(FrameType::task_cancel);
  ASSERT_EQ(cancels.size(), 1u);
  EXPECT_EQ(cancels[0].effect.worker_id, WorkerId("w0"));
  EXPECT_EQ(cancels[0].envelope.op_id, runs[1].envelope.op_id);
}

TEST_F(Design_3_4_gates, cascade_rollback_takes_back_what_was_delivered) {
  second_is_unsafe(ErrorHandling::cascade_rollback);
  EXPECT_EQ(job(0).stage, JobStage::failed);
  EXPECT_EQ(job(2).stage, JobStage::failed);
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 0u);
  const auto removed = stage.all<out::RemoveOutput>();
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(removed[0].sha256, first_output);
  bool told = false;
  for (const Record& record : stage.journal) {
    const Commit commit = decode_commit(record.body).value();
    for (const CommitEvent& event : commit.events) told = told || event.type == "output_rolled_back";
  }
  EXPECT_TRUE(told);
}

TEST_F(Design_3_4_gates, content_that_another_request_delivered_too_stays_on_disk) {
  stage.generate(7);
  stage.until_inferring();
  stage.finish_image();  // the fixture's pictures are all of one content
  GenerateBody body;
  body.n = 2;
  body.error_handling = ErrorHandling::cascade_rollback;
  stage.generate_with(8, body);
  stage.finish_image();
  guard(stage);
  stage.inference_done("w0", 102);
  unsafe();
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 1u);
  EXPECT_TRUE(stage.all<out::RemoveOutput>().empty());
}

TEST_F(Design_3_4_gates, finish_others_makes_them_as_if_nothing_had_happened) {
  second_is_unsafe(ErrorHandling::finish_others);
  EXPECT_EQ(request().state, processing::RequestState::accepted);
  stage.inference_done("w0", 103);
  const auto request_of_third = stage.sent(FrameType::postprocessing_request);
  PostprocessingCompleted done;
  done.request_id = request_of_third.back().envelope.op_id;
  done.final_results.safety_analysis = SafetyAnalysis{0.9, "safe", {}};
  done.output = Stage::picture("png");
  stage.say("w0", FrameType::postprocessing_completed, done, request_of_third.back().envelope.attempt, done.request_id,
            {104});
  stage.stored();
  EXPECT_EQ(job(2).stage, JobStage::completed);
  EXPECT_EQ(request().state, processing::RequestState::failed);
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 2u);
}

TEST_F(Design_3_4_gates, nothing_of_a_stopped_request_is_kept) {
  second_is_unsafe(ErrorHandling::cascade_rollback);
  EXPECT_TRUE(stage.sent(FrameType::postprocessing_request).size() == 2u);
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 0u);
  EXPECT_TRUE(stage.machine.live().pixels.empty());
}

}  // namespace
}  // namespace lockstep::design
