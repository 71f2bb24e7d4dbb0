// §3.1-3.6, §3.8: a run of each pair produces the specification's documents, in order and from live state, and a person
// can decide where a participant never answers.

#include <algorithm>

#include "events/message_types.h"
#include "events/transaction_documents.h"
#include "orchestrator/on_transactions.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using Names = std::vector<std::string>;

class Design_3_documents_of_runs : public testing::Test {
 protected:
  Design_3_documents_of_runs() : stage(settings_of(2)) {
    stage.ready();
    stage.generate(1);
    stage.fill_segments();
    load = stage.prepared();
    worker = stage.sent(FrameType::transaction_prepare).back().effect.worker_id.str();
  }
  TransactionView view(const TransactionId& id) { return view(stage, id); }
  static TransactionView view(Stage& stage, const TransactionId& id) {
    stage.input(in::View{900, cat("transactions/", id.str())});
    const out::Reply reply = stage.all<out::Reply>().back();
    EXPECT_EQ(reply.status, 200) << reply.body;
    return json::from_text<TransactionView>(reply.body, nullptr, {.size_max = 1 << 24, .depth_max = 40})
        .value_or(TransactionView{});
  }
  Names names(const TransactionId& id) {
    Names out;
    const TransactionView shown = view(id);  // not a temporary in the loop's head
    for (const DocumentView& each : shown.documents.value()) out.push_back(each.name);
    return out;
  }
  template <class Document>
  Document last(const TransactionId& id, std::string_view name) {
    std::optional<Document> found;
    const TransactionView shown = view(id);
    for (const DocumentView& each : shown.documents.value()) {
      if (each.name == name) found = json::from_text<Document>(each.body.text).value();
    }
    EXPECT_TRUE(found.has_value()) << name;
    return found.value_or(Document{});
  }
  static PartialAllocationFailure last_partial(Stage& stage, const TransactionId& id) {
    const TransactionView shown = view(stage, id);
    const auto last = std::ranges::find(shown.documents->rbegin(), shown.documents->rend(),
                                        PartialAllocationFailure::document_name, &DocumentView::name);
    if (last == shown.documents->rend()) return {};
    return json::from_text<PartialAllocationFailure>(last->body.text).value();
  }
  /// What the event stream showed of it, in order.
  Names streamed(const TransactionId& id) const {
    Names out;
    for (const out::Publish& each : stage.all<out::Publish>()) {
      for (const CommitEvent& event : each.events) {
        if (event.subject == id.str()) out.push_back(event.type);
      }
    }
    return out;
  }
  /// Each is what `lockstep message check` would print.
  void expect_checked(const TransactionId& id) {
    const TransactionView shown = view(id);
    for (const DocumentView& each : shown.documents.value()) {
      const auto type = recognise_message(each.body.text);
      ASSERT_TRUE(type.has_value()) << each.name << ": " << type.error().message;
      EXPECT_EQ((*type)->name, each.name);
      const auto checked = (*type)->check(each.body.text);
      ASSERT_TRUE(checked.has_value()) << each.name << " at " << checked.error().pointer << ": "
                                       << checked.error().message;
      EXPECT_EQ(checked->canonical, each.body.text);
    }
  }
  void commit_load() {
    stage.vote(worker, load, Vote::vote_commit);
    stage.loaded(worker, load);
  }
  TransactionId image() const {
    return image_transaction(stage.sent(FrameType::inference_request).back().envelope.op_id);
  }
  out::Reply resolve(const TransactionId& id, const std::string& body) { return resolve(stage, id, body); }
  static out::Reply resolve(Stage& stage, const TransactionId& id, const std::string& body) {
    stage.input(in::ResolveTransaction{{901, cat("transactions/", id.str(), "/resolve"), body}});
    return stage.all<out::Reply>().back();
  }

  Stage stage;
  TransactionId load;
  std::string worker;
};

const Names prepared{"atomic_device_memory_allocation", "atomic_model_memory_loading"};
Names and_then(Names first, const Names& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

TEST_F(Design_3_documents_of_runs, a_load_that_succeeds) {
  EXPECT_EQ(names(load), prepared);
  EXPECT_EQ(view(load).state, "preparing");
  stage.vote(worker, load, Vote::vote_commit);
  EXPECT_EQ(view(load).state, "committing");
  stage.say(worker, FrameType::model_loading_progress,
            ModelLoadingProgress{tiny, "loading", Percent{40}, 150_MiB, Timestamp{}, {}}, 0, cat("load:", load.str()));
  const auto half = last<ModelLoadingStateUpdate>(load, "model_loading_state_update");
  EXPECT_DOUBLE_EQ(half.state_updates.at(0).state_change.loading_progress->value, 0.4);
  EXPECT_EQ(half.state_updates.at(1).state_change.vram_allocation_status, "reserved");
  EXPECT_EQ(half.consistency_checkpoint.cross_domain_sync, Consistency::consistent);
  stage.loaded(worker, load);
  EXPECT_EQ(view(load).state, "committed");
  const Names expected = and_then(prepared, {"transaction_voting", "transaction_outcome", "device_memory_consistency",
                                             "saga", "model_loading_state_update", "model_loading_state_update",
                                             "transaction_outcome", "device_memory_consistency", "saga"});
  EXPECT_EQ(names(load), expected);
  EXPECT_EQ(streamed(load), expected);
  expect_checked(load);
  EXPECT_EQ(last<TransactionVoting>(load, "transaction_voting").coordinator_decision,
            CoordinatorDecision::proceed_to_commit);
  const auto outcome = last<TransactionOutcome>(load, "transaction_outcome");
  EXPECT_EQ(outcome.transaction_status, "committed_successfully");
  EXPECT_EQ(outcome.participant_responses.at(3).resource_status, "model_loaded");
  const auto saga = last<Saga>(load, "saga");
  EXPECT_EQ(saga.saga_status, SagaStatus::completed);
  EXPECT_TRUE(std::ranges::all_of(saga.saga_steps,
                                  [](const SagaStep& each) { return each.status == SagaStepStatus::completed; }));
  EXPECT_EQ(last<DeviceMemoryConsistency>(load, "device_memory_consistency").consistency_score, Ratio{1});
}

// §3.2 dependency chain: cache available, VRAM reserved, integrity verified - as they were found.
TEST_F(Design_3_documents_of_runs, a_load_says_what_it_found_before_it_asked) {
  const auto document = last<AtomicModelMemory>(load, "atomic_model_memory_loading");
  EXPECT_EQ(document.dependency_chain,
            (Names{"ram_cache_available", "vram_reservation_successful", "model_integrity_verified"}));
  EXPECT_TRUE(document.consistency_requirements.cache_state_sync);
  EXPECT_TRUE(document.consistency_requirements.memory_state_sync);
  EXPECT_TRUE(document.consistency_requirements.loading_state_tracking);
  EXPECT_EQ(document.operations.at(1).parameters.reservation_size, 150_MiB);
}

TEST_F(Design_3_documents_of_runs, a_load_that_its_worker_votes_against) {
  stage.vote(worker, load, Vote::vote_abort, "no room");
  EXPECT_EQ(view(load).state, "aborted");
  const Names expected = and_then(prepared, {"transaction_voting", "transaction_outcome",
                                             "partial_resource_allocation_failure", "device_memory_consistency"});
  EXPECT_EQ(names(load), expected);
  expect_checked(load);
  const auto voting = last<TransactionVoting>(load, "transaction_voting");
  EXPECT_EQ(voting.coordinator_decision, CoordinatorDecision::abort);
  EXPECT_EQ(voting.participants.at(3).prepare_result, Vote::vote_abort);
  EXPECT_EQ(voting.participants.at(3).reason, "no room");
  const auto partial = last<PartialAllocationFailure>(load, "partial_resource_allocation_failure");
  EXPECT_EQ(partial.rollback_coordination.rollback_sequence,
            (Names{"release_ram_cache_space", "release_device_reservation"}));
  EXPECT_EQ(partial.failure_point, "vram_allocation_failed");
  EXPECT_TRUE(partial.verified->ledger);
  EXPECT_FALSE(partial.verified->allocator.has_value()) << "nothing was measured yet";
  EXPECT_EQ(last<TransactionOutcome>(load, "transaction_outcome").transaction_status, "aborted");
}

TEST_F(Design_3_documents_of_runs, a_load_without_a_vote_in_time_says_why) {
  stage.input(in::TimerFired{cat("prepare:", load.str())});
  EXPECT_EQ(view(load).state, "aborted");
  EXPECT_EQ(view(load).reason, cat(worker, " did not vote in time"));
  EXPECT_EQ(last_partial(stage, load).failure_point, "prepare_timeout");
  expect_checked(load);
}

TEST_F(Design_3_documents_of_runs, a_load_whose_worker_dies_before_its_vote_says_so) {
  stage.die(worker);
  EXPECT_EQ(view(load).state, "aborted");
  EXPECT_EQ(last_partial(stage, load).failure_point, "worker_lost");
  expect_checked(load);
}

// §3.2 rollback, §3.6 compensation, §3.8: in the reverse order, and proven by ledger and allocator.
TEST_F(Design_3_documents_of_runs, a_load_whose_copy_fails_is_compensated) {
  stage.vote(worker, load, Vote::vote_commit);
  stage.say(worker, FrameType::task_failed, TaskFailed{"resource_exhausted", "CUDA out of memory"}, 0,
            cat("load:", load.str()));
  EXPECT_EQ(view(load).state, "compensating") << "its worker says that the bytes are free; nobody has measured it";
  const Names expected =
      and_then(prepared, {"transaction_voting", "transaction_outcome", "device_memory_consistency", "saga",
                          "model_loading_failure", "saga", "partial_resource_allocation_failure", "transaction_outcome",
                          "device_memory_consistency"});
  EXPECT_EQ(names(load), expected);
  expect_checked(load);
  EXPECT_EQ(last<Saga>(load, "saga").compensation_sequence, (Names{"unload_model_from_vram", "remove_model_from_cache",
                                                                   "deallocate_vram", "release_device_reservation"}));
  EXPECT_EQ(last_partial(stage, load).failure_point, "copy_failed");
  const auto failure = last<ModelLoadingFailure>(load, "model_loading_failure");
  EXPECT_EQ(failure.reason, "CUDA out of memory");
  EXPECT_EQ(failure.rollback_sequence.at(0).action, "release_vram_reservation");

  VramUsageUpdate sample;
  sample.device_id = stage.tables().liveness.workers.at(worker).device_id;
  sample.vram_metrics = {1_GiB, 700_MiB, 324_MiB, Ratio{0}};
  stage.say(worker, FrameType::vram_usage_update, sample);  // taken before it, perhaps
  stage.say(worker, FrameType::vram_usage_update, sample);
  auto proof = last<PartialAllocationFailure>(load, "partial_resource_allocation_failure").verified.value();
  EXPECT_TRUE(proof.ledger);
  EXPECT_EQ(proof.allocator, false) << "it still holds what nobody granted";
  EXPECT_FALSE(proof.driver.has_value()) << "it has told nothing";
  EXPECT_NE(proof.found->find("the worker holds 700MB"), std::string::npos) << *proof.found;
  sample.vram_metrics.used_vram = 10_MiB;
  stage.say(worker, FrameType::vram_usage_update, sample);
  proof = last<PartialAllocationFailure>(load, "partial_resource_allocation_failure").verified.value();
  EXPECT_EQ(proof.allocator, true);
  expect_checked(load);
  std::vector<SagaStatus> statuses;
  const TransactionView shown = view(load);
  EXPECT_EQ(shown.state, "compensated");
  for (const DocumentView& each : shown.documents.value()) {
    if (each.name == "saga") statuses.push_back(json::from_text<Saga>(each.body.text)->saga_status);
  }
  EXPECT_EQ(statuses,
            (std::vector<SagaStatus>{SagaStatus::running, SagaStatus::compensating, SagaStatus::compensated}));
}

/// A load whose copy fails, on the one worker of a stage that is ready.
TransactionId failed_load(Stage& stage) {
  stage.generate(1);
  stage.fill_segments();
  const TransactionId load = stage.prepared();
  stage.vote("w0", load, Vote::vote_commit);
  stage.say("w0", FrameType::task_failed, TaskFailed{"resource_exhausted", "CUDA out of memory"}, 0,
            cat("load:", load.str()));
  return load;
}

VramUsageUpdate holds(Bytes used) {
  VramUsageUpdate sample;
  sample.device_id = DeviceId("gpu_0");
  sample.vram_metrics = {1_GiB, used, 1_GiB, Ratio{0}};
  return sample;
}

/// What the driver counts for the worker's whole process; 200 MiB of it are the allocator's.
void driver_counts(Stage& one, Bytes bytes) {
  DeviceHealthUpdate health;
  health.device_id = DeviceId("gpu_0");
  health.diagnostics.emplace();
  health.diagnostics->allocator = AllocatorStatistics{100_MiB, 200_MiB, Bytes{}};
  health.diagnostics->process_memory = bytes;
  one.say("w0", FrameType::device_health_update, health);
}

// §3.8: verify_all_resources_released asks the driver too. It counts the whole process, so what it counts beyond the
// allocator is compared with what that was when the load began.
TEST_F(Design_3_documents_of_runs, the_driver_of_a_gpu_has_to_agree_that_a_load_is_gone) {
  Stage one(settings_of(1));
  one.ready();
  driver_counts(one, 700_MiB);  // 500 of them are the context
  const TransactionId failed = failed_load(one);
  const auto proof = [&] { return last_partial(one, failed).verified.value_or(ReleaseProof{}); };
  driver_counts(one, 957_MiB);
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));  // taken before the failure, perhaps
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));
  EXPECT_EQ(proof().allocator, true);
  EXPECT_EQ(proof().driver, false);
  EXPECT_NE(
      proof().found->find("the driver counts 757MB for the worker beyond its allocator; when the load began it was "
                          "500MB"),
      std::string::npos)
      << *proof().found;
  driver_counts(one, 775_MiB);  // half of the load more, which leaves no room for all of it
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));
  EXPECT_EQ(proof().driver, true);
  EXPECT_FALSE(proof().found.has_value());
}

TEST_F(Design_3_documents_of_runs, a_driver_that_counts_what_may_be_a_context_or_the_load_says_nothing) {
  Stage one(settings_of(1));
  one.ready();
  driver_counts(one, 700_MiB);
  const TransactionId failed = failed_load(one);
  driver_counts(one, 850_MiB);
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));  // taken before the failure, perhaps
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));
  const auto found = last_partial(one, failed);
  EXPECT_EQ(found.verified->allocator, true);
  EXPECT_FALSE(found.verified->driver.has_value());
}

// The kernel counts what the worker has mapped, and that is the allocator's figure: there is no second witness.
TEST_F(Design_3_documents_of_runs, a_processor_has_no_driver_that_could_agree) {
  Settings settings = settings_of(1);
  settings.workers[0].kind = device::Kind::cpu;
  Stage one(std::move(settings));
  one.ready();
  const TransactionId failed = failed_load(one);
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));  // taken before the failure, perhaps
  one.say("w0", FrameType::vram_usage_update, holds(10_MiB));
  EXPECT_EQ(last_partial(one, failed).verified->allocator, true);
  EXPECT_FALSE(last_partial(one, failed).verified->driver.has_value());
}

TEST_F(Design_3_documents_of_runs, a_load_whose_worker_dies_after_the_decision) {
  stage.vote(worker, load, Vote::vote_commit);
  stage.die(worker);
  EXPECT_EQ(view(load).state, "compensated");
  EXPECT_NE(view(load).reason.find("signal 11"), std::string::npos) << view(load).reason;
  EXPECT_EQ(last<TransactionOutcome>(load, "transaction_outcome").transaction_status, "committed_participant_lost")
      << "decided means decided";
  EXPECT_EQ(last_partial(stage, load).failure_point, "worker_lost");
  expect_checked(load);
}

TEST_F(Design_3_documents_of_runs, an_image_from_its_inference_to_its_output) {
  commit_load();
  const TransactionId id = image();
  const Names began{"atomic_processing_inference", "session_inference_state_sync", "atomic_inference_postprocessing",
                    "inference_postprocessing_pipeline", "saga"};
  EXPECT_EQ(names(id), began);
  const auto guarantees = last<AtomicProcessingInference>(id, "atomic_processing_inference").consistency_guarantees;
  EXPECT_TRUE(guarantees.resource_isolation);
  EXPECT_TRUE(guarantees.session_state_coherence);
  EXPECT_TRUE(guarantees.inference_context_validity);
  const auto before = last<InferencePostprocessingFlow>(id, "inference_postprocessing_pipeline");
  EXPECT_EQ(before.flow_stages.at(0).consistent, true);
  EXPECT_FALSE(before.flow_stages.at(1).consistent.has_value()) << "it was not reached";
  stage.inference_done(worker, 100);
  EXPECT_EQ(names(id), and_then(began, {"session_inference_state_sync"}));
  const std::string post = stage.sent(FrameType::postprocessing_request).back().effect.worker_id.str();
  stage.postprocessing_done(post, 101);
  stage.stored();
  EXPECT_EQ(view(id).state, "committed");
  const Names expected = and_then(began, {"session_inference_state_sync", "inference_postprocessing_pipeline",
                                          "inference_postprocessing_pipeline", "saga"});
  EXPECT_EQ(names(id), expected);
  EXPECT_EQ(streamed(id), expected);
  expect_checked(id);
  const auto flow = last<InferencePostprocessingFlow>(id, "inference_postprocessing_pipeline");
  for (const FlowStage& each : flow.flow_stages) EXPECT_EQ(each.consistent, true) << each.consistency_check;
  EXPECT_EQ(last<Saga>(id, "saga").saga_status, SagaStatus::completed);
}

TEST_F(Design_3_documents_of_runs, an_image_that_fails_is_compensated_in_reverse) {
  commit_load();
  const TransactionId id = image();
  stage.say(worker, FrameType::task_failed, TaskFailed{"internal", "a bad prompt"},
            stage.sent(FrameType::inference_request).back().envelope.attempt,
            stage.sent(FrameType::inference_request).back().envelope.op_id);
  EXPECT_EQ(view(id).state, "compensated");
  const Names expected{"atomic_processing_inference",
                       "session_inference_state_sync",
                       "atomic_inference_postprocessing",
                       "inference_postprocessing_pipeline",
                       "saga",
                       "saga",
                       "session_inference_state_sync",
                       "inference_postprocessing_pipeline",
                       "saga"};
  EXPECT_EQ(names(id), expected);
  EXPECT_EQ(streamed(id), expected);
  expect_checked(id);
  const auto sync = last<SessionInferenceSync>(id, "session_inference_state_sync");
  EXPECT_EQ(sync.state_synchronization.at(1).data.inference_readiness, "failed");
  EXPECT_EQ(sync.state_synchronization.at(0).data.resource_allocation, "released");
  const auto flow = last<InferencePostprocessingFlow>(id, "inference_postprocessing_pipeline");
  EXPECT_EQ(flow.flow_stages.at(1).consistent, false);
  EXPECT_EQ(flow.flow_stages.at(2).found, "a bad prompt");
  EXPECT_EQ(last<Saga>(id, "saga").compensation_sequence, (Names{"discard_pixels", "release_session_resources"}));
}

TEST_F(Design_3_documents_of_runs, an_image_whose_worker_dies_is_another_transaction_when_it_is_tried_again) {
  commit_load();
  const TransactionId first = image();
  stage.die(worker);
  EXPECT_EQ(view(first).state, "compensated");
  const std::string other = worker == "w0" ? "w1" : "w0";
  stage.vote(other, stage.prepared(), Vote::vote_commit);
  stage.loaded(other, stage.prepared());
  EXPECT_NE(image(), first);
  EXPECT_EQ(view(image()).state, "committing");
}

// What an earlier life decided and did not finish is shown by the next one.
TEST_F(Design_3_documents_of_runs, a_load_of_an_earlier_life_is_taken_up) {
  stage.vote(worker, load, Vote::vote_commit);
  Stage next(settings_of(2), stage.journal);
  next.start();
  EXPECT_EQ(view(next, load).state, "committing");
}

TEST_F(Design_3_documents_of_runs, the_list_has_them_in_the_order_in_which_they_began) {
  commit_load();
  stage.input(in::View{900, "transactions"});
  const auto view = json::from_text<TransactionsView>(stage.all<out::Reply>().back().body).value();
  ASSERT_EQ(view.transactions.size(), 2u);
  EXPECT_EQ(view.transactions[0].kind, "model_load");
  EXPECT_EQ(view.transactions[1].kind, "image");
  stage.input(in::View{900, "transactions/tx_9_9"});
  EXPECT_EQ(stage.all<out::Reply>().back().status, 404);
}

// ---- an operator's override (consistency.md §3.3 rule 6) ------------------------------------------------------------

TEST_F(Design_3_documents_of_runs, a_person_may_abort_what_prepares) {
  EXPECT_EQ(resolve(load, R"({"decision":"commit","reason":"it hangs"})").status, 409);
  EXPECT_EQ(resolve(load, R"({"decision":"maybe","reason":"it hangs"})").status, 400);
  EXPECT_EQ(resolve(load, R"({"decision":"abort","reason":""})").status, 400);
  EXPECT_EQ(view(load).state, "preparing");
  EXPECT_EQ(resolve(load, R"({"decision":"abort","reason":"it hangs"})").status, 200);
  EXPECT_EQ(view(load).state, "aborted");
  EXPECT_EQ(view(load).reason, "a person decided: it hangs");
  EXPECT_EQ(view(load).resolved_by_hand->was, "preparing");
  EXPECT_EQ(last_partial(stage, load).failure_point, "overruled");
  EXPECT_EQ(stage.sent(FrameType::transaction_abort).size(), 1u);
  stage.expect_no_trace_of_a_load();
  EXPECT_EQ(resolve(load, R"({"decision":"abort","reason":"again"})").status, 409) << "decided means decided";
}

TEST_F(Design_3_documents_of_runs, a_person_may_take_a_decision_as_acknowledged) {
  stage.vote(worker, load, Vote::vote_commit);
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 1u);
  EXPECT_EQ(resolve(load, R"({"decision":"commit","reason":"seen on the device"})").status, 200);
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 0u);
  EXPECT_EQ(stage.tables().transactions.overrides.at(load.str()).decision, "commit");
  stage.loaded(worker, load);
  EXPECT_EQ(view(load).state, "committed");
}

TEST_F(Design_3_documents_of_runs, overruling_a_decision_ends_the_worker_that_may_hold_it) {
  stage.vote(worker, load, Vote::vote_commit);
  EXPECT_EQ(resolve(load, R"({"decision":"abort","reason":"it must go"})").status, 200);
  ASSERT_EQ(stage.all<out::KillWorker>().size(), 1u);
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 1u) << "until the worker is proven gone";
  stage.die(worker, "signal 9 (Killed)");
  stage.expect_no_trace_of_a_load();
  EXPECT_EQ(view(load).state, "compensated");
}

TEST_F(Design_3_documents_of_runs, an_override_is_journaled) {
  stage.vote(worker, load, Vote::vote_commit);
  resolve(load, R"({"decision":"commit","reason":"seen on the device"})");
  Stage next(settings_of(2), stage.journal);
  EXPECT_EQ(next.tables().transactions.overrides.at(load.str()).reason, "seen on the device");
}

}  // namespace
}  // namespace lockstep::design
