// The worker's side of §3.5 and §3.7, by hand: frames and handlers' reports in, messages, tasks and the end out.

#include <algorithm>

#include <gtest/gtest.h>

#include "base/text.h"
#include "events/json_read.h"
#include "events/model_events.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::worker {
namespace {

const ModelId tiny("tiny");
const TransactionId tx("tx_1_1");

class Design_worker : public testing::Test {
 protected:
  Design_worker() : machine({WorkerId("w0"), Incarnation{4}, 4000, "test"}) {}

  template <class What>
  void input(What what) {
    for (Effect& each : machine.step(Input{now, WallTime{}, std::move(what)}).effects) {
      effects.push_back(std::move(each));
    }
  }
  template <class Body>
  void hear(FrameType type, const Body& body, std::string subject = {}, std::vector<HandleId> handles = {}) {
    Frame frame;
    frame.body = json::to_text(Envelope{Timestamp{}, 1, std::move(subject), RawJson{json::to_text(body)}});
    frame.header = {.body_length = static_cast<std::uint32_t>(frame.body.size()),
                    .type = static_cast<std::uint16_t>(type),
                    .descriptors = static_cast<std::uint8_t>(handles.size()),
                    .epoch = Epoch{1},
                    .incarnation = Incarnation{4},
                    .sequence = ++sequence};
    input(in::FrameArrived{std::move(frame), std::move(handles)});
  }
  void join() {
    input(in::Started{});
    hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000});
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
      const auto envelope = json::from_text<Envelope>(each.frame.body);
      EXPECT_TRUE(envelope.has_value());
      if (envelope) out.push_back(json::from_text<Body>(envelope->body.text).value_or(Body{}));
    }
    return out;
  }

  Machine machine;
  Nanos now = seconds(1000);
  std::uint64_t sequence = 0;
  std::vector<Effect> effects;
};

TEST_F(Design_worker, it_says_hello_first_and_ready_when_its_handlers_are_there) {
  input(in::Started{});
  ASSERT_EQ(all<out::Send>().size(), 1u);
  const auto hello = said<Hello>(FrameType::hello);
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(hello[0].worker_id, WorkerId("w0"));
  hear(FrameType::welcome, Welcome{DeviceId("gpu_0"), 1_GiB, 2000});
  EXPECT_TRUE(said<Ready>(FrameType::ready).empty());
  input(in::HandlersReady{});
  EXPECT_EQ(said<Ready>(FrameType::ready).size(), 1u);
  const auto frames = all<out::Send>();
  for (std::size_t i = 0; i < frames.size(); ++i) EXPECT_EQ(frames[i].frame.header.sequence, i + 1);
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

// Design §6: a frame that does not continue this link, or cannot be read, ends the process; nothing follows it.
TEST_F(Design_worker, a_frame_that_does_not_continue_the_link_ends_it) {
  const auto ends = [](auto spoil) {
    Machine other({WorkerId("w0"), Incarnation{4}, 4000, "test"});
    Frame frame;
    frame.body =
        json::to_text(Envelope{Timestamp{}, 0, "", RawJson{json::to_text(Welcome{DeviceId("gpu_0"), 1_GiB, 2000})}});
    frame.header = {.type = static_cast<std::uint16_t>(FrameType::welcome),
                    .epoch = Epoch{1},
                    .incarnation = Incarnation{4},
                    .sequence = 1};
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
  Frame frame;
  frame.body = json::to_text(Envelope{Timestamp{}, 0, "", RawJson{json::to_text(Heartbeat{})}});
  frame.header = {.type = static_cast<std::uint16_t>(FrameType::heartbeat_ack),
                  .epoch = Epoch{2},
                  .incarnation = Incarnation{4},
                  .sequence = sequence + 1};
  input(in::FrameArrived{frame, {}});
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

TEST_F(Design_worker, a_heartbeat_is_sent_and_armed_again) {
  join();
  now += seconds(2);
  input(in::TimerFired{"heartbeat"});
  EXPECT_EQ(said<Heartbeat>(FrameType::heartbeat).size(), 1u);
  ASSERT_EQ(all<out::ArmTimer>().size(), 2u);
  EXPECT_EQ(all<out::ArmTimer>()[1].deadline, now + seconds(2));
}

}  // namespace
}  // namespace lockstep::worker
