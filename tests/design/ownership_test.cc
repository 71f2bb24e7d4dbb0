// §1.1-1.6, design §2 step 2: a write by the side that does not own the fact is refused, counted, visible, and changes
// nothing. The worker that tried it lives on: it is wrong, not broken.

#include <algorithm>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>

#include <rapidcheck.h>

#include "events/message_types.h"
#include "orchestrator/owner_gate.h"
#include "ownership/table.h"
#include "tests/design/fixture.h"
#include "worker/machine.h"

namespace lockstep::design {
namespace {

/// A body of this type that would be valid from its owner: the specification's own example, or an empty object.
RawJson example(FrameType type) {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/tests/examples/", json::enum_name(type), ".json"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return RawJson{text.empty() ? "{}" : text};
}

std::vector<FrameType> types_of(Side sender) {
  std::vector<FrameType> out;
  for (const ownership::EventRow& row : ownership::event_table()) {
    if (row.sender == sender) out.push_back(row.type);
  }
  return out;
}

Count writes_refused(const Stage& stage) {
  const auto& counts = stage.machine.live().counters.writes_refused;
  return std::accumulate(counts.begin(), counts.end(), Count{},
                         [](Count sum, const auto& each) { return sum + each.second; });
}

class Design_1_ownership : public testing::Test {
 protected:
  Design_1_ownership() : stage(settings_of(2)) {
    stage.ready();
    stage.generate(1);
    stage.until_inferring();
    rev = stage.machine.rev();
    digest = stage.machine.digest();
  }
  void expect_nothing_changed() const {
    EXPECT_EQ(stage.machine.rev(), rev);
    EXPECT_EQ(stage.machine.digest(), digest);
    EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  }
  void expect_refused_once(const std::string& worker, ownership::Fact fact) const {
    expect_nothing_changed();
    EXPECT_EQ(writes_refused(stage), 1u);
    EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId(worker), json::enum_name(fact)}), 1u);
  }

  /// The image that runs on w0 is finished by whoever is asked to.
  void finish_image() {
    stage.inference_done("w0", 100);
    ASSERT_FALSE(stage.sent(FrameType::postprocessing_request).empty());
    stage.postprocessing_done(stage.sent(FrameType::postprocessing_request).back().effect.worker_id.str(), 101);
    stage.stored();
  }

  Stage stage;
  Rev rev;
  std::string digest;
};

TEST_F(Design_1_ownership, every_frame_of_the_orchestrators_is_refused_from_a_worker) {
  Count sent = 0;
  for (const FrameType type : types_of(Side::orchestrator)) {
    stage.say("w0", type, example(type), 1, {}, {900 + sent});
    ++sent;
    expect_nothing_changed();
    EXPECT_EQ(writes_refused(stage), sent) << json::enum_name(type);
    EXPECT_EQ(stage.all<out::DropHandle>().back().handle, 899 + sent) << "descriptors of a refused frame are given up";
  }
  finish_image();  // and the worker's own work is not disturbed
  EXPECT_EQ(stage.all<out::ReplyImages>().size(), 1u);
}

TEST_F(Design_1_ownership, a_refusal_is_seen_in_the_views_the_log_and_the_stream) {
  stage.say("w0", FrameType::device_config_update, example(FrameType::device_config_update));
  stage.say("w0", FrameType::device_config_update, example(FrameType::device_config_update));
  stage.say("w0", FrameType::device_config_update, example(FrameType::device_config_update));
  stage.input(in::View{9, "workers/w0"});
  const std::string view = stage.all<out::Reply>().back().body;
  EXPECT_NE(view.find(R"("writes_refused":{"device_policies":3})"), std::string::npos) << view;
  std::vector<std::string> published;
  for (const out::Publish& each : stage.all<out::Publish>()) {
    for (const auto& event : each.events) {
      if (event.type == "write_refused") published.push_back(event.body.text);
    }
  }
  ASSERT_EQ(published.size(), 2u) << "the 1st and the 2nd; the 3rd is in the counter only";
  EXPECT_NE(published[1].find(R"("fact":"device_policies","code":"not_owner")"), std::string::npos) << published[1];
}

// A worker's own event about a thing that is not its own.
TEST_F(Design_1_ownership, the_device_of_another_worker_is_not_its_own) {
  DeviceHealthUpdate update;
  update.device_id = DeviceId("gpu_1");
  stage.say("w0", FrameType::device_health_update, update);
  expect_refused_once("w0", ownership::Fact::device_health);
  EXPECT_FALSE(stage.machine.live().workers.at(WorkerId("w0")).health.has_value());
}

TEST_F(Design_1_ownership, the_run_of_another_worker_is_not_its_own) {
  const auto request = stage.sent(FrameType::inference_request);
  ASSERT_EQ(request.size(), 1u);
  ASSERT_EQ(request[0].effect.worker_id, WorkerId("w0"));
  InferenceCompleted done;
  done.request_id = request[0].envelope.op_id;
  done.result_location = "sha256:";
  done.result = Stage::picture("rgb8");
  stage.say("w1", FrameType::inference_completed, done, request[0].envelope.attempt, done.request_id, {500});
  expect_refused_once("w1", ownership::Fact::results);
  finish_image();
  EXPECT_EQ(stage.all<out::ReplyImages>().size(), 1u);
}

TEST(Design_1_ownership_of_loads, the_transaction_of_another_worker_is_not_its_own) {
  Stage stage(settings_of(2));
  stage.ready();
  stage.generate(1);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  const std::string before = stage.machine.digest();
  stage.vote("w1", transaction, Vote::vote_commit);
  EXPECT_EQ(stage.machine.digest(), before);
  EXPECT_EQ(stage.machine.live().intents.size(), 1u);
  stage.vote("w0", transaction, Vote::vote_commit);  // decided; the acknowledgement is w0's too
  ASSERT_EQ(stage.tables().transactions.decisions.size(), 1u);
  stage.say("w1", FrameType::transaction_ack, TransactionAck{transaction});
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 1u) << "it took another worker's acknowledgement";
  stage.say("w1", FrameType::model_loading_progress,
            ModelLoadingProgress{tiny, "loaded", Percent{100}, 150_MiB, Timestamp{}, {}}, 0,
            cat("load:", transaction.str()));
  EXPECT_EQ(stage.tables().model.residencies.entries().begin()->second.row.state, model::ResidencyState::loading);
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId("w1"), "votes"}), 2u);
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId("w1"), "model_residency"}), 1u);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

// Every event that is the worker's to send has an effect: none of them is refused as not_yet.
TEST_F(Design_1_ownership, every_event_of_a_workers_is_one_that_something_is_done_with) {
  Count tried = 0;
  for (const FrameType type : types_of(Side::worker)) {
    if (!message_type_named(json::enum_name(type))) continue;
    Stage fresh(settings_of(1));
    fresh.ready();
    fresh.say("w0", type, example(type));
    EXPECT_TRUE(fresh.machine.live().counters.events_not_yet.empty()) << json::enum_name(type);
    ++tried;
  }
  EXPECT_EQ(tried, 12u) << "the events of workers in §2.1 to 2.6";
}

// An event that nothing is done with would be counted by its name, told to people, and change nothing.
TEST(Design_1_not_yet, an_event_without_effect_is_counted_and_told) {
  const Tables tables;
  const Settings settings;
  Live live;
  Turn turn{tables, settings, live, 0, {}, {}, {}};
  WorkerRecord worker;
  worker.worker_id = WorkerId("w0");
  const FrameType type = FrameType::model_runtime_update;
  for (int i = 0; i < 3; ++i) refuse_write(turn, worker, type, fail(ErrorCode::not_yet, "nothing is done with it"));
  EXPECT_EQ(live.counters.events_not_yet.at({WorkerId("w0"), "model_runtime_update"}), 3u);
  EXPECT_TRUE(live.counters.writes_refused.empty()) << "it is the worker's to say";
  EXPECT_TRUE(turn.change.empty());
  std::vector<std::string> told;
  for (const Effect& each : turn.plan.effects) {
    if (const auto* publish = std::get_if<out::Publish>(&each.what)) told.push_back(publish->events.at(0).body.text);
  }
  ASSERT_EQ(told.size(), 2u) << "the 1st and the 2nd time; the 3rd is in the counter only";
  EXPECT_NE(told[1].find(R"("code":"not_yet","reason":"nothing is done with it","times":2)"), std::string::npos)
      << told[1];
}

TEST_F(Design_1_ownership, a_type_that_no_protocol_knows_ends_the_worker) {
  stage.say("w0", static_cast<FrameType>(31), RawJson{"{}"});
  EXPECT_EQ(stage.all<out::KillWorker>().size(), 1u);
}

// Any sequence of writes that are not the worker's, from any worker, between any of its own frames.
TEST(Design_1_ownership_property, no_refused_write_changes_the_state) {
  const std::vector<FrameType> foreign = types_of(Side::orchestrator);
  EXPECT_TRUE(rc::check("refused writes change nothing", [&] {
    Stage stage(settings_of(2));
    stage.ready();
    stage.generate(1);
    stage.until_inferring();
    const std::string digest = stage.machine.digest();
    const Rev rev = stage.machine.rev();
    const auto steps = *rc::gen::container<std::vector<std::pair<int, int>>>(
        rc::gen::pair(rc::gen::inRange(0, 2), rc::gen::inRange(0, static_cast<int>(foreign.size()))));
    for (const auto& [worker, which] : steps) {
      const FrameType type = foreign[static_cast<std::size_t>(which)];
      stage.say(cat("w", worker), type, example(type), static_cast<std::uint32_t>(which));
      stage.say(cat("w", worker), FrameType::heartbeat, Heartbeat{});
    }
    RC_ASSERT(stage.machine.digest() == digest);
    RC_ASSERT(stage.machine.rev() == rev);
    RC_ASSERT(writes_refused(stage) == steps.size());
    RC_ASSERT(stage.all<out::KillWorker>().empty());
  }));
}

// The other direction: a worker's facts are not the orchestrator's to tell.
TEST(Design_1_ownership_of_workers, every_frame_of_a_workers_is_refused_from_the_orchestrator) {
  worker::Identity identity;
  identity.worker_id = WorkerId("w0");
  identity.incarnation = Incarnation{1};
  worker::Machine machine(identity);
  std::uint64_t sequence = 0;
  std::vector<worker::Effect> effects;
  const auto hear = [&](FrameType type, const RawJson& body) {
    Envelope envelope;
    envelope.source = {Side::orchestrator, WorkerId("w0"), Incarnation{1}};
    envelope.epoch = Epoch{1};
    envelope.sequence = ++sequence;
    envelope.body = body;
    effects = machine.step({0, WallTime{}, worker::in::FrameArrived{to_frame(type, envelope, 0), {}}}).effects;
  };
  machine.step({0, WallTime{}, worker::in::LinkOpened{}});
  hear(FrameType::welcome, RawJson{json::to_text(Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "c", "t", true})});
  std::uint64_t sent = 0;
  for (const FrameType type : types_of(Side::worker)) {
    hear(type, example(type));
    EXPECT_EQ(machine.writes_refused(), ++sent) << json::enum_name(type);
    EXPECT_FALSE(machine.ended()) << json::enum_name(type);
    EXPECT_TRUE(effects.empty()) << json::enum_name(type);
  }
  EXPECT_EQ(machine.used(), Bytes{0});
  effects = machine.step({0, WallTime{}, worker::in::TimerFired{"heartbeat"}}).effects;
  const auto* beat = std::get_if<worker::out::Send>(&effects.at(0).what);
  ASSERT_NE(beat, nullptr);
  EXPECT_NE(beat->frame.body.find(cat(R"("writes_refused":)", sent)), std::string::npos) << beat->frame.body;
}

// A change of a type that this version of the worker does not know: answered as not_yet, counted, told with the next
// heartbeat; the others of its frame are applied.
TEST(Design_1_ownership_of_workers, a_change_that_nothing_is_done_with_is_answered_not_yet) {
  worker::Identity identity;
  identity.worker_id = WorkerId("w0");
  identity.incarnation = Incarnation{1};
  worker::Machine machine(identity);
  std::vector<worker::Effect> effects;
  const auto hear = [&](FrameType type, std::uint64_t sequence, const auto& body) {
    Envelope envelope;
    envelope.source = {Side::orchestrator, WorkerId("w0"), Incarnation{1}};
    envelope.epoch = Epoch{1};
    envelope.sequence = sequence;
    envelope.body.text = json::to_text(body);
    effects = machine.step({0, WallTime{}, worker::in::FrameArrived{to_frame(type, envelope, 0), {}}}).effects;
  };
  const auto said = [&]<class Body>(const Body&) {
    const auto* sent = std::get_if<worker::out::Send>(&effects.at(0).what);
    EXPECT_NE(sent, nullptr);
    return read_message<Body>(from_frame(sent->frame).value()).value();
  };
  machine.step({0, WallTime{}, worker::in::LinkOpened{}});
  hear(FrameType::welcome, 1, Welcome{DeviceId("gpu_0"), 1_GiB, 2000, "c", "t", true});
  StateChanges changes;
  changes.rev = 8;
  changes.events = {{"lens_policy_update", "gpu_0", 7, RawJson{R"({"event_type":"lens_policy_update"})"}},
                    {"device_routing_update", "", 8,
                     RawJson{R"({"event_type":"device_routing_update","routing_table":{"inference_primary":"gpu_0"},)"
                             R"("effective_immediately":true})"}}};
  hear(FrameType::state_changes, 2, changes);
  ASSERT_FALSE(machine.ended());
  const StateApplied answer = said(StateApplied{});
  ASSERT_EQ(answer.results.size(), 2u);
  EXPECT_EQ(answer.results[0].type, "lens_policy_update");
  EXPECT_EQ(answer.results[0].outcome, AppliedOutcome::not_yet);
  EXPECT_EQ(answer.results[0].reason, "nothing is done with lens_policy_update in this version");
  EXPECT_EQ(answer.results[1].outcome, AppliedOutcome::applied);
  EXPECT_EQ(machine.told().routing_table.items.size(), 1u);
  EXPECT_EQ(machine.writes_refused(), 1u);
  effects = machine.step({0, WallTime{}, worker::in::TimerFired{"heartbeat"}}).effects;
  EXPECT_EQ(said(Heartbeat{}).writes_refused, 1u);
}

// And people see both: how often it refused, and that what was intended is not so there.
TEST(Design_1_ownership_of_workers, what_a_worker_refuses_is_seen_in_the_views) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.applies = false;
  stage.input(in::Set{5, "routing", true, R"({"routing_table":{"inference_primary":"gpu_0"}})"});
  const std::vector<Told> told = stage.told("device_routing_update");
  ASSERT_EQ(told.size(), 1u);
  AppliedResult result{told[0].event.type,
                       told[0].event.subject,
                       told[0].event.rev,
                       AppliedOutcome::not_yet,
                       "nothing is done with it in this version",
                       std::nullopt};
  stage.say("w0", FrameType::state_applied, StateApplied{told[0].event.rev, {result}}, 0, told[0].op_id);
  Heartbeat beat;
  beat.writes_refused = 1;
  stage.say("w0", FrameType::heartbeat, beat);
  const auto view = [&](const std::string& path) {
    stage.input(in::View{9, path});
    return stage.all<out::Reply>().back().body;
  };
  EXPECT_NE(view("workers/w0").find(R"("refused_there":1)"), std::string::npos) << view("workers/w0");
  EXPECT_TRUE(stage.tables().device.routes()->confirmed_by.empty()) << "a refusal confirms nothing";
  const std::string rows = view("propagation/w0");
  EXPECT_NE(rows.find(R"("outcome":"not_yet","reason":"nothing is done with it in this version")"), std::string::npos)
      << rows;
}

// §1: what the journal keeps has an owner, and what the table says is journaled is.
TEST(Design_1_ownership_of_tables, every_state_table_belongs_to_a_fact) {
  std::set<std::string> claimed;
  for (const ownership::FactRow& row : ownership::fact_table()) {
    for (const std::string_view table : row.tables) {
      if (!table.empty()) claimed.emplace(table);
    }
  }
  std::set<std::string> kept;
  const Orchestrator machine{Settings{}};
  machine.tables().for_each_table([&](const auto& table) { kept.insert(std::string(table.name())); });
  EXPECT_EQ(claimed, kept) << "src/ownership/table.cc and src/operations/tables.h disagree";
}

}  // namespace
}  // namespace lockstep::design
