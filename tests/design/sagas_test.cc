// §3.6: what a saga has to undo outside the tables is durable before it is tried, tried again, parked, and never
// dropped; a person decides of what is parked. §3.4: the outputs that a request takes back. §3.2: the memory of a load
// that failed.

#include "operations/sagas.h"
#include "events/transaction_documents.h"
#include "orchestrator/on_saga.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

const RequestId request("req_000001_000001");
const TransactionId rollback = rollback_of(request);

Status read_only() { return fail(ErrorCode::unavailable, "cannot remove x: Read-only file system"); }

out::Reply resolve(Stage& stage, const TransactionId& id, const std::string& decision,
                   const std::string& reason = "seen") {
  stage.input(in::ResolveTransaction{{901, cat("transactions/", id.str(), "/resolve"),
                                      cat(R"({"decision":")", decision, R"(","reason":")", reason, R"("})")}});
  return stage.all<out::Reply>().back();
}

TransactionView view(Stage& stage, const TransactionId& id) {
  stage.input(in::View{900, cat("transactions/", id.str())});
  const out::Reply reply = stage.all<out::Reply>().back();
  EXPECT_EQ(reply.status, 200) << reply.body;
  return json::from_text<TransactionView>(reply.body, nullptr, {.size_max = 1 << 24, .depth_max = 40})
      .value_or(TransactionView{});
}

/// What the event stream told of the saga, in order.
std::vector<SagaStatus> statuses(const Stage& stage, const TransactionId& id) {
  std::vector<SagaStatus> out;
  for (const out::Publish& each : stage.all<out::Publish>()) {
    for (const CommitEvent& event : each.events) {
      if (event.subject != id.str() || event.type != Saga::document_name) continue;
      const auto saga = json::from_text<Saga>(event.body.text).value();
      EXPECT_TRUE(saga.check().has_value()) << event.body.text;
      out.push_back(saga.saga_status);
    }
  }
  return out;
}

std::size_t events(const Stage& stage, std::string_view type) {
  std::size_t count = 0;
  for (const Record& record : stage.journal) {
    const Commit commit = decode_commit(record.body).value();
    for (const CommitEvent& event : commit.events) count += event.type == type ? 1 : 0;
  }
  return count;
}

const SagaRecord* saga(const Stage& stage, const TransactionId& id) {
  return stage.tables().transactions.sagas.find(saga_id_of(id));
}

// ---- outputs that are rolled back -----------------------------------------------------------------------------------

class Design_3_6_rollback : public testing::Test {
 protected:
  Design_3_6_rollback() : stage(settings_of(1)) { stage.ready(); }
  /// Two images of their own content are delivered, the third fails its gate.
  void roll_back() {
    GenerateBody body;
    body.n = 3;
    body.error_handling = processing::ErrorHandling::cascade_rollback;
    stage.generate_with(1, body);
    stage.until_inferring();
    deliver('c');
    stage.now += seconds(1);
    deliver('d');
    stage.inference_done("w0", 102);
    gates_reject();
    const auto asked = stage.sent(FrameType::postprocessing_request);
    PostprocessingCompleted done;
    done.request_id = asked.back().envelope.op_id;
    done.final_results.safety_analysis = SafetyAnalysis{0.1, "unsafe", {}};
    stage.say("w0", FrameType::postprocessing_completed, done, asked.back().envelope.attempt, done.request_id);
  }
  void gates_reject() {
    stage.input(command_at(700, "policies/safety",
                           R"({"event_type":"safety_policy_update","policy_version":"v2","safety_thresholds":)"
                           R"({"content_safety_minimum":0.5,"quality_minimum":0,"technical_compliance":"strict"},)"
                           R"("enforcement_actions":{"below_safety_threshold":"reject",)"
                           R"("below_quality_threshold":"reject"}})"));
  }
  void deliver(char content) {
    stage.inference_done("w0", 100);
    const auto asked = stage.sent(FrameType::postprocessing_request);
    PostprocessingCompleted done;
    done.request_id = asked.back().envelope.op_id;
    done.final_results.safety_analysis = SafetyAnalysis{0.9, "safe", {}};
    done.output = Stage::picture("png");
    done.output->sha256 = std::string(64, content);
    stage.say("w0", FrameType::postprocessing_completed, done, asked.back().envelope.attempt, done.request_id, {101});
    const out::StorePixels store = stage.all<out::StorePixels>().back();
    stage.input(in::PixelsStored{store.job_id, store.attempt, store.expected});
  }
  static void answer(Stage& stage, Status status) {
    const out::RemoveOutput asked = stage.all<out::RemoveOutput>().back();
    stage.input(in::OutputRemoved{asked.saga_id, asked.sha256, std::move(status)});
  }
  void answer(Status status) { answer(stage, std::move(status)); }
  void wait_over() { stage.input(in::TimerFired{cat("saga:", saga_id_of(rollback))}); }
  void until_parked() {
    for (std::uint32_t i = 0; i < compensation_attempts_max; ++i) {
      if (i > 0) wait_over();
      answer(read_only());
    }
  }
  std::size_t asked() const { return stage.all<out::RemoveOutput>().size(); }

  Stage stage;
  const std::string first = std::string(64, 'c');
  const std::string second = std::string(64, 'd');
};

TEST_F(Design_3_6_rollback, what_is_to_be_undone_is_durable_before_it_is_tried) {
  roll_back();
  ASSERT_EQ(asked(), 1u);
  ASSERT_NE(saga(stage, rollback), nullptr);
  Stage manual(settings_of(1), stage.journal);
  EXPECT_EQ(json::to_text(*saga(manual, rollback)), json::to_text(*saga(stage, rollback)));

  // And not a moment before: while the disk has not the commit, no file goes.
  answer({});
  stage.manual = true;
  answer({});  // the second is done, in a commit that is not durable
  EXPECT_EQ(saga(stage, rollback), nullptr);
  EXPECT_EQ(statuses(stage, rollback).back(), SagaStatus::compensating)
      << "nobody is told of an end that is not durable";
  stage.sync();
  EXPECT_EQ(statuses(stage, rollback).back(), SagaStatus::compensated);
}

TEST_F(Design_3_6_rollback, no_file_goes_before_the_intent_is_on_disk) {
  GenerateBody body;
  body.n = 2;
  body.error_handling = processing::ErrorHandling::cascade_rollback;
  stage.generate_with(1, body);
  stage.until_inferring();
  deliver('c');
  stage.inference_done("w0", 102);
  gates_reject();
  stage.manual = true;
  const auto last = stage.sent(FrameType::postprocessing_request).back();
  PostprocessingCompleted done;
  done.request_id = last.envelope.op_id;
  done.final_results.safety_analysis = SafetyAnalysis{0.1, "unsafe", {}};
  stage.say("w0", FrameType::postprocessing_completed, done, last.envelope.attempt, done.request_id);
  stage.release();
  EXPECT_NE(saga(stage, rollback), nullptr);
  EXPECT_EQ(asked(), 0u);
  stage.sync();
  EXPECT_EQ(asked(), 1u);
}

TEST_F(Design_3_6_rollback, files_go_one_by_one_the_last_that_was_stored_first) {
  roll_back();
  EXPECT_EQ(stage.all<out::RemoveOutput>().back().sha256, second);
  const SagaRecord begun = *saga(stage, rollback);
  EXPECT_EQ(begun.definition, "session_workflow");
  EXPECT_EQ(begun.due.size(), 2u);
  EXPECT_EQ(begun.due[0].compensation, "remove_output");
  answer({});
  EXPECT_EQ(stage.all<out::RemoveOutput>().back().sha256, first);
  EXPECT_EQ(saga(stage, rollback)->due.size(), 1u);
  answer({});
  EXPECT_EQ(saga(stage, rollback), nullptr);
  EXPECT_EQ(asked(), 2u);
  EXPECT_EQ(statuses(stage, rollback), (std::vector<SagaStatus>{SagaStatus::compensating, SagaStatus::compensated}));
  EXPECT_EQ(view(stage, rollback).state, "compensated");
  EXPECT_EQ(view(stage, rollback).kind, "rollback");
}

TEST_F(Design_3_6_rollback, a_removal_that_fails_is_tried_again_later) {
  roll_back();
  answer(read_only());
  EXPECT_EQ(asked(), 1u) << "not at once";
  const TransactionView shown = view(stage, rollback);
  EXPECT_EQ(shown.state, "compensating");
  EXPECT_EQ(shown.saga->attempts, 1u);
  EXPECT_EQ(shown.saga->reason, "cannot remove x: Read-only file system");
  const out::ArmTimer timer = stage.all<out::ArmTimer>().back();
  EXPECT_EQ(timer.name, cat("saga:", saga_id_of(rollback)));
  EXPECT_EQ(timer.deadline, stage.now + seconds(1));
  wait_over();
  EXPECT_EQ(asked(), 2u);
  answer({});
  EXPECT_EQ(saga(stage, rollback)->attempts, 0u) << "of the next file";
}

TEST_F(Design_3_6_rollback, after_the_last_attempt_it_is_parked_with_an_alarm) {
  roll_back();
  until_parked();
  const TransactionView shown = view(stage, rollback);
  EXPECT_EQ(shown.state, "parked");
  EXPECT_EQ(shown.reason, "cannot remove x: Read-only file system");
  EXPECT_EQ(shown.saga->due.size(), 2u) << "never dropped";
  EXPECT_EQ(events(stage, "saga_parked"), 1u);
  EXPECT_EQ(statuses(stage, rollback).back(), SagaStatus::parked);
  wait_over();
  EXPECT_EQ(asked(), compensation_attempts_max) << "only a person moves it now";
  const auto warned = stage.all<out::Log>();
  EXPECT_TRUE(std::ranges::any_of(warned, [](const out::Log& each) {
    return each.warning && each.text.find("lockstep tx resolve") != std::string::npos;
  }));
}

TEST_F(Design_3_6_rollback, a_person_retries_what_is_parked) {
  roll_back();
  until_parked();
  EXPECT_EQ(resolve(stage, rollback, "retry", "mounted for writing").status, 200);
  EXPECT_EQ(view(stage, rollback).state, "compensating");
  EXPECT_EQ(resolve(stage, rollback, "retry").status, 409) << "it is under way";
  answer({});
  answer({});
  const TransactionView shown = view(stage, rollback);
  EXPECT_EQ(shown.state, "compensated");
  EXPECT_EQ(shown.resolved_by_hand->decision, "retry");
  EXPECT_EQ(shown.resolved_by_hand->was, "parked");
  EXPECT_EQ(statuses(stage, rollback), (std::vector<SagaStatus>{SagaStatus::compensating, SagaStatus::parked,
                                                                SagaStatus::compensating, SagaStatus::compensated}));
}

TEST_F(Design_3_6_rollback, a_person_accepts_what_is_parked) {
  roll_back();
  EXPECT_EQ(resolve(stage, rollback, "accept").status, 409) << "it is not parked";
  until_parked();
  const out::Reply refused = resolve(stage, rollback, "abort");
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(refused.body.find("retry and accept are"), std::string::npos) << refused.body;
  EXPECT_EQ(resolve(stage, rollback, "accept", "removed by hand").status, 200);
  EXPECT_EQ(saga(stage, rollback), nullptr);
  EXPECT_EQ(view(stage, rollback).state, "compensated");
  EXPECT_EQ(stage.tables().transactions.overrides.at(rollback.str()).reason, "removed by hand");
}

TEST_F(Design_3_6_rollback, the_next_life_goes_on_with_what_is_left) {
  roll_back();
  answer({});  // the second is gone; of the first the orchestrator hears no answer any more
  Stage next(settings_of(1), stage.journal);
  EXPECT_TRUE(next.all<out::RemoveOutput>().empty());
  next.start();
  const auto again = next.all<out::RemoveOutput>();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].sha256, first);
  EXPECT_EQ(view(next, rollback).state, "compensating");
  answer(next, {});
  EXPECT_EQ(saga(next, rollback), nullptr);
  EXPECT_EQ(view(next, rollback).state, "compensated");
}

TEST_F(Design_3_6_rollback, the_next_life_shows_what_is_parked_and_does_not_touch_it) {
  roll_back();
  until_parked();
  Stage next(settings_of(1), stage.journal);
  next.start();
  EXPECT_TRUE(next.all<out::RemoveOutput>().empty());
  EXPECT_EQ(view(next, rollback).state, "parked");
  EXPECT_EQ(view(next, rollback).reason, "cannot remove x: Read-only file system");
}

TEST_F(Design_3_6_rollback, what_another_request_delivers_meanwhile_stays) {
  roll_back();
  answer(read_only());
  stage.generate(2);
  deliver('d');
  wait_over();
  EXPECT_EQ(stage.all<out::RemoveOutput>().back().sha256, first) << "the second is somebody's again";
}

// consistency.md §3.6: a journal written by another definition is not replayed, it is parked.
TEST_F(Design_3_6_rollback, a_record_of_another_version_is_parked_and_cannot_be_retried) {
  roll_back();
  SagaRecord other = *saga(stage, rollback);
  other.version = 9;
  Change change;
  change.put(stage.tables().transactions.sagas, other.saga_id, other);
  Commit commit = change.take(stage.wall());
  commit.rev = stage.machine.rev().next();
  std::vector<Record> journal = stage.journal;
  journal.push_back({Lsn{commit.rev.value}, encode(commit)});
  Stage next(settings_of(1), journal);
  next.start();
  EXPECT_TRUE(next.all<out::RemoveOutput>().empty());
  const TransactionView shown = view(next, rollback);
  EXPECT_EQ(shown.state, "parked");
  EXPECT_EQ(shown.reason, "it was begun by version 9 of session_workflow; this program has version 1");
  EXPECT_EQ(resolve(next, rollback, "retry").status, 409);
  EXPECT_EQ(resolve(next, rollback, "accept").status, 200);
}

// ---- a load that failed ---------------------------------------------------------------------------------------------

class Design_3_6_failed_load : public testing::Test {
 protected:
  Design_3_6_failed_load() : stage(small()) {
    stage.ready();
    stage.generate(1);
    stage.fill_segments();
    load = stage.prepared();
    stage.vote("w0", load, Vote::vote_commit);
  }
  /// One model fits, two do not.
  static Settings small() {
    Settings settings = settings_of(1);
    settings.workers[0].memory_budget = 200_MiB;
    return settings;
  }
  /// With a sample that was taken before it, and is of lower urgency.
  void fail_copy() {
    stage.say("w0", FrameType::task_failed, TaskFailed{"resource_exhausted", "CUDA out of memory"}, 0,
              cat("load:", load.str()));
    sample(0_MiB);
  }
  void sample(Bytes used) { sample(stage, used); }
  static void sample(Stage& stage, Bytes used) {
    VramUsageUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.vram_metrics = {1_GiB, used, 1_GiB - used, Ratio{0}};
    stage.say("w0", FrameType::vram_usage_update, update);
  }
  void until_parked() {
    for (std::uint32_t i = 0; i < compensation_attempts_max; ++i) sample(700_MiB);
  }
  std::size_t prepares() const { return stage.sent(FrameType::transaction_prepare).size(); }

  Stage stage;
  TransactionId load;
};

TEST_F(Design_3_6_failed_load, a_load_that_succeeds_writes_no_record) {
  const Rev before = stage.machine.rev();
  stage.loaded("w0", load);
  EXPECT_EQ(stage.tables().transactions.sagas.size(), 0u);
  for (const Record& record : stage.journal) {
    EXPECT_EQ(record.body.find("transactions.sagas"), std::string::npos) << record.body;
  }
  EXPECT_GT(stage.machine.rev(), before);
}

// §1.2: bytes count until they are proven free.
TEST_F(Design_3_6_failed_load, its_bytes_are_not_granted_again_before_its_worker_shows_that_they_are_free) {
  fail_copy();
  EXPECT_EQ(view(stage, load).state, "compensating");
  EXPECT_EQ(saga(stage, load)->due.front().compensation, "unload_model_from_vram");
  EXPECT_EQ(prepares(), 1u) << "the next try waits for the proof, which a sample of before is not";
  sample(0_MiB);
  EXPECT_EQ(view(stage, load).state, "compensated");
  EXPECT_EQ(saga(stage, load), nullptr);
  EXPECT_EQ(prepares(), 2u);
}

TEST_F(Design_3_6_failed_load, a_worker_that_keeps_the_bytes_is_found_out_and_the_saga_is_parked) {
  fail_copy();
  until_parked();
  const TransactionView shown = view(stage, load);
  EXPECT_EQ(shown.state, "parked");
  EXPECT_EQ(shown.reason, "w0 is idle and holds 700MB; its ledger has 0B");
  EXPECT_EQ(events(stage, "saga_parked"), 1u);
  EXPECT_EQ(prepares(), 1u) << "what is not proven free is not granted";
  sample(700_MiB);
  EXPECT_EQ(events(stage, "saga_parked"), 1u) << "one alarm";
}

// §3.8: it cannot pass for what a framework holds beside its models, however small it was.
TEST_F(Design_3_6_failed_load, a_worker_that_keeps_no_more_than_the_load_itself_is_found_out) {
  fail_copy();
  for (std::uint32_t i = 0; i < compensation_attempts_max; ++i) sample(150_MiB);
  EXPECT_EQ(view(stage, load).state, "parked");
  EXPECT_EQ(view(stage, load).reason, "w0 is idle and holds 150MB; its ledger has 0B");
  EXPECT_EQ(prepares(), 1u);
}

/// The transactions whose worker was never asked, by the documents of their votes.
std::vector<TransactionView> refused(Stage& stage) {
  stage.input(in::View{900, "transactions"});
  const std::string body = stage.all<out::Reply>().back().body;
  const auto all = json::from_text<TransactionsView>(body, nullptr, {.size_max = 1 << 24, .depth_max = 40}).value();
  std::vector<TransactionView> out;
  for (const TransactionView& each : all.transactions) {
    if (each.state == "aborted") out.push_back(view(stage, each.transaction_id));
  }
  return out;
}

// §3.5 phase 1: the coordinator's own services vote too, and a no of theirs is seen: once, not with every look.
TEST_F(Design_3_6_failed_load, what_memory_refuses_meanwhile_is_an_aborted_transaction_that_says_so_once) {
  EXPECT_TRUE(refused(stage).empty());
  fail_copy();
  stage.generate(2);
  sample(700_MiB);
  sample(700_MiB);
  ASSERT_EQ(refused(stage).size(), 1u) << "of one model on one worker, whoever wants it";
  const TransactionView shown = refused(stage).front();
  EXPECT_EQ(shown.reason, "memory_service: device gpu_0 has 50MB of 200MB free, 150MB are needed");
  std::vector<std::string> names;
  for (const DocumentView& each : shown.documents.value()) names.push_back(each.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"atomic_device_memory_allocation", "atomic_model_memory_loading",
                                      "transaction_voting", "transaction_outcome", "device_memory_consistency"}));
  const auto voting = json::from_text<TransactionVoting>(shown.documents->at(2).body.text).value();
  ASSERT_EQ(voting.participants.size(), 3u) << "the worker was not asked";
  EXPECT_EQ(voting.participants[0].prepare_result, Vote::vote_commit);
  EXPECT_EQ(voting.participants[1].participant, "memory_service");
  EXPECT_EQ(voting.participants[1].prepare_result, Vote::vote_abort);
  EXPECT_EQ(voting.participants[1].reason, "device gpu_0 has 50MB of 200MB free, 150MB are needed");
  EXPECT_TRUE(voting.participants[1].resource_locks.empty());
  EXPECT_EQ(voting.participants[2].prepare_result, Vote::vote_commit);
  EXPECT_EQ(voting.coordinator_decision, CoordinatorDecision::abort);
  const auto outcome = json::from_text<TransactionOutcome>(shown.documents->at(3).body.text).value();
  EXPECT_EQ(outcome.participant_responses.size(), 3u);
  EXPECT_EQ(outcome.transaction_status, "aborted");
  const auto chain = json::from_text<AtomicModelMemory>(shown.documents->at(1).body.text).value().dependency_chain;
  EXPECT_EQ(chain, (std::vector<std::string>{"ram_cache_available"})) << "no VRAM was reserved";
  EXPECT_EQ(prepares(), 1u);

  // Once it was prepared there, the next refusal is news again.
  sample(0_MiB);
  ASSERT_EQ(prepares(), 2u);
  load = stage.prepared();
  stage.vote("w0", load, Vote::vote_commit);
  fail_copy();
  EXPECT_EQ(refused(stage).size(), 2u);
}

TEST_F(Design_3_6_failed_load, half_of_what_it_was_is_the_most_that_may_be_left) {
  fail_copy();
  sample(75_MiB + Bytes{1});
  EXPECT_EQ(saga(stage, load)->attempts, 1u);
  sample(75_MiB);
  EXPECT_EQ(saga(stage, load), nullptr);
}

/// A load of 150 MiB that fails, on a worker that was sampled while it was idle, and a sample of before the failure.
TransactionId fails_after(Stage& stage, const std::vector<Bytes>& idle, Bytes copying) {
  const auto sample = [&](Bytes used) {
    VramUsageUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.vram_metrics = {1_GiB, used, 1_GiB - used, Ratio{0}};
    stage.say("w0", FrameType::vram_usage_update, update);
  };
  for (const Bytes used : idle) sample(used);
  stage.generate(1);
  stage.fill_segments();
  const TransactionId load = stage.prepared();
  stage.vote("w0", load, Vote::vote_commit);
  sample(copying);
  stage.say("w0", FrameType::task_failed, TaskFailed{"resource_exhausted", "the copy broke"}, 0,
            cat("load:", load.str()));
  sample(copying);
  return load;
}

// What the worker held before the load began is not the load's.
TEST(Design_3_6_failed_load_of_a_worker_that_held_something, it_may_hold_as_much_as_before_and_no_load_more) {
  Settings settings = settings_of(1);
  settings.workers[0].memory_budget = 200_MiB;
  const auto undone_at = [&](const std::vector<Bytes>& idle, Bytes used) {
    Stage stage(settings);
    stage.ready();
    const TransactionId load = fails_after(stage, idle, 180_MiB);
    VramUsageUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.vram_metrics = {1_GiB, used, 1_GiB - used, Ratio{0}};
    stage.say("w0", FrameType::vram_usage_update, update);
    return saga(stage, load) == nullptr;
  };
  EXPECT_TRUE(undone_at({100_MiB, 100_MiB}, 175_MiB));
  EXPECT_FALSE(undone_at({100_MiB, 100_MiB}, 175_MiB + Bytes{1}));
  EXPECT_FALSE(undone_at({100_MiB}, 80_MiB)) << "one sample alone may be of a time before it was idle";
  EXPECT_FALSE(undone_at({200_MiB, 200_MiB}, 256_MiB + Bytes{1})) << "more than is tolerated of any worker";
}

// What another load has not filled yet would hide bytes that the failed one has left.
TEST(Design_3_6_failed_load_beside_another, a_load_that_copies_proves_nothing) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.fill_segments();
  const TransactionId failed = stage.prepared();
  stage.vote("w0", failed, Vote::vote_commit);
  stage.say("w0", FrameType::task_failed, TaskFailed{"resource_exhausted", "the copy broke"}, 0,
            cat("load:", failed.str()));
  const TransactionId next = stage.prepared();
  ASSERT_NE(next, failed) << "there is room beside it";
  stage.vote("w0", next, Vote::vote_commit);
  const auto sample = [&](Bytes used) {
    VramUsageUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.vram_metrics = {1_GiB, used, 1_GiB - used, Ratio{0}};
    stage.say("w0", FrameType::vram_usage_update, update);
  };
  sample(0_MiB);    // of before the failure, perhaps
  sample(225_MiB);  // within the ledger's 150 MiB and what is tolerated; none of the 150 need be there
  ASSERT_NE(saga(stage, failed), nullptr);
  EXPECT_EQ(saga(stage, failed)->attempts, 0u);
  stage.loaded("w0", next);
  sample(150_MiB);
  EXPECT_NE(saga(stage, failed), nullptr) << "it may be of before that: then the failed one is there, and this one not";
  sample(300_MiB);
  EXPECT_NE(saga(stage, failed), nullptr) << "both may be there";
  sample(225_MiB);
  EXPECT_EQ(saga(stage, failed), nullptr) << "one of them is not";
}

TEST_F(Design_3_6_failed_load, bytes_that_become_free_later_end_it) {
  fail_copy();
  until_parked();
  sample(10_MiB);
  EXPECT_EQ(view(stage, load).state, "compensated");
  EXPECT_EQ(prepares(), 2u);
}

TEST_F(Design_3_6_failed_load, retry_ends_the_worker_and_its_end_is_the_proof) {
  fail_copy();
  until_parked();
  EXPECT_EQ(resolve(stage, load, "retry", "it leaks").status, 200);
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_NE(stage.all<out::KillWorker>().back().why.find("it did not unload tiny"), std::string::npos);
  EXPECT_EQ(view(stage, load).state, "compensating");
  stage.die("w0", "signal 9 (Killed)");
  EXPECT_EQ(view(stage, load).state, "compensated");
  EXPECT_EQ(saga(stage, load), nullptr);
}

TEST_F(Design_3_6_failed_load, accept_gives_the_bytes_back_on_a_persons_word) {
  fail_copy();
  until_parked();
  EXPECT_EQ(resolve(stage, load, "accept", "it is the driver's own").status, 200);
  EXPECT_EQ(saga(stage, load), nullptr);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
  EXPECT_EQ(prepares(), 2u);
}

TEST_F(Design_3_6_failed_load, the_proof_is_still_owed_after_a_restart) {
  fail_copy();
  Stage next(small(), stage.journal);
  next.start();
  EXPECT_EQ(view(next, load).state, "compensating");
  next.input(in::WorkerGone{WorkerId("w0"), Incarnation{1}, "proven gone"});
  EXPECT_EQ(saga(next, load), nullptr);
  EXPECT_EQ(view(next, load).state, "compensated");
}

}  // namespace
}  // namespace lockstep::design
