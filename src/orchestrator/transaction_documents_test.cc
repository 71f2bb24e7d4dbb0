#include "orchestrator/transaction_documents.h"

#include <gtest/gtest.h>

#include "domains/model/rules.h"
#include "operations/model_load.h"

namespace lockstep {
namespace {

// The documents must say what is wrong where it is wrong; a system that works never gets into these states, so the rows
// are put here by hand.
class TransactionDocuments : public testing::Test {
 protected:
  TransactionDocuments() {
    load.transaction_id = TransactionId("tx_1_1");
    load.model_id = ModelId("tiny");
    load.worker_id = WorkerId("w0");
    load.incarnation = Incarnation{1};
    load.device_id = DeviceId("gpu_0");
    load.bytes = Bytes{100};
    load.state = LoggedState::committing;
    load.decided = WallTime{1};
    WorkerRecord worker;
    worker.worker_id = load.worker_id;
    worker.device_id = load.device_id;
    worker.incarnation = load.incarnation;
    worker.state = WorkerState::ready;
    put(tables.liveness.workers, "w0", worker);
    put(tables.device.devices, "gpu_0",
        device::Device{load.device_id, load.worker_id, device::Kind::cuda, Bytes{1000}, device::Availability::online,
                       ""});
  }
  template <class Row>
  void put(Table<Row>& table, const std::string& key, const Row& row) {
    ASSERT_TRUE(table.apply({std::string(table.name()), key, RawJson{json::to_text(row)}}, Rev{1}).has_value());
  }
  template <class Row>
  void erase(Table<Row>& table, const std::string& key) {
    ASSERT_TRUE(table.apply({std::string(table.name()), key, std::nullopt}, Rev{1}).has_value());
  }
  void decide(model::ResidencyState state = model::ResidencyState::loading,
              memory::AllocationState bytes = memory::AllocationState::allocated) {
    const AllocationId id = allocation_of_load(load.transaction_id);
    put(tables.device.reservations, "gpu_0",
        device::Reservation{load.device_id, load.transaction_id, "model_loading", load.model_id});
    put(tables.memory.allocations, id.str(),
        memory::Allocation{id, load.device_id, load.worker_id, load.incarnation, load.bytes, "model", load.model_id,
                           bytes});
    put(tables.model.residencies, model::residency_key(load.model_id, load.worker_id),
        model::Residency{load.model_id, load.worker_id, load.incarnation, load.device_id, id, load.transaction_id,
                         state, JobId("j")});
  }
  Turn turn() { return {tables, settings, live, seconds(1), WallTime{2}, {}, {}}; }
  DeviceMemoryConsistency consistency() { return device_memory_consistency(turn(), load); }

  Tables tables;
  Settings settings;
  Live live;
  LoggedTransaction load;
};

TEST_F(TransactionDocuments, both_halves_of_a_load_agree_or_the_document_says_that_they_do_not) {
  decide();
  EXPECT_TRUE(consistency().validation_checks.at(0).consistency);
  EXPECT_EQ(consistency().validation_checks.at(0).device_state, "allocated_to_tx_1_1");
  EXPECT_EQ(consistency().validation_checks.at(0).memory_state, "allocated_for_tx_1_1");
  EXPECT_EQ(consistency().consistency_score, Ratio{1});
  erase(tables.memory.allocations, allocation_of_load(load.transaction_id).str());
  EXPECT_FALSE(consistency().validation_checks.at(0).consistency) << "the lane is taken, the bytes are not";
  EXPECT_EQ(consistency().validation_checks.at(0).memory_state, "free");
  EXPECT_FALSE(consistency().validation_checks.at(1).consistency);
  EXPECT_EQ(consistency().validation_checks.at(1).total_device_allocations, 1u);
  EXPECT_EQ(consistency().validation_checks.at(1).total_memory_allocations, 0u);
  EXPECT_EQ(consistency().consistency_score, Ratio{0});
}

TEST_F(TransactionDocuments, a_load_that_was_undone_has_neither_half) {
  EXPECT_EQ(consistency().consistency_score, Ratio{1});
  decide();
  erase(tables.model.residencies, model::residency_key(load.model_id, load.worker_id));
  EXPECT_FALSE(consistency().validation_checks.at(0).consistency);
  EXPECT_FALSE(ledger_is_free_of(turn(), load));
}

TEST_F(TransactionDocuments, a_load_that_is_done_gives_its_lane_back) {
  decide(model::ResidencyState::loaded, memory::AllocationState::in_use);
  EXPECT_FALSE(consistency().validation_checks.at(0).consistency) << "the lane is still taken";
  erase(tables.device.reservations, "gpu_0");
  EXPECT_TRUE(consistency().validation_checks.at(0).consistency);
}

TEST_F(TransactionDocuments, the_checkpoint_of_a_copy_says_which_side_is_wrong) {
  decide(model::ResidencyState::loaded, memory::AllocationState::allocated);
  EXPECT_EQ(loading_state(turn(), load, 1).consistency_checkpoint.cross_domain_sync, Consistency::inconsistent);
  decide(model::ResidencyState::loaded, memory::AllocationState::in_use);
  EXPECT_EQ(loading_state(turn(), load, 1).consistency_checkpoint.cross_domain_sync, Consistency::consistent);
  EXPECT_EQ(loading_state(turn(), load, 1).consistency_checkpoint.vram_allocation_state, Consistency::consistent);
  load.bytes = Bytes{99};
  EXPECT_EQ(loading_state(turn(), load, 1).consistency_checkpoint.vram_allocation_state, Consistency::inconsistent);
  decide();
  EXPECT_EQ(loading_state(turn(), load, 0.5).consistency_checkpoint.ram_cache_state, Consistency::inconsistent)
      << "the cache has no segment of it";
}

TEST_F(TransactionDocuments, what_is_not_there_ends_the_dependency_chain) {
  EXPECT_TRUE(model_memory_document(turn(), load).dependency_chain.empty());
  EXPECT_FALSE(model_memory_document(turn(), load).consistency_requirements.memory_state_sync);
  EXPECT_FALSE(model_memory_document(turn(), load).consistency_requirements.loading_state_tracking);
}

TEST_F(TransactionDocuments, a_run_that_nobody_works_on_has_no_guarantee) {
  LoggedTransaction image = load;
  image.kind = TransactionKind::image;
  image.job_id = JobId("req_1/00");
  image.run_id = "inf:req_1/00:1";
  const SessionGuarantees guarantees = processing_inference_document(turn(), image).consistency_guarantees;
  EXPECT_FALSE(guarantees.resource_isolation);
  EXPECT_FALSE(guarantees.session_state_coherence);
  EXPECT_FALSE(guarantees.inference_context_validity);
  EXPECT_FALSE(session_sync(turn(), image, "prepared").consistency_validation.resource_allocation_match);
  image.state = LoggedState::committed;
  const InferencePostprocessingFlow flow = pipeline_flow(turn(), image);
  for (const FlowStage& each : flow.flow_stages) EXPECT_EQ(each.consistent, false) << each.consistency_check;
}

TEST(TransactionDocumentRules, what_is_undone_is_the_reverse_of_what_was_done) {
  Saga saga{"cross_domain_model_loading",
            "s",
            {{1, "a", "do_a", "undo_a", SagaStepStatus::completed}, {2, "b", "do_b", "undo_b", SagaStepStatus::failed}},
            {"undo_b", "undo_a"},
            SagaStatus::compensating};
  EXPECT_TRUE(saga.check().has_value());
  saga.compensation_sequence = {"undo_a", "undo_b"};
  EXPECT_EQ(saga.check().error().pointer, "/compensation_sequence/1");
  saga.compensation_sequence = {"undo_b", "undo_b"};
  EXPECT_EQ(saga.check().error().pointer, "/compensation_sequence/1") << "undone twice";
  saga.compensation_sequence = {"undo_c"};
  EXPECT_EQ(saga.check().error().pointer, "/compensation_sequence/0");
  saga.compensation_sequence.clear();
  saga.saga_steps[1].step = 3;
  EXPECT_EQ(saga.check().error().pointer, "/saga_steps/1/step");
  PartialAllocationFailure partial;
  partial.allocated_resources = {{"device_reservation", "allocated", true}, {"ram_cache_space", "allocated", true}};
  partial.rollback_coordination.rollback_sequence = {"release_device_reservation", "release_ram_cache_space"};
  EXPECT_EQ(partial.check().error().pointer, "/rollback_coordination/rollback_sequence/0");
  partial.allocated_resources[0].rollback_required = false;
  partial.rollback_coordination.rollback_sequence = {"release_ram_cache_space"};
  EXPECT_TRUE(partial.check().has_value());
}

}  // namespace
}  // namespace lockstep
