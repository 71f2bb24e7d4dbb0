// §1.4, §2.4: sessions hold requests together, with limits, prerequisites and one end.

#include "tests/design/fixture.h"

#include <algorithm>
#include <set>

#include "operations/coordination.h"
#include "operations/sessions.h"

namespace lockstep::design {
namespace {

using processing::JobStage;
using processing::SessionState;

class SessionStage : public Stage {
 public:
  using Stage::Stage;

  out::Reply command(const std::string& path, const std::string& body = "") {
    const ReplyId reply = ++replies_;
    input(command_at(reply, path, body));
    for (const out::Reply& each : all<out::Reply>()) {
      if (each.reply == reply) return each;
    }
    ADD_FAILURE() << "no answer to " << path;
    return {};
  }
  std::string create(const std::string& body) {
    const out::Reply reply = command("sessions", body);
    EXPECT_EQ(reply.status, 201) << reply.body;
    const auto view = json::from_text<SessionView>(reply.body);
    EXPECT_TRUE(view.has_value()) << reply.body;
    return view ? view->session.session_id : "";
  }
  const processing::Session& session(const std::string& id) const { return tables().processing.sessions.at(id); }
  std::string request_in(const std::string& session, std::uint32_t n = 1) {
    GenerateBody body;
    body.prompt = "a lighthouse";
    body.n = n;
    body.session_id = session;
    input(in::Generate{++replies_, body, 7, false});
    return tables().processing.requests.entries().rbegin()->first;
  }
  processing::Failure failure_of(const std::string& job) const {
    return tables().processing.jobs.at(job).failure.value_or(processing::Failure{});
  }
  /// The answer to one more image.
  out::Reply answer_in(const std::string& session, std::optional<std::string> size = {}) {
    GenerateBody body;
    body.prompt = "a lighthouse";
    body.size = std::move(size);
    body.session_id = session;
    input(in::Generate{++replies_, body, 7, false});
    for (const out::Reply& each : all<out::Reply>()) {
      if (each.reply == replies_) return each;
    }
    return {};
  }
  /// The inference that runs is done, and its device held so much at most.
  void inference_took(Bytes peak) {
    const Sent request = sent(FrameType::inference_request).back();
    InferenceCompleted done;
    done.request_id = request.envelope.op_id;
    done.result = picture("rgb8");
    done.result_metadata.final_vram_usage = SizeText::of(peak);
    say("w0", FrameType::inference_completed, done, request.envelope.attempt, done.request_id, {100});
  }
  std::size_t sent_count(FrameType type) const { return sent(type).size(); }

 private:
  ReplyId replies_ = 1000;
};

// ---- lifecycle ----------------------------------------------------------------------------------------------------

TEST(Design_1_4_sessions, terminal_states_are_final) {
  using processing::SessionEvent;
  for (const SessionState from :
       {SessionState::completed, SessionState::failed, SessionState::cancelled, SessionState::expired}) {
    for (int event = 0; event <= static_cast<int>(SessionEvent::session_timeout); ++event) {
      EXPECT_FALSE(processing::session_lifecycle.next(from, static_cast<SessionEvent>(event)).has_value());
    }
  }
}

TEST(Design_1_4_sessions, a_session_without_prerequisites_starts_and_is_durable) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"session_class":"batch","priority":"high","session_timeout":"300s"})");
  EXPECT_EQ(stage.session(id).state, SessionState::active);
  Stage again(settings_of(1), stage.journal);
  const processing::Session& kept = again.tables().processing.sessions.at(id);
  EXPECT_EQ(kept.state, SessionState::active);
  EXPECT_EQ(kept.session_class, processing::SessionClass::batch);
}

TEST(Design_1_4_sessions, a_bad_session_is_refused_with_its_field_and_nothing_is_written) {
  SessionStage stage(settings_of(1));
  stage.ready();
  for (const auto& [body, words] : {
           std::pair(R"({"depends_on":["ses_9"]})", "there is no session ses_9"),
           std::pair(R"({"gpu_allocation":["gpu_7"]})", "there is no device gpu_7"),
           std::pair(R"({"operation_timeout":"0s"})", "above zero"),
           std::pair(R"({"session_timeout":"soon"})", "session_timeout"),
           std::pair(R"({"expected_operations":0})", "at least 1"),
           std::pair(R"({"max_memory":"0B"})", "above zero"),
           std::pair(R"({"sesion_timeout":"3s"})", "unknown"),
           std::pair("[]", ""),
       }) {
    const out::Reply reply = stage.command("sessions", body);
    EXPECT_GE(reply.status, 400) << body;
    EXPECT_NE(reply.body.find(words), std::string::npos) << reply.body;
  }
  EXPECT_EQ(stage.tables().processing.sessions.size(), 0u);
}

TEST(Design_1_4_sessions, it_completes_when_the_expected_operations_are_done) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"expected_operations":2})");  // inference and storing: no pipeline here
  stage.request_in(id);
  stage.until_inferring();
  EXPECT_EQ(stage.session(id).state, SessionState::active);
  stage.finish_image();
  EXPECT_EQ(stage.session(id).state, SessionState::completed);
  EXPECT_EQ(stage.command("sessions/" + id + "/pause").status, 409);
}

TEST(Design_1_4_sessions, a_completing_session_takes_no_request_and_ends_with_its_last_one) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create("{}");
  stage.request_in(id);
  stage.until_inferring();
  EXPECT_EQ(stage.command("sessions/" + id + "/complete").status, 200);
  EXPECT_EQ(stage.session(id).state, SessionState::completing);
  const std::size_t before = stage.tables().processing.requests.size();
  stage.request_in(id);
  EXPECT_EQ(stage.tables().processing.requests.size(), before);
  stage.finish_image();
  EXPECT_EQ(stage.session(id).state, SessionState::completed);
}

// ---- prerequisites ------------------------------------------------------------------------------------------------

TEST(Design_1_4_sessions, a_dependent_starts_only_when_its_prerequisites_completed) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string first = stage.create("{}");
  const std::string second = stage.create(cat(R"({"depends_on":[")", first, R"("]})"));
  EXPECT_EQ(stage.session(second).state, SessionState::created);
  const std::string request = stage.request_in(second);
  stage.fill_segments();
  EXPECT_EQ(stage.sent_count(FrameType::transaction_prepare), 0u);
  stage.command("sessions/" + first + "/complete");
  EXPECT_EQ(stage.session(first).state, SessionState::completed);
  EXPECT_EQ(stage.session(second).state, SessionState::active);
  stage.until_inferring();
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::inferring);
}

TEST(Design_1_4_sessions, a_dependent_fails_with_the_reason_when_a_prerequisite_ends_otherwise) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string first = stage.create("{}");
  const std::string second = stage.create(cat(R"({"depends_on":[")", first, R"("]})"));
  const std::string request = stage.request_in(second);
  stage.command("sessions/" + first + "/cancel");
  EXPECT_EQ(stage.session(second).state, SessionState::failed);
  EXPECT_NE(stage.failure_of(request + "/00").message.find(first), std::string::npos);
  EXPECT_TRUE(stage.machine.live().open_jobs.empty());
}

// ---- pause --------------------------------------------------------------------------------------------------------

TEST(Design_2_4_session_control, no_operation_of_a_paused_session_starts_and_a_running_one_finishes) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create("{}");
  const std::string request = stage.request_in(id);
  stage.until_inferring();
  EXPECT_EQ(stage.command("sessions/" + id + "/pause", R"({"reason":"memory_pressure_detected"})").status, 200);
  ASSERT_EQ(stage.sent_count(FrameType::session_control_command), 1u);
  const auto told = stage.sent(FrameType::session_control_command).back().body<SessionControlCommand>();
  EXPECT_EQ(told.command, SessionCommand::pause_operations);
  EXPECT_EQ(told.reason, "memory_pressure_detected");
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::generated);
  EXPECT_EQ(stage.sent_count(FrameType::postprocessing_request), 0u);
  stage.command("sessions/" + id + "/resume");
  EXPECT_EQ(stage.sent_count(FrameType::postprocessing_request), 1u);
}

TEST(Design_2_4_session_control, other_work_goes_on_while_a_session_is_paused) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create("{}");
  stage.command("sessions/" + id + "/pause");
  const std::string held = stage.request_in(id);
  stage.generate(1, false);
  const std::string other = stage.tables().processing.requests.entries().rbegin()->first;
  stage.until_inferring();
  EXPECT_EQ(stage.stage_of(held + "/00"), JobStage::queued);
  EXPECT_EQ(stage.stage_of(other + "/00"), JobStage::inferring);
}

TEST(Design_2_4_session_control, a_pause_ends_by_itself_when_its_resume_condition_holds) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create("{}");
  EXPECT_EQ(stage.command("sessions/" + id + "/pause", R"({"resume_condition":"when it rains"})").status, 400);
  stage.command("sessions/" + id + "/pause", R"({"resume_condition":"memory_usage_below_80_percent"})");
  const auto report = [&](Bytes used) {
    stage.say("w0", FrameType::vram_usage_update,
              VramUsageUpdate{DeviceId("gpu_0"), {1000_MiB, used, 1000_MiB - used, Ratio{0}}, {}, false});
  };
  EXPECT_EQ(stage.session(id).state, SessionState::paused);  // nobody knows the usage yet
  report(800_MiB);
  EXPECT_EQ(stage.session(id).state, SessionState::paused);
  report(799_MiB);
  EXPECT_EQ(stage.session(id).state, SessionState::active);
}

// ---- limits -------------------------------------------------------------------------------------------------------

TEST(Design_2_4_timeouts, at_session_timeout_everything_of_it_ends_and_the_answer_names_the_limit) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"session_timeout":"300s"})");
  const std::string request = stage.request_in(id, 2);
  stage.until_inferring();
  stage.input(in::TimerFired{"session:" + id});
  EXPECT_EQ(stage.session(id).state, SessionState::expired);
  EXPECT_EQ(stage.sent_count(FrameType::task_cancel), 1u);
  for (const char* job : {"/00", "/01"}) {
    EXPECT_EQ(stage.stage_of(request + job), JobStage::failed);
    EXPECT_EQ(stage.failure_of(request + job).code, "deadline_exceeded");
    EXPECT_NE(stage.failure_of(request + job).message.find("session_timeout of 300s"), std::string::npos);
  }
  EXPECT_TRUE(stage.machine.live().open_jobs.empty());
  EXPECT_TRUE(stage.machine.live().pixels.empty());
  // The worker is free for others as soon as it answers, and its late result is nobody's.
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.machine.live().workers.at(WorkerId("w0")).task, "");
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::failed);
}

TEST(Design_2_4_timeouts, at_operation_timeout_the_operation_ends_and_the_session_goes_on) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"operation_timeout":"30s"})");
  const std::string request = stage.request_in(id, 2);
  stage.until_inferring();
  const auto timers = stage.all<out::ArmTimer>();
  const std::string name = "operation:" + request + "/00:1";
  const auto armed = std::ranges::find(timers, name, &out::ArmTimer::name);
  ASSERT_NE(armed, timers.end());
  EXPECT_EQ(armed->deadline, stage.now + seconds(30));
  stage.input(in::TimerFired{"operation:" + request + "/00:0"});  // of an attempt that is over
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::inferring);
  stage.input(in::TimerFired{name});
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::failed);
  EXPECT_NE(stage.failure_of(request + "/00").message.find("operation_timeout of 30s"), std::string::npos);
  EXPECT_EQ(stage.sent_count(FrameType::task_cancel), 1u);
  EXPECT_EQ(stage.session(id).state, SessionState::active);
  EXPECT_EQ(stage.stage_of(request + "/01"), JobStage::queued);
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.stage_of(request + "/01"), JobStage::inferring);
}

// §2.5: the request's own timeout, in a session or in none; it ends with the run.
TEST(Design_2_4_timeouts, an_inference_ends_at_its_own_timeout) {
  SessionStage stage(settings_of(1));
  stage.ready();
  GenerateBody body;
  body.prompt = "a lighthouse";
  body.timeout = DurationText{"0s"};
  stage.input(in::Generate{900, body, 7, false});
  EXPECT_NE(stage.all<out::Reply>().back().body.find("timeout is"), std::string::npos);
  body.timeout = DurationText{"60s"};
  body.n = 2;
  stage.input(in::Generate{901, body, 7, false});
  const std::string request = stage.tables().processing.requests.entries().begin()->first;
  stage.until_inferring();
  const std::string name = "operation:" + request + "/00:1";
  const auto timers = stage.all<out::ArmTimer>();
  const auto armed = std::ranges::find(timers, name, &out::ArmTimer::name);
  ASSERT_NE(armed, timers.end());
  EXPECT_EQ(armed->deadline, stage.now + seconds(60));
  stage.input(in::TimerFired{name});
  EXPECT_EQ(stage.stage_of(request + "/00"), JobStage::failed);
  EXPECT_NE(stage.failure_of(request + "/00").message.find("timeout of 60s"), std::string::npos);
  EXPECT_EQ(stage.sent_count(FrameType::task_cancel), 1u);
  stage.inference_done("w0", 100);  // the cancelled one answers
  EXPECT_EQ(stage.stage_of(request + "/01"), JobStage::inferring);
  stage.inference_done("w0", 100);
  const auto disarmed = stage.all<out::DisarmTimer>();
  EXPECT_NE(std::ranges::find(disarmed, "operation:" + request + "/01:1", &out::DisarmTimer::name), disarmed.end());
}

TEST(Design_2_4_timeouts, a_deadline_of_before_counts_on_after_a_restart) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"session_timeout":"300s"})");
  Stage again(settings_of(1), stage.journal);
  again.now = seconds(1000) + seconds(100);
  again.start();
  const auto timers = again.all<out::ArmTimer>();
  const auto armed = std::ranges::find(timers, "session:" + id, &out::ArmTimer::name);
  ASSERT_NE(armed, timers.end());
  EXPECT_EQ(armed->deadline, again.now + seconds(200));
}

TEST(Design_2_4_limits, a_request_above_max_memory_is_refused_and_names_the_limit) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"max_memory":"100MB"})");
  GenerateBody body;
  body.prompt = "a lighthouse";
  body.session_id = id;
  stage.input(in::Generate{1, body, 7, false});
  ASSERT_FALSE(stage.all<out::Reply>().empty());
  EXPECT_EQ(stage.all<out::Reply>().back().status, 429);
  EXPECT_NE(stage.all<out::Reply>().back().body.find("max_memory of 100MB"), std::string::npos);
}

// What a run takes beside its models counts from when it was measured: for what comes, and for what waits.
TEST(Design_2_4_limits, a_run_that_took_more_than_max_memory_before_is_refused_and_names_the_limit) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"max_memory":"500MB"})");
  stage.request_in(id);
  const std::string waiting = stage.request_in(id);
  stage.until_inferring();
  stage.inference_took(600_MiB);  // 450 MiB beside the model
  stage.postprocessing_done("w0", 101);
  stage.stored();
  ASSERT_EQ(stage.stage_of(waiting + "/00"), JobStage::failed);
  EXPECT_EQ(stage.failure_of(waiting + "/00").code, "resource_exhausted");
  const out::Reply reply = stage.answer_in(id);
  EXPECT_EQ(reply.status, 429);
  for (const std::string& said : {stage.failure_of(waiting + "/00").message, reply.body}) {
    EXPECT_NE(
        said.find(cat("the request needs 600MB on gpu_0 (150MB for its models, 450MB beside them, as a run of its "
                      "size took before, and 0B were granted for its session); session ",
                      id, " has a max_memory of 500MB")),
        std::string::npos)
        << said;
  }
  EXPECT_EQ(stage.answer_in(id, "256x256").status, 202) << "of that size nothing is known";
  EXPECT_EQ(stage.answer_in(stage.create(R"({"max_memory":"600MB"})")).status, 202);
}

TEST(Design_2_4_limits, what_was_granted_for_a_session_counts_against_its_max_memory) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"max_memory":"500MB"})");
  stage.request_in(id);
  stage.until_inferring();
  CrossDomainCoordination wish;
  wish.session_id = id;
  wish.coordination_request.requires_memory_allocation = SizeText{"400MB"};
  wish.dependent_operations = {"upscaling"};
  stage.say("w0", FrameType::cross_domain_coordination, wish, 0, coordination_id(wish));
  const auto granted = stage.sent(FrameType::request_answer).back().body<RequestAnswer>();
  ASSERT_TRUE(granted.reservation.has_value());
  const out::Reply refused = stage.answer_in(id);
  EXPECT_EQ(refused.status, 429);
  EXPECT_NE(refused.body.find("400MB were granted for its session"), std::string::npos) << refused.body;
  EXPECT_EQ(stage.answer_in(stage.create(R"({"max_memory":"500MB"})")).status, 202) << "another session's grant";
  stage.say("w0", FrameType::reservation_update, ReservationUpdate{granted.reservation->allocation_id, std::nullopt});
  EXPECT_EQ(stage.answer_in(id).status, 202);
}

// A batch is as large as the session's limit allows, not as the device would.
TEST(Design_2_4_limits, a_batch_takes_no_more_than_max_memory) {
  SessionStage stage(settings_of(1));
  stage.ready();
  stage.generate(1, false);
  stage.until_inferring();
  stage.inference_took(250_MiB);  // 100 MiB beside the model
  stage.postprocessing_done("w0", 101);
  stage.stored();
  GenerateBody body;
  body.n = 4;
  body.batch_size = 4;
  body.session_id = stage.create(R"({"max_memory":"400MB"})");
  stage.generate_with(2, body, false);
  EXPECT_EQ(stage.sent_count(FrameType::inference_request), 1u + 2u);
}

TEST(Design_2_4_limits, its_operations_run_on_its_devices_only) {
  SessionStage stage(settings_of(2));
  stage.ready();
  const std::string id = stage.create(R"({"gpu_allocation":["gpu_1"]})");
  stage.request_in(id);
  stage.fill_segments();
  ASSERT_EQ(stage.sent_count(FrameType::transaction_prepare), 1u);
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).back().effect.worker_id, WorkerId("w1"));
}

TEST(Design_1_4_queue, a_critical_session_goes_before_what_was_accepted_earlier) {
  SessionStage stage(settings_of(1));
  stage.ready();
  stage.generate(1, false);
  stage.until_inferring();
  const std::string background = stage.create(R"({"session_class":"background"})");
  const std::string critical = stage.create(R"({"session_class":"critical"})");
  const std::string last = stage.request_in(background);
  const std::string first = stage.request_in(critical);
  stage.inference_done("w0", 100);  // the pipeline of that image waits, too
  EXPECT_EQ(stage.stage_of(first + "/00"), JobStage::inferring);
  EXPECT_EQ(stage.stage_of(last + "/00"), JobStage::queued);
}

// ---- workers ------------------------------------------------------------------------------------------------------

TEST(Design_2_4_session_created, a_worker_hears_of_a_session_once_before_its_first_work_for_it) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create(R"({"expected_operations":15,"operation_timeout":"30s"})");
  stage.request_in(id, 2);
  stage.until_inferring();
  stage.finish_image();
  ASSERT_EQ(stage.sent_count(FrameType::processing_session_created), 1u);
  const Sent told = stage.sent(FrameType::processing_session_created)[0];
  EXPECT_EQ(told.body<ProcessingSessionCreated>().expected_operations, 15u);
  EXPECT_EQ(told.body<ProcessingSessionCreated>().timeout_settings.operation_timeout, DurationText{"30s"});
  // No limit can be set to zero, so zero says that there is none (docs/worker_sdk.md).
  EXPECT_EQ(told.body<ProcessingSessionCreated>().timeout_settings.session_timeout, DurationText{"0s"});
  EXPECT_EQ(told.body<ProcessingSessionCreated>().resource_allocation.max_memory, SizeText{"0B"});
  const auto frames = stage.all<out::SendFrame>();
  const auto place = [&](FrameType type) {
    return std::ranges::find(frames, static_cast<std::uint16_t>(type),
                             [](const auto& each) { return each.frame.header.type; }) -
           frames.begin();
  };
  EXPECT_LT(place(FrameType::processing_session_created), place(FrameType::inference_request));
}

// A stream of one session shows all that is done for its requests, whatever the events are about, and nothing else.
TEST(Design_2_7_session_events, what_is_done_for_a_session_names_it) {
  SessionStage stage(settings_of(1));
  stage.ready();
  const std::string id = stage.create("{}");
  stage.request_in(id);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.say("w0", FrameType::model_loading_progress,
            ModelLoadingProgress{tiny, "loading", Percent{50}, 75_MiB, Timestamp{}, {}}, 0,
            cat("load:", transaction.str()));
  stage.loaded("w0", transaction);
  const std::string run = stage.sent(FrameType::inference_request).back().envelope.op_id;
  stage.say("w0", FrameType::inference_progress,
            InferenceProgress{run, {5, 20, 2.0, Timestamp{}}, {SizeText{"0B"}, Percent{0}}}, 1, run);
  stage.finish_image();
  std::set<std::string> types;
  for (const out::Publish& each : stage.all<out::Publish>()) {
    for (const CommitEvent& event : each.events) {
      if (event.session == id) types.insert(event.type);
    }
  }
  for (const std::string type :
       {"request_accepted", "model_load_committed", "model_loading_progress", "model_loaded", "inference_request",
        "inference_progress", "inference_completed", "postprocessing_request", "postprocessing_completed",
        "request_completed", "transaction_voting", "transaction_outcome"}) {
    EXPECT_TRUE(types.contains(type)) << type;
  }
  const std::size_t before = stage.all<out::Publish>().size();
  stage.generate(1);
  stage.finish_image();
  const auto all = stage.all<out::Publish>();
  ASSERT_GT(all.size(), before);
  for (std::size_t i = before; i < all.size(); ++i) {
    for (const CommitEvent& event : all[i].events) EXPECT_EQ(event.session, std::nullopt) << event.type;
  }
}

TEST(Design_2_4_session_progress, a_report_of_a_worker_that_was_not_told_changes_nothing) {
  SessionStage stage(settings_of(2));
  stage.ready();
  const std::string id = stage.create("{}");
  stage.request_in(id);
  stage.until_inferring();
  SessionProgressUpdate update;
  update.session_id = id;
  update.progress_metrics.operations_completed = 8;
  stage.say("w0", FrameType::session_progress_update, update);
  EXPECT_EQ(stage.machine.live().session_reports.at(id).size(), 1u);
  stage.say("w1", FrameType::session_progress_update, update);
  EXPECT_EQ(stage.machine.live().session_reports.at(id).size(), 1u);
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId("w1"), "progress"}), 1u);
}

}  // namespace
}  // namespace lockstep::design
