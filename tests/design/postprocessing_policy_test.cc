// §1.6, §2.6: the policy decides from the scores what is delivered, and what a person should look at.

#include "tests/design/fixture.h"

#include "domains/postprocessing/rules.h"
#include "operations/outputs.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

class PolicyStage : public Stage {
 public:
  using Stage::Stage;
  int command(const std::string& path, const std::string& body) {
    input(command_at(++replies_, path, body));
    for (const out::Reply& each : all<out::Reply>()) {
      if (each.reply == replies_) return each.status;
    }
    return 0;
  }
  int set_policy(const std::string& version, double safety, const std::string& below_safety, double quality,
                 const std::string& below_quality, const std::string& compliance = "strict") {
    return command("policies/safety", cat(R"({"event_type":"safety_policy_update","policy_version":")", version,
                                          R"(","safety_thresholds":{"content_safety_minimum":)", safety,
                                          R"(,"quality_minimum":)", quality, R"(,"technical_compliance":")", compliance,
                                          R"("},"enforcement_actions":{"below_safety_threshold":")", below_safety,
                                          R"(","below_quality_threshold":")", below_quality, R"("}})"));
  }
  /// One image whose postprocessing ends with these scores; returns its job.
  std::string image_with(double safety, double quality) {
    generate(++replies_, false);
    const std::string job = tables().processing.jobs.entries().rbegin()->first;
    if (tables().model.residencies.size() == 0) until_inferring();
    inference_done("w0", ++handles_);
    const auto request = sent(FrameType::postprocessing_request);
    PostprocessingCompleted done;
    done.request_id = request.back().envelope.op_id;
    done.final_results.safety_analysis = SafetyAnalysis{safety, "safe", {}};
    done.final_results.quality_assessment.technical_quality = quality;
    done.output = picture("png");
    say("w0", FrameType::postprocessing_completed, done, request.back().envelope.attempt, done.request_id,
        {++handles_});
    if (stage_of(job) == JobStage::storing) stored();
    return job;
  }

 private:
  ReplyId replies_ = 700;
  HandleId handles_ = 100;
};

TEST(Design_2_6_safety_policy, below_the_minimum_nothing_is_delivered_and_the_answer_names_score_and_limit) {
  PolicyStage stage(settings_of(1));
  stage.ready();
  EXPECT_EQ(stage.set_policy("v2", 0.8, "reject", 0, "reject"), 200);
  const std::string job = stage.image_with(0.79, 9);
  EXPECT_EQ(stage.stage_of(job), JobStage::failed);
  const processing::Failure failure = *stage.tables().processing.jobs.at(job).failure;
  EXPECT_EQ(failure.code, "safety_blocked");
  EXPECT_NE(failure.message.find("0.79"), std::string::npos) << failure.message;
  EXPECT_NE(failure.message.find("0.8;"), std::string::npos) << failure.message;
  EXPECT_EQ(stage.tables().postprocessing.outputs.size(), 0u);
  EXPECT_TRUE(stage.all<out::StorePixels>().empty());  // not even its file
  EXPECT_EQ(stage.stage_of(stage.image_with(0.8, 9)), JobStage::completed);
}

// A word without effect would be a promise that nobody keeps.
TEST(Design_2_6_safety_policy, a_technical_compliance_that_nothing_follows_from_is_refused_by_name) {
  PolicyStage stage(settings_of(1));
  stage.ready();
  for (const std::string word : {"relaxed", ""}) {
    EXPECT_EQ(stage.set_policy("v2", 0.8, "reject", 0, "reject", word), 501);
    const std::string body = stage.all<out::Reply>().back().body;
    EXPECT_NE(body.find(cat(R"(technical_compliance is \")", word, R"(\"; this version knows strict only)")),
              std::string::npos)
        << body;
    EXPECT_NE(body.find("safety_thresholds/technical_compliance"), std::string::npos) << body;
  }
  EXPECT_EQ(stage.tables().postprocessing.policies.size(), 0u);
  EXPECT_EQ(stage.set_policy("v2", 0.8, "reject", 0, "reject", "strict"), 200);
}

TEST(Design_2_6_safety_policy, a_flagged_output_is_delivered_and_listed_for_review_until_a_person_looked) {
  PolicyStage stage(settings_of(1));
  stage.ready();
  stage.set_policy("v2", 0, "reject", 7, "flag_for_review");
  const std::string job = stage.image_with(0.9, 6.5);
  EXPECT_EQ(stage.stage_of(job), JobStage::completed);
  const auto listed = [&] {
    return outputs_view(stage.tables(), {}, {.tag = {}, .review = true, .sha256 = {}}).outputs;
  };
  ASSERT_EQ(listed().size(), 1u);
  EXPECT_NE(listed()[0].review.find("6.5"), std::string::npos) << listed()[0].review;
  EXPECT_EQ(stage.command(cat("outputs/", listed()[0].sha256, "/tags"), R"({"reviewed":true,"add":["seen"]})"), 200);
  EXPECT_TRUE(listed().empty());
  EXPECT_EQ(outputs_view(stage.tables(), {}, {.tag = "seen", .review = {}, .sha256 = {}}).outputs.size(), 1u);
  EXPECT_TRUE(outputs_view(stage.tables(), {}, {.tag = "other", .review = {}, .sha256 = {}}).outputs.empty());
}

TEST(Design_2_6_safety_policy, it_is_durable_and_a_version_is_used_once) {
  PolicyStage stage(settings_of(1));
  stage.ready();
  EXPECT_EQ(stage.set_policy("v2", 0.8, "reject", 0, "allow"), 200);
  EXPECT_EQ(stage.set_policy("v2", 0.1, "allow", 0, "allow"), 400);
  Stage again(settings_of(1), stage.journal);
  EXPECT_EQ(postprocessing::policy_of(again.tables().postprocessing).safety_thresholds.content_safety_minimum,
            Ratio{0.8});
}

TEST(Design_2_6_safety_policy, with_a_minimum_a_missing_verdict_is_never_a_pass) {
  SafetyPolicyUpdate policy{"v2", {Ratio{0.5}, 0, "strict"}, {}};
  policy.enforcement_actions.below_safety_threshold = EnforcementAction::allow;
  EXPECT_FALSE(postprocessing::enforce(policy, FinalResults{}).delivery.has_value());
}

TEST(Design_1_6_tagging, a_bad_tag_is_refused_and_an_unknown_output_is_not_found) {
  PolicyStage stage(settings_of(1));
  stage.ready();
  stage.image_with(0.9, 9);
  const std::string sha256(64, 'b');
  EXPECT_EQ(stage.command(cat("outputs/", sha256, "/tags"), R"({"add":["no spaces"]})"), 400);
  EXPECT_EQ(stage.command(cat("outputs/", std::string(64, 'c'), "/tags"), R"({"add":["x"]})"), 404);
  EXPECT_EQ(stage.command(cat("outputs/", sha256, "/tags"), R"({"add":["x","x"],"remove":["y"]})"), 200);
  EXPECT_EQ(stage.tables().postprocessing.outputs.entries().begin()->second.row.tags, (std::vector<std::string>{"x"}));
}

}  // namespace
}  // namespace lockstep::design
