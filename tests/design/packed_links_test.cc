// §2, decision 0041: where both ends announce the same schema digest, what it covers crosses packed (the events of
// §2.1-2.6 and two-phase commit), and everything else is as it is with JSON.

#include "tests/design/fixture.h"
#include "worker/machine.h"

namespace lockstep::design {
namespace {

const std::string this_schema(64, '1');
const std::string another_schema(64, '2');

/// An orchestrator of one schema, and a worker of perhaps another.
struct Linked : Stage {
  Linked(std::string ours, std::optional<std::string> theirs, int workers = 1) : Stage(with(std::move(ours), workers)) {
    schema_digest = std::move(theirs);
    ready();
  }
  static Settings with(std::string schema, int workers) {
    Settings settings = settings_of(workers);
    settings.schema_digest = std::move(schema);
    return settings;
  }
};

class Design_2_packed_links : public testing::Test {
 protected:
  static std::string image(Stage& stage) {
    stage.generate(1);
    stage.until_inferring();
    stage.finish_image();
    const auto requests = stage.sent(FrameType::inference_request);
    EXPECT_EQ(requests.size(), 1u);
    EXPECT_TRUE(stage.all<out::KillWorker>().empty());
    return stage.machine.digest();
  }
  static bool packed(const Stage& stage, FrameType type) {
    const auto frames = stage.sent(type);
    EXPECT_FALSE(frames.empty());
    return !frames.empty() && frames.back().effect.frame.header.packed;
  }
  static DeviceHealthUpdate health(std::string device) {
    DeviceHealthUpdate update;
    update.device_id = DeviceId(std::move(device));
    update.health_metrics.temperature = 55;
    return update;
  }
};

TEST_F(Design_2_packed_links, two_ends_of_one_schema_exchange_packed_events) {
  Linked stage(this_schema, this_schema);
  EXPECT_EQ(stage.sent(FrameType::welcome).back().body<Welcome>().schema_digest, this_schema);
  image(stage);
  EXPECT_TRUE(packed(stage, FrameType::inference_request));
  EXPECT_TRUE(packed(stage, FrameType::postprocessing_request));
  EXPECT_TRUE(packed(stage, FrameType::transaction_prepare));
  EXPECT_TRUE(packed(stage, FrameType::transaction_commit));
  EXPECT_FALSE(packed(stage, FrameType::welcome));
}

TEST_F(Design_2_packed_links, an_abort_crosses_packed) {
  Linked stage(this_schema, this_schema);
  stage.generate(1);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  stage.vote("w0", transaction, Vote::vote_abort, "no room");
  EXPECT_TRUE(packed(stage, FrameType::transaction_abort));
  EXPECT_EQ(stage.sent(FrameType::transaction_abort).back().body<TransactionDecision>().transaction_id, transaction);
}

TEST_F(Design_2_packed_links, without_the_same_digest_they_speak_json) {
  for (const auto& [ours, theirs] :
       std::vector<std::pair<std::string, std::optional<std::string>>>{{this_schema, another_schema},
                                                                       {this_schema, std::nullopt},
                                                                       {"", this_schema},
                                                                       {"", std::nullopt},
                                                                       {"", ""}}) {
    Linked stage(ours, theirs);
    image(stage);
    for (const FrameType type :
         {FrameType::inference_request, FrameType::transaction_prepare, FrameType::transaction_commit}) {
      EXPECT_FALSE(packed(stage, type)) << json::enum_name(type) << ours << " and " << theirs.value_or("none");
    }
  }
}

TEST_F(Design_2_packed_links, an_image_comes_to_the_same_state_in_either_form) {
  Linked packed_stage(this_schema, this_schema);
  Linked json_stage(this_schema, another_schema);
  EXPECT_EQ(image(packed_stage), image(json_stage));
}

TEST_F(Design_2_packed_links, what_people_see_of_a_packed_event_is_its_json) {
  Linked stage(this_schema, this_schema);
  stage.say("w0", FrameType::device_health_update, health("gpu_0"));
  for (const out::Publish& each : stage.all<out::Publish>()) {
    for (const CommitEvent& event : each.events) {
      if (event.type != DeviceHealthUpdate::event_type) continue;
      EXPECT_EQ(event.body.text, json::to_text(health("gpu_0")));
      return;
    }
  }
  FAIL() << "no sample was shown";
}

TEST_F(Design_2_packed_links, a_packed_event_about_the_device_of_another_is_refused_and_counted) {
  Linked stage(this_schema, this_schema);
  const std::string before = stage.machine.digest();
  stage.say("w0", FrameType::device_health_update, health("gpu_9"));
  EXPECT_EQ(stage.machine.digest(), before);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  EXPECT_EQ(stage.machine.live().counters.writes_refused.size(), 1u);
}

TEST_F(Design_2_packed_links, a_packed_vote_on_the_transaction_of_another_is_refused_and_counted) {
  Linked stage(this_schema, this_schema, 2);
  stage.generate(1);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  const std::string before = stage.machine.digest();
  stage.vote("w1", transaction, Vote::vote_commit);
  EXPECT_EQ(stage.machine.digest(), before);
  stage.vote("w0", transaction, Vote::vote_commit);
  ASSERT_EQ(stage.tables().transactions.decisions.size(), 1u);
  stage.say("w1", FrameType::transaction_ack, TransactionAck{transaction});
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 1u) << "it took another worker's acknowledgement";
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId("w1"), "votes"}), 2u);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

TEST_F(Design_2_packed_links, packed_bytes_over_a_link_that_agreed_on_json_end_the_worker) {
  Linked stage(this_schema, another_schema);
  stage.say_raw(
      "w0", to_frame(FrameType::device_health_update, stage.envelope("w0", Ready{}), health("gpu_0"), 0, Form::packed));
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_NE(stage.all<out::KillWorker>()[0].why.find("a packed device_health_update"), std::string::npos)
      << stage.all<out::KillWorker>()[0].why;
}

TEST_F(Design_2_packed_links, a_packed_message_that_the_digest_does_not_cover_ends_the_worker) {
  Linked stage(this_schema, this_schema);
  Frame frame =
      to_frame(FrameType::device_health_update, stage.envelope("w0", Ready{}), health("gpu_0"), 0, Form::packed);
  frame.header.type = static_cast<std::uint16_t>(FrameType::heartbeat);
  stage.say_raw("w0", frame);
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_NE(stage.all<out::KillWorker>()[0].why.find("must not cross packed"), std::string::npos);
}

TEST_F(Design_2_packed_links, packed_bytes_that_break_a_rule_end_the_worker_with_the_place) {
  Linked stage(this_schema, this_schema);
  Frame frame =
      to_frame(FrameType::device_health_update, stage.envelope("w0", Ready{}), health("gpu_0"), 0, Form::packed);
  frame.body.pop_back();
  stage.say_raw("w0", frame);
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_NE(stage.all<out::KillWorker>()[0].why.find("the message ends too early"), std::string::npos)
      << stage.all<out::KillWorker>()[0].why;
}

// The worker's side of the same agreement, over two links of one life.
class Design_2_packed_worker : public testing::Test {
 protected:
  Design_2_packed_worker() : machine(identity()) {}
  static worker::Identity identity() {
    worker::Identity out;
    out.worker_id = WorkerId("w0");
    out.incarnation = Incarnation{4};
    out.version = "test";
    out.reconnect_limit = seconds(30);
    out.schema_digest = this_schema;
    return out;
  }
  template <class What>
  void input(What what) {
    effects = machine.step({seconds(1), WallTime{}, std::move(what)}).effects;
  }
  void welcome(std::optional<std::string> schema) {
    input(worker::in::LinkOpened{});
    EXPECT_EQ(read_message<Hello>(from_frame(last(FrameType::hello)).value())->schema_digest, this_schema);
    Envelope envelope;
    envelope.source = {Side::orchestrator, WorkerId("w0"), Incarnation{4}};
    envelope.epoch = Epoch{1};
    envelope.sequence = 1;
    envelope.urgency = Urgency::p1_high;
    Welcome message{DeviceId("gpu_0"), 1_GiB, 2000, "cluster", "token", true};
    message.schema_digest = std::move(schema);
    input(worker::in::FrameArrived{to_frame(FrameType::welcome, envelope, message, 0, Form::json), {}});
  }
  Frame last(FrameType type) const {
    for (const worker::Effect& each : effects) {
      const auto* send = std::get_if<worker::out::Send>(&each.what);
      if (send != nullptr && send->frame.header.type == static_cast<std::uint16_t>(type)) return send->frame;
    }
    ADD_FAILURE() << "no " << json::enum_name(type);
    return {};
  }
  Frame sample() {
    input(worker::in::Telemetry{{}, 1_MiB, Ratio{0}, {}});
    return last(FrameType::vram_usage_update);
  }

  worker::Machine machine;
  std::vector<worker::Effect> effects;
};

TEST_F(Design_2_packed_worker, each_link_has_the_form_that_its_welcome_agrees_to) {
  welcome(this_schema);
  const Frame first = sample();
  EXPECT_TRUE(first.header.packed);
  EXPECT_EQ(read_message<VramUsageUpdate>(from_frame(first).value())->device_id, DeviceId("gpu_0"));
  input(worker::in::LinkClosed{"gone"});
  welcome(another_schema);  // the orchestrator that is back is of another version
  EXPECT_FALSE(sample().header.packed);
  input(worker::in::LinkClosed{"gone"});
  welcome(std::nullopt);
  EXPECT_FALSE(sample().header.packed);
}

TEST_F(Design_2_packed_worker, packed_bytes_over_a_link_that_agreed_on_json_are_not_read) {
  welcome(std::nullopt);
  Envelope envelope;
  envelope.source = {Side::orchestrator, WorkerId("w0"), Incarnation{4}};
  envelope.epoch = Epoch{1};
  envelope.sequence = 2;
  envelope.urgency = Urgency::p1_high;
  input(worker::in::FrameArrived{to_frame(FrameType::inference_request, envelope, InferenceRequest{}, 0, Form::packed),
                                 {}});
  const auto* exit = effects.empty() ? nullptr : std::get_if<worker::out::Exit>(&effects.back().what);
  ASSERT_NE(exit, nullptr);
  EXPECT_NE(exit->reason.find("agreed on JSON"), std::string::npos) << exit->reason;
}

}  // namespace
}  // namespace lockstep::design
