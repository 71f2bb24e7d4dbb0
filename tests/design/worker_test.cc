// The worker's side of §3.5 and §3.7, by hand: frames and handlers' reports in, messages, tasks and the end out.

#include <algorithm>

#include <gtest/gtest.h>

#include "base/text.h"
#include "events/json_read.h"
#include "events/model_events.h"
#include "propagation/framing.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::worker {
namespace {

using namespace std::string_literals;

const ModelId tiny("tiny");
const TransactionId tx("tx_1_1");

class Design_worker : public testing::Test {
 protected:
  Design_worker() : machine(identity()) {}
  static Identity identity(Nanos reconnect_limit = 0) {
    Identity out;
    out.worker_id = WorkerId("w0");
    out.incarnation = Incarnation{4};
    out.pid = 4000;
    out.version = "test";
    out.reconnect_limit = reconnect_limit;
    return out;
  }

  template <class What>
  void input(What what) {
    for (Effect& each : machine.step(Input{now, wall, std::move(what)}).effects) {
      effects.push_back(std::move(each));
    }
  }
  template <class Body>
  static Frame frame_of(FrameType type, const Body& body, std::uint64_t sequence, Epoch epoch = Epoch{1},
                        std::string op_id = {}, std::size_t handles = 0) {
    Envelope envelope;
    envelope.source = {Side::orchestrator, WorkerId("w0"), Incarnation{4}};
    envelope.epoch = epoch;
    envelope.sequence = sequence;
    envelope.attempt = 1;
    envelope.op_id = std::move(op_id);
    envelope.body.text = json::to_text(body);
    return to_frame(type, std::move(envelope), handles);
  }
  template <class Body>
  void hear(FrameType type, const Body& body, std::string op_id = {}, std::vector<HandleId> handles = {}) {
    Frame frame = frame_of(type, body, ++sequence, epoch, std::move(op_id), handles.size());
    input(in::FrameArrived{std::move(frame), std::move(handles)});
  }
  void join() {
    input(in::LinkOpened{});
    hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
    input(in::HandlersReady{});
  }
  void prepare(const TransactionId& transaction) {
    hear(FrameType::transaction_prepare,
         TransactionPrepare{transaction, {tiny, "sdxl", "/m", 150_MiB, {{"unet", 150_MiB, ""}}}}, transaction.str());
  }
  void load() {
    prepare(tx);
    hear(FrameType::transaction_commit, TransactionDecision{tx}, tx.str());
    ModelLoadRequest request;
    request.model_id = tiny;
    hear(FrameType::model_load_request, request, cat("load:", tx.str()), {9});
  }
  template <class What>
  std::vector<What> all() const {
    std::vector<What> out;
    for (const Effect& each : effects) {
      if (const auto* what = std::get_if<What>(&each.what)) out.push_back(*what);
    }
    return out;
  }
  template <class Body>
  std::vector<Body> said(FrameType type) const {
    std::vector<Body> out;
    for (const out::Send& each : all<out::Send>()) {
      if (each.frame.header.type != static_cast<std::uint16_t>(type)) continue;
      const auto envelope = from_frame(each.frame);
      EXPECT_TRUE(envelope.has_value());
      if (envelope) out.push_back(read_message<Body>(*envelope).value_or(Body{}));
    }
    return out;
  }

  Machine machine;
  Nanos now = seconds(1000);
  WallTime wall;
  std::uint64_t sequence = 0;
  Epoch epoch{1};
  std::vector<Effect> effects;
};

// §1.3: what a single file borrows is another model's: it is read and not kept for the next orchestrator.
TEST_F(Design_worker, a_borrowed_configuration_is_handed_to_the_load_and_not_kept) {
  join();
  LoadPlan plan{tiny, "sdxl", "/m", 150_MiB, {}};
  plan.components.resize(2);
  plan.components[0].name = "checkpoint";
  plan.components[1].name = "configuration";
  plan.components[1].model_id = ModelId("folder");
  hear(FrameType::transaction_prepare, TransactionPrepare{tx, plan}, tx.str());
  hear(FrameType::transaction_commit, TransactionDecision{tx}, tx.str());
  ModelLoadRequest request;
  request.model_id = tiny;
  hear(FrameType::model_load_request, request, cat("load:", tx.str()), {9, 10});
  const auto started = all<out::StartTask>();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].handles, (std::vector<HandleId>{9, 10}));
  ASSERT_EQ(all<out::KeepSegment>().size(), 1u);
  EXPECT_EQ(all<out::KeepSegment>()[0].component, "checkpoint");
}

// §2.1: a power limit is confirmed when the driver has it, and not before; a refusal is told with its reason.
class Design_2_1_power_limit : public Design_worker {
 protected:
  Design_2_1_power_limit() { join(); }
  /// The whole of what is intended for the device, told as change number `rev`.
  void intend(std::uint64_t rev, std::optional<std::uint32_t> watts) {
    DeviceConfigUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.changes.optimization_profile = "balanced";
    update.changes.power_limit = watts;
    StateChanges changes;
    changes.rev = rev;
    changes.events = {{std::string(DeviceConfigUpdate::event_type), "gpu_0", rev, RawJson{json::to_text(update)}}};
    hear(FrameType::state_changes, changes, "change");
  }
  std::vector<AppliedResult> answered() const {
    std::vector<AppliedResult> out;
    for (const StateApplied& each : said<StateApplied>(FrameType::state_applied)) {
      out.insert(out.end(), each.results.begin(), each.results.end());
    }
    return out;
  }
};

TEST_F(Design_2_1_power_limit, it_is_confirmed_when_the_driver_has_it) {
  intend(1, 350);
  const auto orders = all<out::SetPowerLimit>();
  ASSERT_EQ(orders.size(), 1u);
  EXPECT_EQ(orders[0].watts, 350u);
  EXPECT_TRUE(answered().empty());
  input(in::PowerLimitSet{orders[0].number, ""});
  ASSERT_EQ(answered().size(), 1u);
  EXPECT_EQ(answered()[0].outcome, AppliedOutcome::applied);
  EXPECT_EQ(machine.settings().power_limit, 350u);
}

TEST_F(Design_2_1_power_limit, a_refusal_is_told_with_the_drivers_reason_also_when_asked_again) {
  intend(1, 350);
  input(in::PowerLimitSet{all<out::SetPowerLimit>()[0].number, "the driver refuses 350 W: no permission"});
  intend(1, 350);  // its answer was lost
  ASSERT_EQ(answered().size(), 2u);
  for (const AppliedResult& each : answered()) {
    EXPECT_EQ(each.outcome, AppliedOutcome::rejected);
    ASSERT_TRUE(each.settings.has_value());
    EXPECT_EQ(each.settings->front().setting, "power_limit");
    EXPECT_NE(each.reason.find("no permission"), std::string::npos);
  }
  EXPECT_FALSE(machine.settings().power_limit.has_value());
  EXPECT_EQ(machine.settings().optimization_profile, "balanced");
}

TEST_F(Design_2_1_power_limit, a_newer_limit_makes_the_answers_of_older_ones_wait) {
  intend(1, 350);
  intend(2, 300);
  const auto orders = all<out::SetPowerLimit>();
  ASSERT_EQ(orders.size(), 2u);
  input(in::PowerLimitSet{orders[0].number, "too late"});
  EXPECT_TRUE(answered().empty());
  input(in::PowerLimitSet{orders[1].number, ""});
  ASSERT_EQ(answered().size(), 2u);
  EXPECT_EQ(answered()[0].rev, 1u);
  EXPECT_EQ(answered()[1].rev, 2u);
  EXPECT_EQ(answered()[0].outcome, AppliedOutcome::applied);
  EXPECT_EQ(machine.settings().power_limit, 300u);
}

// Intended and confirmed stay apart: what the driver has is what it last took.
TEST_F(Design_2_1_power_limit, what_is_refused_leaves_the_limit_of_before) {
  intend(1, 200);
  input(in::PowerLimitSet{1, ""});
  intend(2, 350);
  input(in::PowerLimitSet{2, "too much"});
  EXPECT_EQ(machine.settings().power_limit, 200u);
  intend(3, std::nullopt);
  input(in::PowerLimitSet{3, "no permission"});
  ASSERT_EQ(answered().size(), 3u);
  EXPECT_EQ(answered()[2].outcome, AppliedOutcome::rejected);
  EXPECT_EQ(machine.settings().power_limit, 200u);
}

TEST_F(Design_2_1_power_limit, without_one_the_drivers_own_comes_back_once) {
  intend(1, std::nullopt);
  EXPECT_TRUE(all<out::SetPowerLimit>().empty());  // nothing was set: nothing is asked of the driver
  EXPECT_EQ(answered().size(), 1u);
  intend(2, 350);
  input(in::PowerLimitSet{1, ""});
  intend(3, std::nullopt);
  ASSERT_EQ(all<out::SetPowerLimit>().size(), 2u);
  EXPECT_FALSE(all<out::SetPowerLimit>()[1].watts.has_value());
  input(in::PowerLimitSet{2, ""});
  intend(4, std::nullopt);
  EXPECT_EQ(all<out::SetPowerLimit>().size(), 2u);
  EXPECT_EQ(answered().size(), 4u);
}

// §2.7: a worker places its own sample by the temperature that the device's policy calls critical.
class Design_2_7_critical_temperature : public Design_worker {
 protected:
  Design_2_7_critical_temperature() { join(); }
  void tell(std::uint64_t rev, std::optional<double> limit) {
    DeviceConfigUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.temperature_critical = limit;
    StateChanges changes;
    changes.rev = rev;
    changes.events = {{std::string(DeviceConfigUpdate::event_type), "gpu_0", rev, RawJson{json::to_text(update)}}};
    hear(FrameType::state_changes, changes, "change");
  }
  /// The lane of a sample of this temperature, which is the same to whoever reads it later.
  Urgency lane_at(double temperature) {
    in::Telemetry reading;
    reading.health.temperature = temperature;
    input(reading);
    std::optional<Urgency> lane;
    for (const out::Send& each : all<out::Send>()) {
      if (each.frame.header.type != static_cast<std::uint16_t>(FrameType::device_health_update)) continue;
      lane = each.frame.header.urgency;
    }
    const DeviceHealthUpdate update = said<DeviceHealthUpdate>(FrameType::device_health_update).back();
    EXPECT_EQ(place(FrameType::device_health_update, update, "").lane, lane);
    EXPECT_EQ(update.propagation_urgency == AllocationPriority::critical, lane == Urgency::p0_critical);
    return *lane;
  }
};

TEST_F(Design_2_7_critical_temperature, a_policy_of_80_makes_a_sample_of_85_urgent) {
  tell(1, 80);
  EXPECT_EQ(lane_at(85), Urgency::p0_critical);
  EXPECT_EQ(lane_at(79), Urgency::p3_low);
}

TEST_F(Design_2_7_critical_temperature, a_policy_of_95_leaves_a_sample_of_92_a_sample) {
  tell(1, 95);
  EXPECT_EQ(lane_at(92), Urgency::p3_low);
  EXPECT_EQ(lane_at(95), Urgency::p0_critical);
}

TEST_F(Design_2_7_critical_temperature, it_is_90_as_long_as_nobody_told_another) {
  EXPECT_EQ(lane_at(89), Urgency::p3_low);
  EXPECT_EQ(lane_at(90), Urgency::p0_critical);
  tell(1, 95);
  tell(2, std::nullopt);  // the whole of what is set comes each time
  EXPECT_EQ(lane_at(90), Urgency::p0_critical);
}

TEST_F(Design_worker, it_says_hello_first_and_ready_when_its_handlers_are_there) {
  input(in::LinkOpened{});
  ASSERT_EQ(all<out::Send>().size(), 1u);
  const auto hello = said<Hello>(FrameType::hello);
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(hello[0].worker_id, WorkerId("w0"));
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  EXPECT_TRUE(said<Ready>(FrameType::ready).empty());
  input(in::HandlersReady{});
  EXPECT_EQ(said<Ready>(FrameType::ready).size(), 1u);
  const auto frames = all<out::Send>();
  for (std::size_t i = 0; i < frames.size(); ++i) {
    EXPECT_EQ(frames[i].frame.header.sequence, 0u) << "numbered when it leaves its lane";
  }
}

// §3.5
TEST_F(Design_worker, a_committed_load_reaches_the_handler_with_its_descriptors) {
  join();
  load();
  ASSERT_EQ(said<TransactionVote>(FrameType::transaction_vote).size(), 1u);
  EXPECT_EQ(said<TransactionVote>(FrameType::transaction_vote)[0].prepare_result, Vote::vote_commit);
  EXPECT_EQ(said<TransactionAck>(FrameType::transaction_ack).size(), 1u);
  const auto tasks = all<out::StartTask>();
  ASSERT_EQ(tasks.size(), 1u);
  EXPECT_EQ(tasks[0].kind, "load");
  EXPECT_EQ(tasks[0].handles, std::vector<HandleId>{9});
  EXPECT_EQ(machine.used(), 150_MiB);
}

// What is still there is known to nobody then: the ledger may count it as free when this process is gone.
TEST_F(Design_worker, a_release_whose_result_cannot_be_read_ends_it) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  hear(FrameType::model_release, ModelRelease{tiny}, "release:tiny");
  ASSERT_EQ(all<out::StartTask>().back().kind, "release");
  input(in::TaskDone{all<out::StartTask>().back().task, "[]", {}});
  EXPECT_TRUE(said<TaskFailed>(FrameType::task_failed).empty()) << "nobody waits for a release that fails";
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_EQ(all<out::Exit>()[0].status, 4);
}

TEST_F(Design_worker, nothing_is_loaded_that_was_not_committed) {
  join();
  prepare(tx);
  ModelLoadRequest request;
  request.model_id = tiny;
  hear(FrameType::model_load_request, request, "load:tx_1_1", {9});
  EXPECT_TRUE(all<out::StartTask>().empty());
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_NE(all<out::Exit>()[0].status, 0);
  ASSERT_EQ(all<out::DropHandle>().size(), 1u);
  EXPECT_EQ(all<out::DropHandle>()[0].handle, 9u);
}

TEST_F(Design_worker, a_commit_of_what_was_never_promised_ends_it) {
  join();
  hear(FrameType::transaction_commit, TransactionDecision{tx}, tx.str());
  EXPECT_TRUE(said<TransactionAck>(FrameType::transaction_ack).empty());
  EXPECT_EQ(all<out::Exit>().size(), 1u);
}

TEST_F(Design_worker, an_abort_gives_the_promise_back_and_a_late_prepare_votes_no) {
  join();
  prepare(tx);
  EXPECT_EQ(machine.used(), 150_MiB);
  hear(FrameType::transaction_abort, TransactionDecision{tx});
  EXPECT_EQ(machine.used(), 0_GiB);
  prepare(tx);
  const auto votes = said<TransactionVote>(FrameType::transaction_vote);
  ASSERT_EQ(votes.size(), 2u);
  EXPECT_EQ(votes[1].prepare_result, Vote::vote_abort);
}

TEST_F(Design_worker, a_failed_load_gives_its_bytes_back) {
  join();
  load();
  input(in::TaskFailed{1, "resource_exhausted", "no room"});
  EXPECT_EQ(machine.used(), 0_GiB);
  const auto failures = said<TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(failures[0].code, "resource_exhausted");
}

TEST_F(Design_worker, a_task_is_answered_once) {
  join();
  load();
  const in::TaskDone done{1, json::to_text(LoadDone{150_MiB, 1.0}), {}};
  input(done);
  ASSERT_EQ(said<ModelLoadingProgress>(FrameType::model_loading_progress).size(), 1u);
  const std::size_t frames = all<out::Send>().size();
  input(in::TaskDone{1, done.report, {31, 32}});
  input(in::TaskFailed{1, "internal", "late"});
  input(in::TaskProgress{1, json::to_text(LoadReport{"unet", Ratio{1}, 150_MiB})});
  EXPECT_EQ(all<out::Send>().size(), frames);
  EXPECT_EQ(all<out::DropHandle>().size(), 2u);  // what came with the second answer
  EXPECT_EQ(machine.used(), 150_MiB);
}

TEST_F(Design_worker, load_progress_names_the_component) {
  join();
  load();
  input(in::TaskProgress{1, json::to_text(LoadReport{"unet", Ratio{0.5}, 75_MiB})});
  const auto progress = said<ModelLoadingProgress>(FrameType::model_loading_progress);
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].loading_stage, "loading_unet");
  EXPECT_EQ(progress[0].progress_percentage.value, 50.0);
}

// §3.7: without an acknowledgement for 20 s it fences itself: no new promise, no new work.
TEST_F(Design_worker, after_20_s_without_an_acknowledgement_it_votes_abort) {
  join();
  now += self_fence;
  prepare(TransactionId("tx_1_1"));
  now += 1;
  prepare(TransactionId("tx_1_2"));
  const auto votes = said<TransactionVote>(FrameType::transaction_vote);
  ASSERT_EQ(votes.size(), 2u);
  EXPECT_EQ(votes[0].prepare_result, Vote::vote_commit);
  EXPECT_EQ(votes[1].prepare_result, Vote::vote_abort);
  EXPECT_NE(votes[1].reason.find("fenced"), std::string::npos) << votes[1].reason;
  EXPECT_EQ(machine.used(), 150_MiB);  // only the first
}

TEST_F(Design_worker, an_acknowledgement_ends_the_fence) {
  join();
  now += self_fence + seconds(5);
  hear(FrameType::heartbeat_ack, Heartbeat{});
  prepare(tx);
  ASSERT_EQ(said<TransactionVote>(FrameType::transaction_vote).size(), 1u);
  EXPECT_EQ(said<TransactionVote>(FrameType::transaction_vote)[0].prepare_result, Vote::vote_commit);
}

TEST_F(Design_worker, a_fenced_worker_takes_no_inference) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  now += self_fence + 1;
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  request.inference_parameters.prompt = "x";
  hear(FrameType::inference_request, request, "inf:1");
  EXPECT_EQ(all<out::StartTask>().size(), 1u);  // the load
  const auto failures = said<TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(failures[0].code, "unavailable");
}

// §2.5: a handler's answer obeys the ranges of the message that is made of it. One that does not fails its task, and
// not the link, which the other side would have to cut.
TEST_F(Design_worker, an_answer_out_of_range_fails_the_task_with_the_place) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  request.inference_parameters.prompt = "x";
  hear(FrameType::inference_request, request, "inf:1");
  ASSERT_EQ(all<out::StartTask>().size(), 2u);
  input(in::TaskDone{2, json::to_text(InferenceDone{1.0, 4, 8, 8, 192, "", 1_MiB, 87.5}), {31}});
  EXPECT_TRUE(said<InferenceCompleted>(FrameType::inference_completed).empty());
  const auto failures = said<TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(failures[0].message,
            "the inference handler answered badly at \"/result_quality_score\": 87.5 is outside 0 to 10");
}

// Design §6: a frame that does not continue this link, or cannot be read, ends the process; nothing follows it.
TEST_F(Design_worker, a_frame_that_does_not_continue_the_link_ends_it) {
  const auto ends = [](auto spoil) {
    Machine other(identity());
    other.step(Input{0, WallTime{}, in::LinkOpened{}});
    Frame frame = frame_of(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true}, 1);
    spoil(frame);
    const auto plan = other.step(Input{0, WallTime{}, in::FrameArrived{frame, {}}});
    const bool exits = std::ranges::any_of(
        plan.effects, [](const Effect& each) { return std::holds_alternative<out::Exit>(each.what); });
    EXPECT_EQ(exits, other.ended());
    return exits;
  };
  EXPECT_FALSE(ends([](Frame&) {}));
  EXPECT_TRUE(ends([](Frame& frame) { frame.header.sequence = 2; }));
  EXPECT_TRUE(ends([](Frame& frame) { frame.header.incarnation = Incarnation{3}; }));
  EXPECT_TRUE(ends([](Frame& frame) { frame.body.pop_back(); }));
  EXPECT_TRUE(ends([](Frame& frame) { frame.header.type = static_cast<std::uint16_t>(FrameType::hello); }));
  EXPECT_TRUE(ends([](Frame& frame) { frame.header.type = 999; }));
}

TEST_F(Design_worker, a_frame_of_another_epoch_ends_it) {
  join();
  input(in::FrameArrived{frame_of(FrameType::heartbeat_ack, Heartbeat{}, sequence + 1, Epoch{2}), {}});
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_TRUE(machine.ended());
  const std::size_t before = effects.size();
  prepare(tx);
  input(in::TimerFired{"heartbeat"});
  EXPECT_EQ(effects.size(), before);
}

TEST_F(Design_worker, the_end_of_its_link_is_its_end) {
  join();
  input(in::LinkClosed{"the other side closed it"});
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_EQ(all<out::Exit>()[0].status, 0);
}

// ---- coming back, §3.7 ---------------------------------------------------------------------------------------------

class Design_3_7_rejoin : public Design_worker {
 protected:
  Design_3_7_rejoin() { machine = Machine(identity(seconds(30))); }
  void lose_link() { input(in::LinkClosed{"the other side closed it"}); }
  void find_orchestrator() {
    input(in::LinkOpened{});
    sequence = 0;
    epoch = Epoch{2};
  }
  Rejoin told() const {
    const auto hellos = said<Hello>(FrameType::hello);
    EXPECT_TRUE(hellos.back().rejoin.has_value());
    return hellos.back().rejoin.value_or(Rejoin{});
  }
  void welcome() { hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token 2", true}); }
};

TEST_F(Design_3_7_rejoin, it_looks_for_an_orchestrator_and_tells_everything_it_holds) {
  join();
  load();
  prepare(TransactionId("tx_1_2"));  // the same model: voted down, so it promises nothing
  hear(FrameType::transaction_prepare,
       TransactionPrepare{TransactionId("tx_1_3"), {ModelId("other"), "sdxl", "/m", 100_MiB, {}}}, "tx_1_3");
  lose_link();
  ASSERT_EQ(all<out::Dial>().size(), 1u);
  EXPECT_FALSE(machine.ended());
  find_orchestrator();
  const Rejoin rejoin = told();
  EXPECT_EQ(rejoin.cluster_id, "cluster");
  EXPECT_EQ(rejoin.token, "token");
  EXPECT_EQ(rejoin.last_epoch, Epoch{1});
  ASSERT_EQ(rejoin.holdings.size(), 2u);
  EXPECT_EQ(rejoin.holdings[0].model_id, ModelId("other"));
  EXPECT_EQ(rejoin.holdings[0].state, HoldingState::promised);
  EXPECT_EQ(rejoin.holdings[1].model_id, tiny);
  EXPECT_EQ(rejoin.holdings[1].transaction_id, tx);
  EXPECT_EQ(rejoin.holdings[1].state, HoldingState::loading);
  ASSERT_EQ(rejoin.tasks.size(), 1u);
  EXPECT_EQ(rejoin.tasks[0].op_id, cat("load:", tx.str()));
  ASSERT_EQ(rejoin.segments.size(), 1u);
  EXPECT_EQ(rejoin.segments[0].component, "unet");
  EXPECT_EQ(all<out::Send>().back().segments.size(), 1u);
}

TEST_F(Design_3_7_rejoin, an_answer_without_a_link_follows_the_next_welcome) {
  join();
  load();
  lose_link();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  EXPECT_TRUE(said<ModelLoadingProgress>(FrameType::model_loading_progress).empty());
  find_orchestrator();
  EXPECT_EQ(told().holdings.at(0).state, HoldingState::loading);  // its answer is on the way
  EXPECT_EQ(told().tasks.size(), 1u);
  EXPECT_TRUE(said<ModelLoadingProgress>(FrameType::model_loading_progress).empty());
  welcome();
  ASSERT_EQ(said<ModelLoadingProgress>(FrameType::model_loading_progress).size(), 1u);
  EXPECT_EQ(said<ModelLoadingProgress>(FrameType::model_loading_progress)[0].loading_stage, "loaded");
  lose_link();
  find_orchestrator();
  EXPECT_EQ(told().holdings.at(0).state, HoldingState::loaded);
  EXPECT_EQ(told().token, "token 2");
  EXPECT_TRUE(told().tasks.empty());
}

// What is asked again is the request that is due; another one under its id was refused.
TEST_F(Design_3_7_rejoin, of_two_requests_with_one_id_the_first_is_asked_again) {
  join();
  for (const Bytes bytes : {100_MiB, 200_MiB}) {
    input(in::AskMemory{{"r1", bytes, "inference", AllocationPriority::normal, DurationText{"5min"}}});
  }
  lose_link();
  find_orchestrator();
  welcome();
  const auto asked = said<MemoryAllocationRequest>(FrameType::memory_allocation_request);
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_EQ(asked[1].requested_bytes, 200_MiB);
  EXPECT_EQ(asked[2].requested_bytes, 100_MiB);
}

TEST_F(Design_3_7_rejoin, nothing_is_said_between_the_hello_and_the_welcome) {
  join();
  lose_link();
  find_orchestrator();
  const std::size_t before = all<out::Send>().size();
  input(in::TimerFired{"heartbeat"});
  input(in::Telemetry{{}, Bytes{}, Ratio{0}});
  EXPECT_EQ(all<out::Send>().size(), before);
}

TEST_F(Design_3_7_rejoin, it_ends_when_nobody_is_found_in_time) {
  join();
  lose_link();
  for (int i = 0; i < 10; ++i) {
    now += seconds(2);
    input(in::DialFailed{"nobody listens"});
    EXPECT_LE(all<out::ArmTimer>().back().deadline, now + seconds(1));
    input(in::TimerFired{"dial"});
  }
  EXPECT_FALSE(machine.ended());
  EXPECT_EQ(all<out::Dial>().size(), 11u);
  now += seconds(11);
  input(in::DialFailed{"nobody listens"});
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_EQ(all<out::Exit>()[0].status, 0);
}

TEST_F(Design_3_7_rejoin, a_refusal_that_is_not_final_is_one_more_failed_try) {
  join();
  lose_link();
  find_orchestrator();
  hear(FrameType::refused, Refused{"the server is stopping", true});
  EXPECT_EQ(all<out::DropLink>().size(), 1u);
  EXPECT_FALSE(machine.ended());
  input(in::TimerFired{"dial"});
  EXPECT_EQ(all<out::Dial>().size(), 2u);
  find_orchestrator();
  hear(FrameType::refused, Refused{"incarnation 4 is over", false});
  ASSERT_EQ(all<out::Exit>().size(), 1u);
  EXPECT_EQ(all<out::Exit>()[0].status, 5);
  EXPECT_NE(all<out::Exit>()[0].reason.find("incarnation 4 is over"), std::string::npos);
}

TEST_F(Design_3_7_rejoin, a_worker_that_dials_offers_its_device_and_takes_the_incarnation_it_is_given) {
  Identity stranger = identity(seconds(30));
  stranger.incarnation = Incarnation{};
  stranger.secret = "sesame";
  stranger.device = OfferedDevice{"cpu", 2_GiB};
  machine = Machine(stranger);
  input(in::DialNow{});
  ASSERT_EQ(all<out::Dial>().size(), 1u);
  input(in::LinkOpened{});
  const Hello hello = said<Hello>(FrameType::hello).at(0);
  EXPECT_EQ(hello.secret, "sesame");
  ASSERT_TRUE(hello.device.has_value());
  EXPECT_EQ(hello.device->memory_budget, 2_GiB);
  EXPECT_FALSE(hello.rejoin.has_value());
  welcome();  // of incarnation 4
  input(in::HandlersReady{});
  EXPECT_EQ(all<out::Send>().back().frame.header.incarnation, Incarnation{4});
}

// §1.1: baseline and deviation; §2.1: the four numbers to the letter, the rest behind them.
TEST_F(Design_worker, health_carries_the_readings_and_names_what_departs_from_its_baseline) {
  join();
  in::Telemetry reading;
  reading.health.error_count = 2;  // of the hardware; a handler's failures are added
  reading.diagnostics.power_draw = 300;
  for (int i = 0; i < 40; ++i) {
    reading.health.temperature = i % 2 == 0 ? 60 : 62;
    input(reading);
  }
  reading.health.temperature = 95;
  input(reading);
  const std::vector<DeviceHealthUpdate> said_all = said<DeviceHealthUpdate>(FrameType::device_health_update);
  ASSERT_EQ(said_all.size(), 41u);
  EXPECT_EQ(said_all[0].health_metrics.error_count, 2u);
  ASSERT_TRUE(said_all[39].diagnostics.has_value());
  EXPECT_EQ(said_all[39].diagnostics->power_draw, 300);
  EXPECT_TRUE(said_all[39].diagnostics->deviations.empty());
  ASSERT_EQ(said_all[40].diagnostics->deviations.size(), 1u);
  EXPECT_EQ(said_all[40].diagnostics->deviations[0].metric, "temperature");
}

// §2.2: a level of pressure rises at its limit and falls only clearly below it, as the orchestrator's does: a device
// that swings about a limit is not a new alert each time.
TEST_F(Design_worker, the_pressure_that_is_told_has_hysteresis) {
  join();
  const auto level = [&](std::uint64_t percent) {
    in::Telemetry reading;
    reading.used = Bytes{percent * (1_GiB).value / 100};
    input(reading);
    return said<VramUsageUpdate>(FrameType::vram_usage_update).back().pressure_level;
  };
  EXPECT_EQ(level(88), PressureLevel::moderate);  // from 90 on it is high
  EXPECT_EQ(level(91), PressureLevel::high);
  EXPECT_EQ(level(88), PressureLevel::high);
  EXPECT_EQ(level(86), PressureLevel::moderate);
  EXPECT_EQ(level(96), PressureLevel::critical);
  EXPECT_TRUE(said<VramUsageUpdate>(FrameType::vram_usage_update).back().cleanup_recommended);
  EXPECT_EQ(level(93), PressureLevel::critical);
  EXPECT_EQ(level(50), PressureLevel::low);
  EXPECT_EQ(level(120), PressureLevel::critical);  // more than the budget: nothing is left, and not a huge rest
  EXPECT_EQ(said<VramUsageUpdate>(FrameType::vram_usage_update).back().vram_metrics.available_vram, Bytes{});
}

// §1.1: a driver that answers late is told of when it does, and to every later orchestrator.
TEST_F(Design_worker, capabilities_that_are_found_late_are_told_then_and_after_each_welcome) {
  DeviceCapabilityDiscovered found;
  found.new_capabilities = {"fp16_inference"};
  input(in::LinkOpened{});
  input(in::CapabilitiesFound{found});
  EXPECT_TRUE(said<DeviceCapabilityDiscovered>(FrameType::device_capability_discovered).empty());
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  found.new_capabilities.emplace_back("bf16_inference");
  input(in::CapabilitiesFound{found});
  const auto told = said<DeviceCapabilityDiscovered>(FrameType::device_capability_discovered);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].device_id, DeviceId("gpu_0"));
  EXPECT_EQ(told[1].new_capabilities.size(), 2u);
}

// §1.1 calibration: the worker's side.
class Design_1_1_calibration_worker : public Design_worker {
 protected:
  Design_1_1_calibration_worker() : Design_worker() { machine = Machine(identity(seconds(30))); }
  void order(const std::string& device = "gpu_0") {
    hear(FrameType::device_calibrate, DeviceCalibrate{DeviceId(device)}, "calibrate:gpu_0");
  }
  void measured(double score) {
    DeviceCapabilityDiscovered found;
    found.capability_scores.items = {{"memory_bandwidth", score}};
    ASSERT_FALSE(all<out::Calibrate>().empty());
    input(in::Calibrated{all<out::Calibrate>().back().task, found});
  }
  /// Of each report of capabilities: the op_id and the score.
  std::vector<std::pair<std::string, double>> reports() const {
    std::vector<std::pair<std::string, double>> out;
    for (const out::Send& each : all<out::Send>()) {
      if (each.frame.header.type != static_cast<std::uint16_t>(FrameType::device_capability_discovered)) continue;
      const Envelope envelope = from_frame(each.frame).value();
      const auto body = json::from_text<DeviceCapabilityDiscovered>(envelope.body.text).value();
      EXPECT_EQ(body.device_id, DeviceId("gpu_0"));
      out.emplace_back(envelope.op_id, *body.capability_scores.find("memory_bandwidth"));
    }
    return out;
  }
  std::string failure() const {
    const auto failed = said<lockstep::TaskFailed>(FrameType::task_failed);
    return failed.empty() ? "" : failed.back().message;
  }
  void heat(double temperature) {
    in::Telemetry reading;
    reading.health.temperature = temperature;
    input(reading);
  }
};

TEST_F(Design_1_1_calibration_worker, it_measures_and_reports_and_tells_it_to_later_orchestrators) {
  join();
  order();
  ASSERT_EQ(all<out::Calibrate>().size(), 1u);
  EXPECT_TRUE(reports().empty());
  measured(5);
  ASSERT_EQ(reports().size(), 1u);
  EXPECT_EQ(reports()[0], std::pair("calibrate:gpu_0"s, 5.0));
  input(in::LinkClosed{"reset"});
  input(in::LinkOpened{});
  sequence = 0;
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  ASSERT_EQ(reports().size(), 2u);
  EXPECT_EQ(reports()[1], std::pair(""s, 5.0));
}

TEST_F(Design_1_1_calibration_worker, its_baselines_begin_anew) {
  join();
  for (int i = 0; i < 40; ++i) heat(60);
  heat(95);
  EXPECT_EQ(said<DeviceHealthUpdate>(FrameType::device_health_update).back().diagnostics->deviations.size(), 1u);
  order();
  measured(5);
  heat(95);
  EXPECT_TRUE(said<DeviceHealthUpdate>(FrameType::device_health_update).back().diagnostics->deviations.empty());
}

TEST_F(Design_1_1_calibration_worker, it_does_not_measure_beside_a_task) {
  join();
  load();
  order();
  EXPECT_TRUE(all<out::Calibrate>().empty());
  EXPECT_NE(failure().find("beside a running load"), std::string::npos) << failure();
}

TEST_F(Design_1_1_calibration_worker, another_device_is_refused) {
  join();
  order("gpu_1");
  EXPECT_TRUE(all<out::Calibrate>().empty());
  EXPECT_EQ(failure(), "this worker has gpu_0");
}

TEST_F(Design_1_1_calibration_worker, a_probe_that_fails_changes_nothing_and_says_why) {
  join();
  for (int i = 0; i < 40; ++i) heat(60);
  order();
  input(in::Calibrated{all<out::Calibrate>().back().task, fail(ErrorCode::unavailable, "no NVIDIA driver")});
  EXPECT_EQ(failure(), "no NVIDIA driver");
  EXPECT_TRUE(reports().empty());
  heat(95);
  EXPECT_EQ(said<DeviceHealthUpdate>(FrameType::device_health_update).back().diagnostics->deviations.size(), 1u);
  input(in::Calibrated{all<out::Calibrate>().back().task, fail(ErrorCode::unavailable, "again")});
  EXPECT_EQ(failure(), "no NVIDIA driver") << "it is answered once";
}

// §3.7: it is a task like others to an orchestrator that it comes back to; its answer is told there.
TEST_F(Design_1_1_calibration_worker, one_that_ends_without_a_link_is_answered_over_the_next) {
  join();
  order();
  input(in::LinkClosed{"reset"});
  input(in::LinkOpened{});
  const auto rejoin = said<Hello>(FrameType::hello).back().rejoin;
  ASSERT_TRUE(rejoin.has_value());
  ASSERT_EQ(rejoin->tasks.size(), 1u);
  EXPECT_EQ(rejoin->tasks[0].op_id, "calibrate:gpu_0");
  measured(5);
  EXPECT_TRUE(reports().empty());
  sequence = 0;
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  ASSERT_EQ(reports().size(), 2u);
  EXPECT_EQ(reports()[1], std::pair("calibrate:gpu_0"s, 5.0));
}

// §1.3, §2.3: runtime state of a model: ready, warm, how long an inference takes.
TEST_F(Design_worker, a_models_runtime_is_told_after_its_load_and_after_each_inference) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  std::vector<ModelRuntimeUpdate> told_all = said<ModelRuntimeUpdate>(FrameType::model_runtime_update);
  ASSERT_EQ(told_all.size(), 1u);
  EXPECT_EQ(told_all[0].model_id, tiny);
  EXPECT_TRUE(told_all[0].runtime_metrics.inference_ready);
  EXPECT_FALSE(told_all[0].runtime_metrics.warmup_completed);
  EXPECT_GT(told_all[0].memory_footprint, Bytes{});
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  request.inference_parameters.prompt = "x";
  for (const double seconds_taken : {2.0, 4.0}) {
    hear(FrameType::inference_request, request, "inf:1");
    InferenceDone done;
    done.execution_time = seconds_taken;
    done.total_steps_executed = 4;
    input(in::TaskDone{all<out::StartTask>().back().task, json::to_text(done), {7}});
  }
  told_all = said<ModelRuntimeUpdate>(FrameType::model_runtime_update);
  ASSERT_EQ(told_all.size(), 3u);
  EXPECT_TRUE(told_all[2].runtime_metrics.warmup_completed);
  EXPECT_EQ(told_all[2].runtime_metrics.average_inference_time, 3.0);
}

// §2.3: how far a load is says when it will be done, and its optimization is what the handler says of it.
TEST_F(Design_worker, the_end_of_a_load_is_extrapolated_from_how_far_it_is) {
  join();
  wall = WallTime{1'000'000};
  load();
  const auto estimate = [&](double fraction) {
    input(in::TaskProgress{1, json::to_text(LoadReport{"unet", Ratio{fraction}, 10_MiB})});
    return said<ModelLoadingProgress>(FrameType::model_loading_progress).back().estimated_completion;
  };
  EXPECT_EQ(estimate(0), Timestamp::of(wall));  // of nothing nothing can be told
  now += seconds(3);
  wall.ms += 3000;
  EXPECT_EQ(estimate(0.25), Timestamp::of({wall.ms + 9000}));
  EXPECT_EQ(estimate(1), Timestamp::of(wall));
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 3, "tensorrt"}), {}});
  const RuntimeMetrics told = said<ModelRuntimeUpdate>(FrameType::model_runtime_update).back().runtime_metrics;
  EXPECT_EQ(told.optimization_level, "tensorrt");
  EXPECT_TRUE(told.inference_ready);
}

// §2.3: a model that is on its way out is not ready for an inference, also to the next orchestrator.
TEST_F(Design_worker, a_model_that_is_being_released_is_not_ready) {
  machine = Machine(identity(seconds(30)));
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1}), {}});
  EXPECT_TRUE(said<ModelRuntimeUpdate>(FrameType::model_runtime_update).back().runtime_metrics.inference_ready);
  EXPECT_EQ(said<ModelRuntimeUpdate>(FrameType::model_runtime_update).back().runtime_metrics.optimization_level,
            "none");
  hear(FrameType::model_release, ModelRelease{tiny}, "release:tiny");
  input(in::LinkClosed{"reset"});
  input(in::LinkOpened{});
  sequence = 0;
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  const auto told = said<ModelRuntimeUpdate>(FrameType::model_runtime_update);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_FALSE(told[1].runtime_metrics.inference_ready);
}

// §2.5: progress carries the utilization of the newest sample, and a result what the handler recommends.
TEST_F(Design_worker, an_inference_tells_the_utilization_and_what_is_recommended) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1}), {}});
  in::Telemetry reading;
  reading.health.utilization = Percent{94.7};
  input(reading);
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  hear(FrameType::inference_request, request, "inf:1");
  wall = WallTime{5'000'000};
  input(in::TaskProgress{2, json::to_text(InferenceReport{18, 30, 0.5})});
  const auto progress = said<InferenceProgress>(FrameType::inference_progress);
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].resource_utilization.gpu_utilization, Percent{94.7});
  EXPECT_EQ(progress[0].resource_utilization.vram_usage, SizeText::of(150_MiB));
  EXPECT_EQ(progress[0].execution_metrics.estimated_completion, Timestamp::of({wall.ms + 6000}));
  InferenceDone done{4.5, 30, 8, 8, 192, std::string(64, 'b'), 200_MiB, 8.5};
  const auto result = [&](std::optional<std::vector<std::string>> recommended) {
    done.postprocessing_recommendations = std::move(recommended);
    input(in::TaskDone{all<out::StartTask>().back().task, json::to_text(done), {7}});
    return said<InferenceCompleted>(FrameType::inference_completed).back();
  };
  const InferenceCompleted first = result(std::vector{"safety_check"s});
  EXPECT_EQ(first.postprocessing_recommendations, std::vector{"safety_check"s});
  EXPECT_EQ(first.result_metadata.final_vram_usage, SizeText::of(200_MiB));
  EXPECT_EQ(first.result_metadata.result_quality_score, 8.5);
  hear(FrameType::inference_request, request, "inf:1");
  EXPECT_TRUE(result(std::nullopt).postprocessing_recommendations.empty());  // nothing is made up
}

// §2.6: the score is the handler's; how long it takes so far the runtime knows by itself.
TEST_F(Design_worker, a_pipeline_tells_its_score_and_its_time) {
  join();
  PostprocessingRequest request;
  request.request_id = "post:1";
  request.source = ImageBuffer{};
  hear(FrameType::postprocessing_request, request, "post:1", {6});
  now += milliseconds(3500);
  PostprocessReport report{"upscaling", 0, 2, Percent{67.3}};
  input(in::TaskProgress{1, json::to_text(report)});
  report.upscaling_quality_score = 8.5;
  report.processing_time = 3.25;
  input(in::TaskProgress{1, json::to_text(report)});
  const auto told = said<PostprocessingProgress>(FrameType::postprocessing_progress);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].pipeline_progress.current_operation_progress, Percent{67.3});
  EXPECT_FALSE(told[0].quality_metrics.upscaling_quality_score.has_value());
  EXPECT_EQ(told[0].quality_metrics.processing_time, 3.5);
  EXPECT_EQ(told[1].quality_metrics.upscaling_quality_score, 8.5);
  EXPECT_EQ(told[1].quality_metrics.processing_time, 3.25);
}

// §1.5 "Model warming": a model of a pipeline is warm when its operation ran, and not before.
TEST_F(Design_worker, a_model_is_warm_once_it_did_its_work_here) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  PostprocessingRequest request;
  request.request_id = "post:1";
  request.source = ImageBuffer{};
  request.postprocessing_pipeline = {{"safety_check", ModelId("other"), {}, {}}, {"upscaling", tiny, {}, {}}};
  const auto run = [&](std::vector<std::string> operations) {
    hear(FrameType::postprocessing_request, request, "post:1", {6});
    PostprocessDone done;
    done.operations = std::move(operations);
    input(in::TaskDone{all<out::StartTask>().back().task, json::to_text(done), {}});
    return said<ModelRuntimeUpdate>(FrameType::model_runtime_update);
  };
  EXPECT_EQ(run({"safety_check"}).size(), 1u);  // the check stopped the pipeline
  const auto told_all = run({"safety_check", "upscaling"});
  ASSERT_EQ(told_all.size(), 2u);
  EXPECT_TRUE(told_all[1].runtime_metrics.warmup_completed);
  EXPECT_EQ(run({"safety_check", "upscaling"}).size(), 2u);  // told once
}

// §1.5 "Model-specific inference configuration": the handler gets the scheduler by its word.
TEST_F(Design_worker, the_scheduler_of_a_request_reaches_the_handler) {
  join();
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1.0}), {}});
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  request.inference_parameters.prompt = "x";
  request.inference_parameters.scheduler = Scheduler::dpm_solver_multistep;
  hear(FrameType::inference_request, request, "inf:1");
  const auto task = json::from_text<InferenceTask>(all<out::StartTask>().back().body);
  ASSERT_TRUE(task.has_value());
  EXPECT_EQ(task->scheduler, "dpm_solver_multistep");
}

TEST_F(Design_worker, a_heartbeat_is_sent_and_armed_again) {
  join();
  now += seconds(2);
  input(in::TimerFired{"heartbeat"});
  EXPECT_EQ(said<Heartbeat>(FrameType::heartbeat).size(), 1u);
  ASSERT_EQ(all<out::ArmTimer>().size(), 2u);
  EXPECT_EQ(all<out::ArmTimer>()[1].deadline, now + seconds(2));
}

// §2.2, §2.4: an answer belongs to the request of its type and id.
class Design_2_2_worker_requests : public Design_worker {
 protected:
  static constexpr const char* memory = "memory_allocation_request";
  static constexpr const char* coordination = "cross_domain_coordination";
  static MemoryAllocationRequest wish(const std::string& id) {
    MemoryAllocationRequest out;
    out.request_id = id;
    return out;
  }
  void answer(const std::string& type, const std::string& id, RequestOutcome outcome) {
    RequestAnswer out;
    out.request_type = type;
    out.request_id = id;
    out.outcome = outcome;
    hear(FrameType::request_answer, out, id);
  }
  std::optional<RequestOutcome> known(const std::string& type, const std::string& id) const {
    const auto place = machine.request_answers().find({type, id});
    return place == machine.request_answers().end() ? std::nullopt : std::optional(place->second.outcome);
  }
};

TEST_F(Design_2_2_worker_requests, two_types_may_have_one_id) {
  machine = Machine(identity(seconds(30)));
  join();
  CrossDomainCoordination need;
  need.session_id = "ses_1";
  need.request_id = "tiles";
  input(in::AskMemory{wish("tiles")});
  input(in::Coordinate{need});
  answer(memory, "tiles", RequestOutcome::granted);
  EXPECT_EQ(known(memory, "tiles"), RequestOutcome::granted);
  EXPECT_FALSE(known(coordination, "tiles").has_value());
  input(in::LinkClosed{"reset"});  // only what has no final answer is asked again
  input(in::LinkOpened{});
  sequence = 0;
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true});
  EXPECT_EQ(said<MemoryAllocationRequest>(FrameType::memory_allocation_request).size(), 1u);
  EXPECT_EQ(said<CrossDomainCoordination>(FrameType::cross_domain_coordination).size(), 2u);
  answer(coordination, "tiles", RequestOutcome::denied);
  EXPECT_EQ(known(memory, "tiles"), RequestOutcome::granted);
  EXPECT_EQ(known(coordination, "tiles"), RequestOutcome::denied);
}

TEST_F(Design_2_2_worker_requests, the_answer_that_came_first_is_forgotten_first) {
  join();
  answer(memory, "zebra", RequestOutcome::granted);
  answer(memory, "queue", RequestOutcome::queued);
  for (int i = 0; i < 254; ++i) answer(memory, cat("a", i), RequestOutcome::granted);
  EXPECT_EQ(machine.request_answers().size(), 256u);
  answer(memory, "queue", RequestOutcome::granted);  // its final answer is its newest
  answer(memory, "b", RequestOutcome::granted);
  EXPECT_FALSE(known(memory, "zebra").has_value());
  answer(memory, "c", RequestOutcome::granted);
  EXPECT_FALSE(known(memory, "a0").has_value()) << "the oldest after it, whatever its name";
  EXPECT_EQ(known(memory, "queue"), RequestOutcome::granted);
  EXPECT_EQ(known(memory, "a1"), RequestOutcome::granted);
  EXPECT_EQ(machine.request_answers().size(), 256u);
}

// A field that is read and not heeded would look like one that was: what this version cannot do it says, with the
// field, the value and what it must be. The specification's own examples are taken.
class Design_2_unsupported : public Design_worker {
 protected:
  Design_2_unsupported() { join(); }
  AppliedResult told(std::uint64_t rev, std::string_view type, std::string body) {
    StateChanges changes;
    changes.rev = rev;
    changes.events = {{std::string(type), "", rev, RawJson{std::move(body)}}};
    hear(FrameType::state_changes, changes, "change");
    return said<StateApplied>(FrameType::state_applied).back().results.at(0);
  }
  std::string policy(const std::string& applies_to, bool at_once = true) {
    return cat(R"({"event_type":"memory_policy_update","policy_changes":{"vram_reservation_limit":"512MB"},)",
               R"("applies_to":)", applies_to, R"(,"effective_immediately":)", at_once ? "true}" : "false}");
  }
  std::string failure() const {
    const auto failed = said<lockstep::TaskFailed>(FrameType::task_failed);
    return failed.empty() ? "" : cat(failed.back().code, ": ", failed.back().message);
  }
};

TEST_F(Design_2_unsupported, routes_hold_at_once_or_are_rejected) {
  const auto routes = [](bool at_once) {
    DeviceRoutingUpdate update;
    update.routing_table.items = {{"inference_primary", DeviceId(at_once ? "gpu_0" : "gpu_1")}};
    update.effective_immediately = at_once;
    return json::to_text(update);
  };
  EXPECT_EQ(told(1, "device_routing_update", routes(true)).outcome, AppliedOutcome::applied);
  const AppliedResult later = told(2, "device_routing_update", routes(false));
  EXPECT_EQ(later.outcome, AppliedOutcome::rejected);
  EXPECT_EQ(later.reason, "effective_immediately is false; a change holds from when it is applied: it must be true");
  EXPECT_EQ(*machine.routing().find("inference_primary"), DeviceId("gpu_0")) << "a rejected change changes nothing";
}

TEST_F(Design_2_unsupported, a_policy_for_others_is_rejected_and_one_for_this_worker_is_not) {
  EXPECT_EQ(told(1, "memory_policy_update", policy(R"(["all_workers"])")).outcome, AppliedOutcome::applied);
  EXPECT_EQ(machine.budget(), 512_MiB);
  EXPECT_EQ(told(2, "memory_policy_update", policy(R"(["w7","w0"])")).outcome, AppliedOutcome::applied);
  const AppliedResult others = told(3, "memory_policy_update", policy(R"(["w7","w8"])"));
  EXPECT_EQ(others.outcome, AppliedOutcome::rejected);
  EXPECT_EQ(others.reason, "applies_to is [w7, w8]; it must name all_workers or w0");
  EXPECT_EQ(told(4, "memory_policy_update", policy(R"(["all_workers"])", false)).outcome, AppliedOutcome::rejected);
}

TEST_F(Design_2_unsupported, a_load_elsewhere_than_into_vram_fails_and_gives_its_promise_back) {
  prepare(tx);
  hear(FrameType::transaction_commit, TransactionDecision{tx}, tx.str());
  ModelLoadRequest request;
  request.model_id = tiny;
  request.load_target = "ram";
  hear(FrameType::model_load_request, request, cat("load:", tx.str()), {9});
  EXPECT_TRUE(all<out::StartTask>().empty());
  EXPECT_EQ(failure(), "invalid_argument: load_target is \"ram\"; it must be vram");
  EXPECT_EQ(machine.used(), Bytes{});
  EXPECT_EQ(all<out::DropHandle>().size(), 1u);
  EXPECT_FALSE(machine.ended());
}

TEST_F(Design_2_unsupported, an_inference_that_needs_more_than_its_base_is_not_made_without_it) {
  load();
  input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1}), {}});
  InferenceRequest request;
  request.request_id = "inf:1";
  request.model_configuration.base_model = tiny;
  const auto asked = [&](const InferenceRequest& each) {
    hear(FrameType::inference_request, each, "inf:1");
    return failure();
  };
  InferenceRequest other = request;
  other.inference_type = "image_to_image";
  EXPECT_EQ(asked(other), "invalid_argument: inference_type is \"image_to_image\"; it must be text_to_image");
  other = request;
  other.model_configuration.refiner_model = ModelId("refiner");
  EXPECT_EQ(asked(other), "invalid_argument: refiner_model is refiner; this version runs the base alone");
  other = request;
  other.model_configuration.lora_models = {ModelId("style")};
  EXPECT_EQ(asked(other), "invalid_argument: lora_models names style; this version runs the base alone");
  EXPECT_EQ(all<out::StartTask>().size(), 1u);  // the load
  hear(FrameType::inference_request, request, "inf:1");
  EXPECT_EQ(all<out::StartTask>().size(), 2u);
}

// §2.6 metadata_preservation: without it the handler is not given what would stand in the file.
TEST_F(Design_2_unsupported, metadata_that_is_not_to_be_preserved_never_reaches_the_handler) {
  PostprocessingRequest request;
  request.request_id = "post:1";
  request.source = ImageBuffer{};
  request.parameters = "a lighthouse";
  request.metadata = {{"seed", RawJson{"7"}}};
  const auto task = [&](bool preserve) {
    request.output_requirements.metadata_preservation = preserve;
    hear(FrameType::postprocessing_request, request, "post:1", {6});
    return json::from_text<PostprocessTask>(all<out::StartTask>().back().body).value();
  };
  EXPECT_EQ(task(true).parameters, "a lighthouse");
  EXPECT_EQ(task(true).metadata.size(), 1u);
  EXPECT_EQ(task(false).parameters, "");
  EXPECT_TRUE(task(false).metadata.empty());
}

// §2.5: images that an inference_orchestration names are one task; each is answered by itself, as soon as it is there.
class Design_2_5_worker_batch : public Design_worker {
 protected:
  Design_2_5_worker_batch() {
    join();
    load();
    input(in::TaskDone{1, json::to_text(LoadDone{150_MiB, 1}), {}});
  }
  void order(std::uint32_t size, const std::string& limit = "1GB") {
    hear(FrameType::inference_orchestration, InferenceOrchestration{"b1", {size, true, "throughput"}, {{limit}, {}}},
         "b1");
  }
  void image(const std::string& run, std::uint64_t seed) {
    InferenceRequest request;
    request.request_id = run;
    request.model_configuration.base_model = tiny;
    request.inference_parameters.prompt = "a lighthouse";
    request.inference_parameters.seed = seed;
    request.batch_id = "b1";
    hear(FrameType::inference_request, request, run);
  }
  void part(TaskId task, const std::string& run, HandleId handle) {
    input(in::TaskPart{
        task, run, json::to_text(InferenceDone{1, 30, 8, 8, 192, std::string(64, 'b'), 1_GiB, 5}), {handle}});
  }
  std::vector<out::StartTask> batches() const {
    std::vector<out::StartTask> out;
    for (out::StartTask& each : all<out::StartTask>()) {
      if (each.kind == "inference_batch") out.push_back(std::move(each));
    }
    return out;
  }
  std::vector<std::string> completed() const {
    std::vector<std::string> out;
    for (const auto& each : said<InferenceCompleted>(FrameType::inference_completed)) out.push_back(each.request_id);
    return out;
  }
};

TEST_F(Design_2_5_worker_batch, it_begins_when_its_order_and_all_its_images_are_here) {
  image("r2", 8);  // an urgent request overtakes the order
  order(2);
  EXPECT_TRUE(batches().empty());
  image("r1", 7);
  ASSERT_EQ(batches().size(), 1u);
  const auto task = json::from_text<InferenceBatchTask>(batches()[0].body);
  ASSERT_TRUE(task.has_value());
  EXPECT_TRUE(task->parallel_execution);
  EXPECT_EQ(task->vram_limit, 1_GiB);
  ASSERT_EQ(task->images.size(), 2u);
  EXPECT_EQ(task->images[0].request_id, "r2");
  EXPECT_EQ(task->images[1].seed, 7u);
}

TEST_F(Design_2_5_worker_batch, each_image_is_answered_as_it_comes_and_once) {
  order(2);
  image("r1", 7);
  image("r2", 8);
  part(2, "r1", 40);
  EXPECT_EQ(completed(), std::vector<std::string>{"r1"});
  part(2, "r1", 41);
  part(2, "nobody", 42);
  EXPECT_EQ(completed().size(), 1u);
  EXPECT_EQ(all<out::DropHandle>().size(), 2u);
  part(2, "r2", 43);
  input(in::TaskDone{2, "{}", {}});
  EXPECT_EQ(completed(), (std::vector<std::string>{"r1", "r2"}));
  EXPECT_TRUE(said<lockstep::TaskFailed>(FrameType::task_failed).empty());
}

TEST_F(Design_2_5_worker_batch, what_a_handler_leaves_out_has_failed) {
  order(2);
  image("r1", 7);
  image("r2", 8);
  part(2, "r1", 40);
  input(in::TaskDone{2, "{}", {}});
  const auto failed = said<lockstep::TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].message, "the inference_batch handler ended without r2");
}

TEST_F(Design_2_5_worker_batch, a_failure_is_that_of_each_image_that_is_left) {
  order(3);
  image("r1", 7);
  image("r2", 8);
  image("r3", 9);
  part(2, "r2", 40);
  input(in::TaskFailed{2, "resource_exhausted", "no memory"});
  const auto failed = said<lockstep::TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failed.size(), 2u);
  EXPECT_EQ(failed[1].code, "resource_exhausted");
}

TEST_F(Design_2_5_worker_batch, one_image_is_cancelled_alone_and_the_last_stops_the_task) {
  order(2);
  image("r1", 7);
  image("r2", 8);
  hear(FrameType::task_cancel, TaskCancel{}, "r1");
  EXPECT_EQ(said<lockstep::TaskFailed>(FrameType::task_failed).at(0).code, "cancelled");
  EXPECT_TRUE(all<out::CancelTask>().empty()) << "the other one goes on";
  part(2, "r1", 40);
  EXPECT_TRUE(completed().empty());
  hear(FrameType::task_cancel, TaskCancel{}, "r2");
  EXPECT_EQ(all<out::CancelTask>().size(), 1u);
}

TEST_F(Design_2_5_worker_batch, above_its_limit_nothing_begins) {
  order(2, "100MB");
  image("r1", 7);
  image("r2", 8);
  EXPECT_TRUE(batches().empty());
  const auto failed = said<lockstep::TaskFailed>(FrameType::task_failed);
  ASSERT_EQ(failed.size(), 2u);
  EXPECT_EQ(failed[0].code, "resource_exhausted");
  EXPECT_EQ(failed[0].message, "vram_limit is 100MB; the models here hold 150MB");
}

TEST_F(Design_2_5_worker_batch, progress_is_told_for_each_image) {
  order(2);
  image("r1", 7);
  image("r2", 8);
  input(in::TaskProgress{2, json::to_text(InferenceReport{5, 30, 0.1})});
  EXPECT_EQ(said<InferenceProgress>(FrameType::inference_progress).size(), 2u);
}

}  // namespace
}  // namespace lockstep::worker
