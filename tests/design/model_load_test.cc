// §3.2: a model gets from the cache into a device's memory whole, or leaves no trace.

#include "tests/design/fixture.h"

#include "domains/memory/rules.h"

namespace lockstep::design {
namespace {

class Design_3_2_model_load : public testing::Test {
 protected:
  Design_3_2_model_load() : stage(settings_of(1)) {
    stage.ready();
    stage.generate(1);
    stage.fill_segments();
    transaction = stage.prepared();
    stage.vote("w0", transaction, Vote::vote_commit);
  }
  std::string task() const { return cat("load:", transaction.str()); }
  const processing::Job& job() const { return stage.tables().processing.jobs.at("req_000001_000001/00"); }
  void fail_copy(std::string code) {
    const TransactionId current = stage.prepared();
    stage.say("w0", FrameType::task_failed, TaskFailed{std::move(code), "the copy broke"}, 0,
              cat("load:", current.str()));
  }

  Stage stage;
  TransactionId transaction;
};

// §3.2: the worker copies from the cache, so it gets the components themselves.
TEST_F(Design_3_2_model_load, the_load_request_carries_one_descriptor_per_component) {
  const auto loads = stage.sent(FrameType::model_load_request);
  ASSERT_EQ(loads.size(), 1u);
  const ModelLoadRequest request = loads[0].body<ModelLoadRequest>();
  EXPECT_EQ(request.component_loading_order, (std::vector<std::string>{"unet", "vae"}));
  EXPECT_EQ(request.estimated_vram_usage, 150_MiB);
  ASSERT_EQ(loads[0].effect.attachments.size(), 2u);
  EXPECT_EQ(loads[0].effect.frame.header.descriptors, 2);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(loads[0].effect.attachments[i].model_id, tiny);
    EXPECT_EQ(loads[0].effect.attachments[i].component, request.component_loading_order[i]);
  }
}

// §2.3: the orchestrator hears of the load component by component, and shows it.
TEST_F(Design_3_2_model_load, progress_is_shown_by_component_and_is_not_durable) {
  const Rev rev = stage.machine.rev();
  for (const auto& [name, percent] : {std::pair("loading_unet", 40.0), std::pair("loading_vae", 90.0)}) {
    stage.say("w0", FrameType::model_loading_progress,
              ModelLoadingProgress{tiny, name, Percent{percent}, 60_MiB, Timestamp{}, {}}, 0, task());
    const auto published = stage.all<out::Publish>();
    ASSERT_GE(published.size(), 2u);
    const out::Publish& shown = published[published.size() - 2];  // the last is the transaction's (§3.2)
    EXPECT_EQ(shown.rev, Rev{});
    ASSERT_EQ(shown.events.size(), 1u);
    EXPECT_EQ(shown.events[0].type, "model_loading_progress");
    EXPECT_NE(shown.events[0].body.text.find(name), std::string::npos);
    EXPECT_EQ(published.back().events[0].type, "model_loading_state_update");
    EXPECT_EQ(stage.machine.live().progress.at(job().job_id).percent, percent);
  }
  EXPECT_EQ(stage.machine.live().progress.at(job().job_id).what, "loading tiny");
  EXPECT_EQ(stage.machine.rev(), rev);
}

TEST_F(Design_3_2_model_load, a_finished_load_is_in_use_and_gives_the_lane_back) {
  stage.loaded("w0", transaction);
  ASSERT_EQ(stage.tables().model.residencies.size(), 1u);
  EXPECT_EQ(stage.tables().model.residencies.at("w0/tiny").state, model::ResidencyState::loaded);
  ASSERT_EQ(stage.tables().memory.allocations.size(), 1u);
  EXPECT_EQ(stage.tables().memory.allocations.entries().begin()->second.row.state, memory::AllocationState::in_use);
  EXPECT_EQ(stage.tables().device.reservations.size(), 0u);
  EXPECT_EQ(stage.tables().transactions.decisions.size(), 0u);
  EXPECT_EQ(stage.sent(FrameType::inference_request).size(), 1u);
}

// §3.2: a copy that fails is compensated: the ledger is as it was before, the device is free for the next.
TEST_F(Design_3_2_model_load, a_failed_copy_is_compensated) {
  EXPECT_EQ(memory::allocated_on(stage.tables().memory, DeviceId("gpu_0")), 150_MiB);
  fail_copy("resource_exhausted");
  stage.expect_no_trace_of_a_load();
  EXPECT_EQ(memory::allocated_on(stage.tables().memory, DeviceId("gpu_0")), Bytes{});
  EXPECT_EQ(job().load_failures, 1u);
  EXPECT_EQ(job().stage, processing::JobStage::queued);
  EXPECT_NE(stage.prepared(), transaction);  // the device takes the next load at once
}

// §3.6: compensation in reverse order. The rows go in one commit, and in it in the reverse of the order in which the
// decision wrote them, which is the order of the saga's steps.
TEST_F(Design_3_2_model_load, its_rows_are_taken_back_in_the_reverse_of_the_order_of_its_steps) {
  const auto order = [&](bool written) {
    std::vector<std::string> out;
    for (const Record& record : stage.journal) {
      std::vector<std::string> tables;
      const Commit commit = decode_commit(record.body).value();
      for (const FactChange& change : commit.changes) {
        const bool of_load = change.table == "transactions.decisions" || change.table == "device.reservations" ||
                             change.table == "memory.allocations" || change.table == "model.residencies";
        if (of_load && change.value.has_value() == written) tables.push_back(change.table);
      }
      if (tables.size() == 4) out = std::move(tables);
    }
    return out;
  };
  const std::vector<std::string> forward = order(true);
  EXPECT_EQ(forward, (std::vector<std::string>{"transactions.decisions", "device.reservations", "memory.allocations",
                                               "model.residencies"}));
  ASSERT_EQ(model_loading.steps[0].service, "device_service");
  ASSERT_EQ(model_loading.steps[1].service, "memory_service");
  ASSERT_EQ(model_loading.steps[2].service, "model_service");
  fail_copy("resource_exhausted");
  EXPECT_EQ(order(false), std::vector<std::string>(forward.rbegin(), forward.rend()));
}

TEST_F(Design_3_2_model_load, a_copy_that_cannot_succeed_fails_the_job_with_its_reason) {
  fail_copy("data_loss");
  stage.expect_no_trace_of_a_load();
  EXPECT_EQ(job().stage, processing::JobStage::failed);
  ASSERT_TRUE(job().failure.has_value());
  EXPECT_EQ(job().failure->code, "data_loss");
  EXPECT_EQ(job().failure->message, "the copy broke");
}

TEST_F(Design_3_2_model_load, a_failure_of_an_older_load_changes_nothing) {
  fail_copy("resource_exhausted");
  const Rev rev = stage.machine.rev();
  stage.say("w0", FrameType::task_failed, TaskFailed{"internal", "late"}, 0, task());
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_EQ(job().load_failures, 1u);
}

// Design §2: what a digest says about files is believed once; other bytes under the same name are refused.
TEST(Design_3_2_model_cache, a_segment_whose_bytes_changed_breaks_the_model) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.fill_segments();
  Stage next(settings_of(1), stage.journal);
  next.start();
  next.scan();
  next.input(in::WorkerGone{WorkerId("w0"), Incarnation{1}, "proven gone"});
  ASSERT_FALSE(next.all<out::SpawnWorker>().empty());
  next.join("w0");
  ASSERT_FALSE(next.all<out::FillSegment>().empty());
  next.input(in::SegmentFilled{tiny, "unet", std::string(64, 'f')});
  EXPECT_EQ(next.tables().model.models.at("tiny").availability, model::Availability::broken);
  EXPECT_NE(next.tables().model.models.at("tiny").reason.find("bytes changed"), std::string::npos);
  EXPECT_TRUE(next.sent(FrameType::transaction_prepare).empty());
  EXPECT_EQ(next.all<out::DropSegment>().size(), 1u);
  EXPECT_EQ(next.stage_of("req_000001_000001/00"), processing::JobStage::failed);
}

}  // namespace
}  // namespace lockstep::design
