// Idempotency-Key (consistency.md §3.5; the answer to a running one is a conflict that says where it runs): the same
// request again changes nothing and gets the same answer, byte for byte, also from the orchestrator's next life.

#include "operations/idempotency.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

class Design_3_5_key : public testing::Test {
 protected:
  static in::Generate lighthouse(ReplyId reply, bool wait = false) {
    GenerateBody body;
    body.prompt = "a lighthouse";
    return {reply, body, 7, wait};
  }
  static out::Reply last_reply(const Stage& stage) {
    const auto replies = stage.all<out::Reply>();
    EXPECT_FALSE(replies.empty());
    return replies.empty() ? out::Reply{} : replies.back();
  }
  static std::size_t requests(const Stage& stage) { return stage.tables().processing.requests.size(); }
};

TEST_F(Design_3_5_key, the_same_again_is_answered_and_not_done_again) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input_with_key(lighthouse(1), "k1");
  const out::Reply first = last_reply(stage);
  EXPECT_EQ(first.status, 202);
  EXPECT_FALSE(first.again);
  stage.input_with_key(lighthouse(2), "k1");
  const out::Reply second = last_reply(stage);
  EXPECT_EQ(second.reply, 2u);
  EXPECT_EQ(second.status, 202);
  EXPECT_EQ(second.body, first.body);
  EXPECT_TRUE(second.again);
  EXPECT_EQ(requests(stage), 1u);
  stage.input_with_key(lighthouse(3), "k2");
  EXPECT_NE(last_reply(stage).body, first.body);
  EXPECT_EQ(requests(stage), 2u);
}

TEST_F(Design_3_5_key, another_request_under_a_known_key_is_refused) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input_with_key(lighthouse(1), "k1");
  stage.input_with_key(lighthouse(2), "k1", "another");
  EXPECT_EQ(last_reply(stage).status, 422);
  EXPECT_NE(last_reply(stage).body.find("key_reused"), std::string::npos);
  EXPECT_EQ(requests(stage), 1u);
}

TEST_F(Design_3_5_key, while_the_first_runs_the_answer_says_where) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input_with_key(lighthouse(1, true), "k1");
  stage.input_with_key(lighthouse(2, true), "k1");
  EXPECT_EQ(last_reply(stage).status, 409);
  EXPECT_EQ(last_reply(stage).location, "/api/v1/requests/req_000001_000001");
  stage.until_inferring();
  stage.finish_image();
  const auto images = stage.all<out::ReplyImages>();
  ASSERT_EQ(images.size(), 1u);
  stage.input_with_key(lighthouse(3, true), "k1");
  const auto again = stage.all<out::ReplyImages>();
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[1].reply, 3u);
  EXPECT_TRUE(again[1].again);
  EXPECT_EQ(again[1].created, again[0].created);
  ASSERT_EQ(again[1].images.size(), 1u);
  EXPECT_EQ(again[1].images[0].image, again[0].images[0].image);
  EXPECT_EQ(again[1].images[0].seed, again[0].images[0].seed);
}

// The client that was cut off asks the next life.
TEST_F(Design_3_5_key, a_restart_forgets_no_answer) {
  Stage first(settings_of(1));
  first.ready();
  first.input_with_key(lighthouse(1), "k1");
  first.input_with_key(in::Cancel{2, RequestId("req_000001_000001")}, "k2");
  const std::string cancelled = last_reply(first).body;
  first.input_with_key(lighthouse(3, true), "k3");
  Stage second(settings_of(1), first.journal);
  second.start();
  second.scan();
  second.input_with_key(in::Cancel{2, RequestId("req_000001_000001")}, "k2");
  EXPECT_EQ(last_reply(second).status, 200);
  EXPECT_EQ(last_reply(second).body, cancelled) << "without the key it would be refused: it has ended";
  second.input_with_key(lighthouse(3, true), "k3");
  EXPECT_EQ(last_reply(second).status, 409) << "accepted is accepted: it goes on";
  EXPECT_EQ(requests(second), 2u);
}

TEST_F(Design_3_5_key, what_may_end_otherwise_is_not_kept) {
  Stage stage(settings_of(1));
  stage.start();
  stage.input_with_key(lighthouse(1), "k1");  // before the models were read
  EXPECT_EQ(last_reply(stage).status, 503);
  stage.scan();
  stage.join("w0");
  stage.input_with_key(lighthouse(2), "k1");
  EXPECT_EQ(last_reply(stage).status, 202);
  // What the request itself is wrong in stays wrong.
  in::Generate bad = lighthouse(3);
  bad.body.size = "65x64";
  stage.input_with_key(bad, "k2");
  const out::Reply refused = last_reply(stage);
  EXPECT_EQ(refused.status, 400);
  bad.reply = 4;
  stage.input_with_key(bad, "k2");
  EXPECT_EQ(last_reply(stage).body, refused.body);
  EXPECT_TRUE(last_reply(stage).again);
}

// A load has no row of its own: its answer is kept when it comes, and an interrupted one can be asked for again.
TEST_F(Design_3_5_key, the_answer_of_a_load_is_kept_when_it_comes) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input_with_key(in::LoadModel{1, tiny, WorkerId(), true, AllocationPriority::normal}, "k1");
  stage.input_with_key(in::LoadModel{2, tiny, WorkerId(), true, AllocationPriority::normal}, "k1");
  EXPECT_EQ(last_reply(stage).status, 409);
  stage.until_inferring();
  const out::Reply done = last_reply(stage);
  EXPECT_EQ(done.reply, 1u);
  EXPECT_EQ(done.status, 200) << done.body;
  stage.input_with_key(in::LoadModel{3, tiny, WorkerId(), true, AllocationPriority::normal}, "k1");
  EXPECT_EQ(last_reply(stage).reply, 3u);
  EXPECT_EQ(last_reply(stage).body, done.body);
}

TEST_F(Design_3_5_key, an_interrupted_load_can_be_asked_for_again) {
  Stage first(settings_of(1));
  first.ready();
  first.input_with_key(in::LoadModel{1, tiny, WorkerId(), true, AllocationPriority::normal}, "k1");
  EXPECT_EQ(first.tables().idempotency.answers.size(), 1u);
  first.input(in::ReplyGone{1});
  EXPECT_EQ(first.tables().idempotency.answers.size(), 0u) << "its client went away";
  first.input_with_key(in::LoadModel{2, tiny, WorkerId(), true, AllocationPriority::normal}, "k1");
  Stage second(settings_of(1), first.journal);
  second.start();
  EXPECT_EQ(second.tables().idempotency.answers.size(), 0u) << "no process carries it out any more";
}

// A key is kept a day at least, and as long as what it asked for goes on.
TEST_F(Design_3_5_key, what_ended_more_than_a_day_ago_is_forgotten_and_nothing_that_runs) {
  Tables tables;
  const WallTime now{10 * keyed_answer_kept_ms};
  Change filled;
  const auto answered = [&](const char* key, std::int64_t age) {
    KeyedAnswer row;
    row.created = WallTime{now.ms - age};
    row.status = 200;
    filled.put(tables.idempotency.answers, key, row);
  };
  const auto of_request = [&](const char* key, processing::RequestState state) {
    processing::Request request;
    request.request_id = RequestId(cat("req_", key));
    request.state = state;
    filled.put(tables.processing.requests, request.request_id.str(), request);
    KeyedAnswer row;
    row.request_id = request.request_id;
    filled.put(tables.idempotency.answers, key, row);
  };
  answered("young", keyed_answer_kept_ms - 1);
  answered("old", keyed_answer_kept_ms);
  of_request("ended", processing::RequestState::completed);
  of_request("running", processing::RequestState::accepted);
  filled.put(tables.idempotency.answers, "loading", KeyedAnswer{});
  ASSERT_TRUE(apply_changes(tables, filled.take(now)).has_value());
  Change change;
  forget_old_answers(tables, now, change);
  std::vector<std::string> forgotten;
  for (const auto& each : change.take(now).changes) forgotten.push_back(each.key);
  EXPECT_EQ(forgotten, (std::vector<std::string>{"ended", "old"}));
}

TEST_F(Design_3_5_key, where_no_more_keys_can_be_kept_a_new_one_is_refused_and_a_known_one_answered) {
  Stage earlier(settings_of(1));
  earlier.ready();
  earlier.input_with_key(lighthouse(1), "known");
  const out::Reply first = last_reply(earlier);
  Change filled;
  for (std::size_t i = 1; i < keyed_answers_max; ++i) {
    KeyedAnswer row;
    row.created = earlier.wall();
    row.status = 200;
    filled.put(earlier.tables().idempotency.answers, cat("k", i), row);
  }
  Commit commit = filled.take(earlier.wall());
  commit.rev = earlier.machine.rev().next();
  earlier.journal.push_back({Lsn{commit.rev.value}, encode(commit)});
  Stage stage(settings_of(1), earlier.journal);
  stage.start();
  stage.scan();
  stage.input_with_key(lighthouse(2), "new");
  EXPECT_EQ(last_reply(stage).status, 429);
  EXPECT_NE(last_reply(stage).body.find("the limit is 100000"), std::string::npos) << last_reply(stage).body;
  EXPECT_EQ(requests(stage), 1u);
  stage.input_with_key(lighthouse(3), "known");
  EXPECT_EQ(last_reply(stage).body, first.body);
}

TEST_F(Design_3_5_key, a_command_that_still_runs_says_where_it_is_seen) {
  Stage stage(settings_of(1));
  stage.ready();
  const auto place_of_second = [&](auto command, const std::string& key) {
    command.reply = 11;
    stage.input_with_key(command, key);
    command.reply = 12;
    stage.input_with_key(command, key);
    EXPECT_EQ(last_reply(stage).status, 409) << key;
    return last_reply(stage).location;
  };
  EXPECT_EQ(place_of_second(in::LoadModel{0, tiny, WorkerId(), true, AllocationPriority::normal}, "load"),
            "/api/v1/models/tiny");
  EXPECT_EQ(place_of_second(in::AddModel{0, "/there/new.safetensors", "new", false}, "add"), "/api/v1/models/new");
  EXPECT_EQ(place_of_second(in::VerifyModel{0, tiny, true}, "verify"), "/api/v1/models/tiny");
  EXPECT_EQ(place_of_second(in::CalibrateDevice{0, DeviceId("gpu_0"), true}, "calibrate"), "/api/v1/devices/gpu_0");
  EXPECT_EQ(place_of_second(in::KeepJournal{0, "/there/copy.db"}, "copy"), "") << "nothing shows it";
}

// A copy that was made is not made again: the file is there.
TEST_F(Design_3_5_key, a_copy_of_the_journal_is_made_once) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.input_with_key(in::KeepJournal{1, "/there/copy.db"}, "k1");
  ASSERT_EQ(stage.all<out::KeepJournal>().size(), 1u);
  EXPECT_EQ(stage.all<out::KeepJournal>()[0].file, "/there/copy.db");
  stage.input(in::JournalKept{1, R"({"file":"/there/copy.db"})"});
  EXPECT_EQ(last_reply(stage).status, 200);
  stage.input_with_key(in::KeepJournal{2, "/there/copy.db"}, "k1");
  EXPECT_EQ(stage.all<out::KeepJournal>().size(), 1u);
  EXPECT_EQ(last_reply(stage).reply, 2u);
  EXPECT_EQ(last_reply(stage).body, R"({"file":"/there/copy.db"})");
  EXPECT_TRUE(last_reply(stage).again);
  stage.input_with_key(in::KeepJournal{3, std::nullopt}, "k2");
  stage.input(in::JournalKept{3, fail(ErrorCode::unavailable, "the disk is gone")});
  EXPECT_EQ(last_reply(stage).status, 503);
  stage.input_with_key(in::KeepJournal{4, std::nullopt}, "k2");
  EXPECT_EQ(stage.all<out::KeepJournal>().size(), 3u) << "the next try may end otherwise";
}

}  // namespace
}  // namespace lockstep::design
