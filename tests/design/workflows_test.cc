// §1.4: a workflow is data, checked whole before anything of it runs, and its state outlives a restart.

#include "tests/design/fixture.h"

#include "operations/workflows.h"

namespace lockstep::design {
namespace {

using processing::TemplateOperation;
using processing::WorkflowTemplate;

WorkflowTemplate good() { return {"mine", 1, built_in_template().operations}; }

std::string refusal_of(const WorkflowTemplate& workflow) {
  const auto order = planned(workflow);
  return order ? "" : order.error().message;
}

TEST(Design_1_4_workflow_templates, the_plan_puts_each_operation_behind_its_inputs) {
  WorkflowTemplate shuffled = good();
  std::ranges::reverse(shuffled.operations);
  EXPECT_EQ(planned(shuffled).value(), (std::vector<std::string>{"generate", "upscale", "safety", "save"}));
}

TEST(Design_1_4_workflow_templates, a_bad_graph_is_refused_with_its_place) {
  WorkflowTemplate cycle = good();
  cycle.operations[1].inputs = {"safety"};
  EXPECT_NE(refusal_of(cycle).find("need each other's results: upscale, safety, save"), std::string::npos)
      << refusal_of(cycle);
  WorkflowTemplate unknown = good();
  unknown.operations[1].operation = "colorize";
  EXPECT_NE(refusal_of(unknown).find("colorize"), std::string::npos);
  EXPECT_EQ(planned(unknown).error().pointer, "/operations/1/operation");
  WorkflowTemplate missing = good();
  missing.operations[2].inputs = {"refine"};
  EXPECT_NE(refusal_of(missing).find("nothing makes the input refine"), std::string::npos);
  WorkflowTemplate twice = good();
  twice.operations[1].name = "generate";
  EXPECT_NE(refusal_of(twice).find("there twice"), std::string::npos);
  WorkflowTemplate unsafe = good();
  unsafe.operations.erase(unsafe.operations.begin() + 2);
  unsafe.operations[2].inputs = {"upscale"};
  EXPECT_NE(refusal_of(unsafe).find("no safety step has seen"), std::string::npos) << refusal_of(unsafe);
  WorkflowTemplate checked_too_early{
      "early", 1, {{"g", "generate", {}}, {"s", "safety", {"g"}}, {"u", "upscale", {"s"}}, {"save", "save", {"u"}}}};
  EXPECT_NE(refusal_of(checked_too_early).find("no safety step has seen"), std::string::npos);
  WorkflowTemplate two_starts = good();
  two_starts.operations.push_back({"again", "generate", {}});
  EXPECT_NE(refusal_of(two_starts).find("2 generate operations"), std::string::npos);
  WorkflowTemplate unused = good();
  unused.operations.push_back({"more", "safety", {"upscale"}});
  EXPECT_NE(refusal_of(unused), "");
  EXPECT_NE(refusal_of({"empty", 1, {}}), "");
}

class WorkflowStage : public Stage {
 public:
  using Stage::Stage;
  /// As Stage::scan, with an upscaler and a safety classifier beside it.
  void scan_pipeline() {
    scan();
    std::vector<in::ScannedModel> models;
    for (const auto& [key, entry] : tables().model.models.entries()) models.push_back({entry.row, {nullptr, nullptr}});
    for (const auto& [name, kind] :
         {std::pair("up", model::Kind::upscaler), std::pair("safe", model::Kind::safety_classifier)}) {
      in::ScannedModel scanned = models.front();
      scanned.model.model_id = ModelId(name);
      scanned.model.kind = kind;
      scanned.model.bytes = 10_MiB;
      models.push_back(scanned);
    }
    for (in::ScannedModel& each : models) {
      for (auto& layout : each.layouts) layout = std::make_shared<const model::SegmentLayout>();
    }
    input(in::ModelsScanned{models, ""});
  }
  void all_ready() {
    start();
    scan_pipeline();
    for (const out::SpawnWorker& each : all<out::SpawnWorker>()) join(each.worker.worker_id.str());
  }
  out::Reply command(const std::string& path, const std::string& body) {
    input(command_at(++replies, path, body));
    for (const out::Reply& each : all<out::Reply>()) {
      if (each.reply == replies) return each;
    }
    return {};
  }
  ReplyId replies = 500;
};

TEST(Design_1_4_workflows, a_run_is_a_session_with_its_operations_in_planned_order) {
  WorkflowStage stage(settings_of(1));
  stage.all_ready();
  const out::Reply reply =
      stage.command("workflows/sdxl_generation_pipeline/run", R"({"prompt":"a lighthouse","n":2})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  ASSERT_EQ(stage.tables().processing.sessions.size(), 1u);
  const processing::Session& session = stage.tables().processing.sessions.entries().begin()->second.row;
  EXPECT_EQ(session.workflow_template, "sdxl_generation_pipeline");
  EXPECT_EQ(session.expected_operations, 8u);
  ASSERT_EQ(session.requests.size(), 1u);
  const processing::Request& request = stage.tables().processing.requests.at(session.requests[0].str());
  ASSERT_EQ(request.pipeline.size(), 2u);
  EXPECT_EQ(request.pipeline[0].operation, "upscaling");
  EXPECT_EQ(request.pipeline[1].operation, "safety_check");
  EXPECT_EQ(request.session_id, session.session_id);
}

TEST(Design_1_4_workflows, a_run_outlives_a_restart_at_the_operation_it_was_at) {
  WorkflowStage stage(settings_of(1));
  stage.all_ready();
  stage.command("workflows/sdxl_generation_pipeline/run", R"({"prompt":"a lighthouse"})");
  stage.until_inferring();
  const std::string job = stage.tables().processing.jobs.entries().begin()->first;
  Stage again(settings_of(1), stage.journal);
  EXPECT_EQ(again.machine.digest(), stage.machine.digest());
  EXPECT_EQ(again.stage_of(job), processing::JobStage::inferring);
  EXPECT_EQ(again.machine.live().open_sessions.size(), 1u);
}

TEST(Design_1_4_workflows, a_template_of_a_person_is_kept_and_its_version_rises) {
  WorkflowStage stage(settings_of(1));
  stage.all_ready();
  const std::string body =
      R"({"name":"plain","operations":[{"name":"g","operation":"generate","inputs":[]},)"
      R"({"name":"s","operation":"safety","inputs":["g"]},{"name":"o","operation":"save","inputs":["s"]}]})";
  EXPECT_EQ(stage.command("workflows", body).status, 200);
  EXPECT_EQ(stage.command("workflows", body).status, 200);
  EXPECT_EQ(stage.tables().processing.templates.at("plain").version, 2u);
  EXPECT_EQ(stage.command("workflows/plain/run", R"({"prompt":"x"})").status, 200);
  EXPECT_EQ(stage.tables().processing.requests.entries().rbegin()->second.row.pipeline.size(), 1u);
  EXPECT_EQ(stage.command("workflows/plain/remove", "").status, 200);
  EXPECT_EQ(stage.command("workflows/plain/run", R"({"prompt":"x"})").status, 404);
  EXPECT_EQ(stage.command("workflows/sdxl_generation_pipeline/remove", "").status, 409);
}

TEST(Design_1_4_workflows, a_run_without_the_models_of_its_operations_is_refused_and_writes_nothing) {
  WorkflowStage stage(settings_of(1));
  stage.ready();  // an image model alone
  const std::uint64_t rev = stage.machine.rev().value;
  const out::Reply reply = stage.command("workflows/sdxl_generation_pipeline/run", R"({"prompt":"x"})");
  EXPECT_EQ(reply.status, 404);
  EXPECT_NE(reply.body.find("upscaling"), std::string::npos) << reply.body;
  EXPECT_EQ(stage.machine.rev().value, rev);
}

}  // namespace
}  // namespace lockstep::design
