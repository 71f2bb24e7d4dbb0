// §1.4, §2.4 resource_requests: a worker asks other domains for what operations of a session need. One answer, and what
// depends on it starts only after it was granted.

#include "tests/design/fixture.h"

#include "domains/memory/rules.h"
#include "operations/coordination.h"
#include "operations/sessions.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

class Design_2_4_coordination : public testing::Test {
 protected:
  Design_2_4_coordination() : stage(settings_of(1)) { stage.ready(); }

  std::string create(const std::string& body = "{}") {
    stage.input(command_at(++replies, "sessions", body));
    const auto view = json::from_text<SessionView>(stage.all<out::Reply>().back().body);
    EXPECT_TRUE(view.has_value());
    return view ? view->session.session_id : "";
  }
  void command(const std::string& path) { stage.input(command_at(++replies, path, "")); }
  std::string request_in(const std::string& session) {
    GenerateBody body;
    body.prompt = "a lighthouse";
    body.session_id = session;
    stage.input(in::Generate{++replies, body, 7, false});
    return stage.tables().processing.requests.entries().rbegin()->first;
  }
  static CrossDomainCoordination wish(const std::string& session, std::optional<std::string> memory,
                                      std::vector<std::string> dependents, std::optional<ModelId> model = {}) {
    CrossDomainCoordination out;
    out.session_id = session;
    if (memory) out.coordination_request.requires_memory_allocation = SizeText{*memory};
    out.coordination_request.requires_model_loading = std::move(model);
    out.dependent_operations = std::move(dependents);
    return out;
  }
  void ask(const CrossDomainCoordination& message) {
    stage.say("w0", FrameType::cross_domain_coordination, message, 0, coordination_id(message));
  }
  std::vector<RequestAnswer> answers(const std::string& id) const {
    std::vector<RequestAnswer> out;
    for (const Sent& each : stage.sent(FrameType::request_answer)) {
      EXPECT_EQ(each.envelope.op_id, each.body<RequestAnswer>().request_id);  // correlated
      if (each.envelope.op_id == id) out.push_back(each.body<RequestAnswer>());
    }
    return out;
  }
  RequestAnswer last(const std::string& id) const {
    const auto all = answers(id);
    EXPECT_FALSE(all.empty()) << id;
    return all.empty() ? RequestAnswer{} : all.back();
  }
  bool denied_with(const CrossDomainCoordination& message, std::string_view words) {
    ask(message);
    const RequestAnswer answer = last(coordination_id(message));
    const std::string reason = answer.reason.value_or("");
    return answer.outcome == RequestOutcome::denied && reason.find(words) != std::string::npos
               ? true
               : (ADD_FAILURE() << json::enum_name(answer.outcome) << ": " << reason, false);
  }
  Bytes granted() const { return memory::granted_on(stage.tables().memory, DeviceId("gpu_0")); }
  /// A session whose image is being made on w0.
  std::string working(const std::string& body = "{}") {
    const std::string session = create(body);
    request = request_in(session);
    stage.until_inferring();
    EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::inferring);
    return session;
  }

  Stage stage;
  ReplyId replies = 1000;
  std::string request;
};

TEST_F(Design_2_4_coordination, memory_is_granted_as_a_reservation_of_the_session_and_goes_with_its_end) {
  const std::string session = working();
  ask(wish(session, "256MB", {"postprocessing"}));
  const RequestAnswer answer = last(session + "/postprocessing");
  EXPECT_EQ(answer.request_type, "cross_domain_coordination");
  EXPECT_EQ(answer.outcome, RequestOutcome::granted);
  ASSERT_TRUE(answer.reservation.has_value());
  EXPECT_EQ(answer.reservation->bytes, 256_MiB);
  EXPECT_EQ(granted(), 256_MiB);
  command("sessions/" + session + "/cancel");
  EXPECT_EQ(granted(), Bytes{});
}

TEST_F(Design_2_4_coordination, what_cannot_be_is_denied_with_the_reason) {
  const std::string wide = working();
  EXPECT_TRUE(denied_with(wish(wide, "2GB", {"safety_check"}), "memory_budget of gpu_0 is 1GB"));
  stage.finish_image();
  const std::string session = create(R"({"max_memory":"300MB"})");
  request_in(session);  // its model is there: it runs at once
  EXPECT_TRUE(denied_with(wish("ses_9", "1MB", {"inference"}), "there is no session ses_9"));
  EXPECT_TRUE(denied_with(wish(session, "400MB", {"inference"}), "max_memory is 300MB"));
  EXPECT_TRUE(denied_with(wish(session, {}, {"upscaling"}, ModelId("nobody")), "nobody"));
  EXPECT_TRUE(denied_with(wish(session, "1MB", {"lunch"}), "dependent_operations has lunch"));
  const std::string other = create();
  EXPECT_TRUE(denied_with(wish(other, "1MB", {"inference"}), "does not work for session"));
  EXPECT_EQ(granted(), Bytes{});
}

TEST_F(Design_2_4_coordination, a_request_that_comes_again_gets_the_same_answer_and_nothing_more) {
  const std::string session = working();
  ask(wish(session, "256MB", {"postprocessing"}));
  const Rev rev = stage.machine.rev();
  ask(wish(session, "256MB", {"postprocessing"}));
  const auto all = answers(session + "/postprocessing");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(json::to_text(all[0]), json::to_text(all[1]));
  EXPECT_EQ(stage.machine.rev(), rev);
  ask(wish(session, "128MB", {"postprocessing"}));  // another request under the same id
  EXPECT_EQ(last(session + "/postprocessing").conflict, true);
  EXPECT_EQ(granted(), 256_MiB);
}

// Dependents wait for the grant, across a life of the orchestrator too, and start after it.
TEST_F(Design_2_4_coordination, dependents_start_only_after_it_was_granted) {
  const std::string session = working();
  ask(wish(session, "800MB", {"postprocessing"}));
  ask(wish(session, "20MB", {"upscaling"}));  // about no operation of this request
  ASSERT_EQ(last(session + "/postprocessing").outcome, RequestOutcome::granted);
  CrossDomainCoordination second = wish(session, "800MB", {"postprocessing"});
  second.request_id = "again";
  const Timestamp lapses = Timestamp::of(WallTime{stage.wall().ms + 3'600'000});
  stage.now += milliseconds(1);
  ask(second);
  ASSERT_EQ(last("again").outcome, RequestOutcome::queued);
  EXPECT_EQ(last("again").estimated_start, lapses);
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::generated);
  EXPECT_TRUE(stage.sent(FrameType::postprocessing_request).empty());
  const auto reservation = last(session + "/postprocessing").reservation;
  ASSERT_TRUE(reservation.has_value());
  stage.say("w0", FrameType::reservation_update, ReservationUpdate{reservation->allocation_id, std::nullopt});
  EXPECT_EQ(last("again").outcome, RequestOutcome::granted);
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::postprocessing)
      << json::to_text(stage.tables().processing.jobs.at(request + "/00"));
  EXPECT_EQ(stage.sent(FrameType::postprocessing_request).size(), 1u);
}

TEST_F(Design_2_4_coordination, what_depends_on_a_denied_request_fails_with_its_reason) {
  const std::string session = working();
  EXPECT_TRUE(denied_with(wish(session, "2GB", {"postprocessing"}), "memory_budget"));
  stage.inference_done("w0", 100);
  const processing::Job& job = stage.tables().processing.jobs.at(request + "/00");
  EXPECT_EQ(job.stage, JobStage::failed);
  EXPECT_NE(job.failure.value_or(processing::Failure{}).message.find("memory_budget of gpu_0"), std::string::npos);
}

// The model comes by an order as a person's does, once its worker is idle, and the answer after it.
TEST_F(Design_2_4_coordination, a_required_model_is_loaded_on_that_worker_before_it_is_granted) {
  const std::string session = working();
  stage.inference_done("w0", 100);
  stage.postprocessing_done("w0", 101);
  stage.stored();
  stage.input(in::UnloadModel{++replies, tiny, {}, false});
  stage.say("w0", FrameType::model_released, ModelReleased{tiny, Bytes{}}, 0, "release:tiny");
  ASSERT_EQ(stage.tables().model.residencies.size(), 0u);
  ask(wish(session, {}, {"inference"}, tiny));
  EXPECT_EQ(last(session + "/inference").outcome, RequestOutcome::queued);
  const std::string later = request_in(session);
  EXPECT_EQ(stage.stage_of(later + "/00"), JobStage::queued);
  const TransactionId transaction = stage.prepared();
  stage.vote("w0", transaction, Vote::vote_commit);
  EXPECT_EQ(answers(session + "/inference").size(), 1u);
  stage.loaded("w0", transaction);
  EXPECT_EQ(last(session + "/inference").outcome, RequestOutcome::granted);
  EXPECT_TRUE(stage.machine.live().orders.empty());
  EXPECT_EQ(stage.stage_of(later + "/00"), JobStage::inferring);
}

TEST_F(Design_2_4_coordination, an_idle_model_in_the_way_of_memory_is_released) {
  const std::string session = working();
  stage.finish_image();
  ask(wish(session, "1000MB", {"upscaling"}));
  EXPECT_EQ(last(session + "/upscaling").outcome, RequestOutcome::queued);
  ASSERT_EQ(stage.sent(FrameType::model_release).size(), 1u);
  stage.say("w0", FrameType::model_released, ModelReleased{tiny, Bytes{}}, 0, "release:tiny");
  EXPECT_EQ(last(session + "/upscaling").outcome, RequestOutcome::granted);
}

TEST_F(Design_2_4_coordination, an_open_request_is_denied_at_its_deadline_and_by_the_sessions_end) {
  const std::string session = working();
  ask(wish(session, "800MB", {"safety_check"}));
  CrossDomainCoordination late = wish(session, "800MB", {"safety_check"});
  late.request_id = "late";
  ask(late);
  late.request_id = "later";
  ask(late);
  stage.input(in::TimerFired{"request:w0/cross_domain_coordination/late"});
  EXPECT_EQ(last("late").outcome, RequestOutcome::denied);
  EXPECT_EQ(last("later").outcome, RequestOutcome::queued);
  command("sessions/" + session + "/cancel");
  EXPECT_EQ(last("later").outcome, RequestOutcome::denied);
  EXPECT_NE(last("later").reason->find("is cancelled"), std::string::npos);
  EXPECT_EQ(answers("late").size(), 2u);
}

TEST_F(Design_2_4_coordination, it_survives_a_restart_and_holds_its_dependents_there) {
  const std::string session = working();
  ask(wish(session, "800MB", {"inference"}));
  CrossDomainCoordination late = wish(session, "800MB", {"inference"});
  late.request_id = "late";
  stage.now += milliseconds(2);
  ask(late);
  const std::string waiting = request_in(session);
  Stage next(settings_of(1), stage.journal);
  next.start();
  const Tables& tables = next.tables();
  const processing::Job& job = tables.processing.jobs.at(waiting + "/00");
  const Dependency* held = holds_back(next.machine.live().dependencies,
                                      tables.processing.requests.at(job.request_id.str()), job);
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(held->outcome, RequestOutcome::queued);
  const auto timers = next.all<out::ArmTimer>();
  EXPECT_TRUE(std::ranges::any_of(
      timers, [](const auto& each) { return each.name == "request:w0/cross_domain_coordination/late"; }));
}

TEST(Design_2_4_coordination_message, what_cannot_be_right_names_the_field_and_the_limit) {
  CrossDomainCoordination message;
  EXPECT_EQ(check(message).error().pointer, "/session_id");
  message.session_id = "s";
  EXPECT_EQ(check(message).error().pointer, "/coordination_request");
  message.coordination_request.requires_memory_allocation = SizeText{"0B"};
  EXPECT_NE(check(message).error().message.find("must be above 0"), std::string::npos);
  message.coordination_request.requires_memory_allocation = SizeText{"4GB"};
  message.dependent_operations.assign(17, "inference");
  EXPECT_NE(check(message).error().message.find("the limit is 16"), std::string::npos);
  message.dependent_operations = {"inference_refinement", "postprocessing"};
  EXPECT_TRUE(check(message).has_value());
  EXPECT_EQ(coordination_id(message), "s/inference_refinement+postprocessing");
}

}  // namespace
}  // namespace lockstep::design
