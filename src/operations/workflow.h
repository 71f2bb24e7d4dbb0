#pragma once

// The workflow of a job: inference, then postprocessing, then storage, each step one commit over the processing
// domain and the domain that does the work (§3.3, §3.4).

#include <optional>
#include <string>

#include "operations/tables.h"
#include "transactions/saga.h"

namespace lockstep {

/// The saga of an image, and of the images of a request whose error_handling is cascade_rollback (§3.6).
inline constexpr StepDefinition session_workflow_steps[] = {
    {"processing_service", "reserve_session_resources", "release_session_resources"},
    {"inference_service", "execute_inference", "discard_pixels"},
    {"postprocessing_service", "run_pipeline", "discard_result"},
    {"postprocessing_service", "store_output", "remove_output"}};
inline constexpr SagaDefinition session_workflow{"session_workflow", 1, session_workflow_steps};
static_assert(well_formed(session_workflow));

/// What a job needs before its next step can run on a worker.
std::vector<ModelId> models_needed(const processing::Request& request, const processing::Job& job);

/// Dispatch: the job is the worker's, one attempt later. Returns the message to send once the commit is durable.
/// batch_id: of the batch whose image it is; empty when it is made by itself.
InferenceRequest start_inference(const Tables& tables, const processing::Request& request, processing::Job job,
                                 const WorkerRecord& worker, const std::string& batch_id, Change& change);
PostprocessingRequest start_postprocessing(const Tables& tables, const processing::Request& request,
                                           processing::Job job, const WorkerRecord& worker, const ImageBuffer& source,
                                           Change& change);

/// The worker's results. The caller has checked that run and attempt are current.
void finish_inference(const Tables& tables, const processing::Job& job, const InferenceCompleted& message,
                      Change& change);
/// gate: what failed is a quality gate (§3.4): the job's end, and that of others of its request, is the caller's.
struct PipelineEnd {
  bool store = false;
  std::optional<processing::Failure> gate;
};
/// Whether its image is to be stored; otherwise the job has ended, or it has no image.
PipelineEnd finish_postprocessing(const Tables& tables, const processing::Request& request, const processing::Job& job,
                           const PostprocessingCompleted& message, WallTime now, Change& change);

/// The encoded image is on disk under its content hash: the job is complete.
void finish_storing(const Tables& tables, const processing::Request& request, const processing::Job& job,
                    const ImageBuffer& image, WallTime now, Change& change);

/// The job's end without a result, and the request's when it was the last.
void fail_job(const Tables& tables, const processing::Job& job, const processing::Failure& failure, WallTime now,
              Change& change);

/// Everything that a dead incarnation held is free, every job it ran goes back or is set aside. `how` is for people.
void worker_gone(const Tables& tables, const WorkerRecord& worker, const std::string& how, bool counts_as_death,
                 WallTime now, Change& change);

/// Pixels lived in the memory of an orchestrator that is gone: the job starts over.
void restart_job(const Tables& tables, const processing::Job& job, Change& change);

}  // namespace lockstep
