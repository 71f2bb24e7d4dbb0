#include "operations/workflow.h"

#include <gtest/gtest.h>

#include "domains/model/rules.h"

namespace lockstep {
namespace {

using processing::JobStage;

// A worker that was away is proven gone while a load for a job is still in its rows; another worker has the job by now.
class Workflow : public testing::Test {
 protected:
  Workflow() {
    worker_.worker_id = WorkerId("w0");
    worker_.device_id = DeviceId("gpu_0");
    worker_.incarnation = Incarnation{1};
    worker_.state = WorkerState::ready;
    change_.put(tables_.liveness.workers, "w0", worker_);
    change_.put(tables_.device.devices, "gpu_0", device::Device{.device_id = DeviceId("gpu_0")});
    memory::Allocation allocation;
    allocation.allocation_id = AllocationId("a");
    allocation.device_id = DeviceId("gpu_0");
    allocation.worker_id = WorkerId("w0");
    allocation.incarnation = Incarnation{1};
    change_.put(tables_.memory.allocations, "a", allocation);
    model::Residency residency;
    residency.model_id = ModelId("m");
    residency.worker_id = WorkerId("w0");
    residency.incarnation = Incarnation{1};
    residency.device_id = DeviceId("gpu_0");
    residency.allocation_id = AllocationId("a");
    residency.wanted_by = JobId("req_1/00");
    change_.put(tables_.model.residencies, model::residency_key(ModelId("m"), WorkerId("w0")), residency);
  }

  processing::Job after_death_of_the_loader(JobStage stage, const std::string& runs_on) {
    processing::Job job;
    job.job_id = JobId("req_1/00");
    job.request_id = RequestId("req_1");
    job.stage = stage;
    job.worker_id = WorkerId(runs_on);
    change_.put(tables_.processing.jobs, "req_1/00", job);
    change_.put(tables_.processing.requests, "req_1", processing::Request{.request_id = RequestId("req_1")});
    EXPECT_TRUE(apply_changes(tables_, change_.take(WallTime{})).has_value());
    worker_gone(tables_, worker_, "signal 9", true, WallTime{}, change_);
    EXPECT_TRUE(apply_changes(tables_, change_.take(WallTime{})).has_value());
    EXPECT_EQ(tables_.model.residencies.find(model::residency_key(ModelId("m"), WorkerId("w0"))), nullptr);
    return tables_.processing.jobs.at("req_1/00");
  }

  Tables tables_;
  Change change_;
  WorkerRecord worker_;
};

TEST_F(Workflow, the_death_of_a_loading_worker_counts_against_the_job_that_waits_for_it) {
  EXPECT_EQ(after_death_of_the_loader(JobStage::queued, "").deaths, 1u);
}

TEST_F(Workflow, an_image_that_is_stored_meanwhile_survives_the_death_of_a_worker_that_loaded_for_it) {
  const processing::Job job = after_death_of_the_loader(JobStage::storing, "");
  EXPECT_EQ(job.stage, JobStage::storing);
  EXPECT_EQ(job.deaths, 0u);
}

TEST_F(Workflow, a_job_that_runs_elsewhere_runs_on_when_a_worker_that_loaded_for_it_dies) {
  const processing::Job job = after_death_of_the_loader(JobStage::inferring, "w1");
  EXPECT_EQ(job.stage, JobStage::inferring);
  EXPECT_EQ(job.worker_id, WorkerId("w1"));
  EXPECT_EQ(job.deaths, 0u);
}

}  // namespace
}  // namespace lockstep
