#include "operations/workflow.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/device/rules.h"
#include "domains/inference/rules.h"
#include "domains/postprocessing/rules.h"
#include "domains/processing/rules.h"
#include "operations/model_load.h"

namespace lockstep {

namespace {

using processing::Job;
using processing::JobEvent;
using processing::JobStage;
using processing::Request;

struct WorkerEventBody {
  WorkerId worker_id;
  Incarnation incarnation;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(WorkerEventBody, (), (worker_id, incarnation, reason))

/// Writes the job, and the request too when this was its last open job.
void put_job(const Tables& tables, const Job& job, WallTime now, Change& change) {
  change.put(tables.processing.jobs, job.job_id.str(), job);
  if (!processing::is_terminal(job.stage)) return;
  const Request& before = tables.processing.requests.at(job.request_id.str());
  const Request request = processing::settled(tables.processing, before, job, now);
  if (request.state == before.state) return;
  change.put(tables.processing.requests, request.request_id.str(), request);
  change.event(request.state == processing::RequestState::completed ? "request_completed" : "request_failed",
               request.request_id.str(), request, request.session_id);
}

}  // namespace

std::vector<ModelId> models_needed(const Request& request, const Job& job) {
  if (job.stage == JobStage::queued) return {request.inference.model_configuration.base_model};
  std::vector<ModelId> out;
  for (const PipelineOperation& each : request.pipeline) {
    if (std::ranges::find(out, each.model) == out.end()) out.push_back(each.model);
  }
  return out;
}

InferenceRequest start_inference(const Tables& tables, const Request& request, Job job, const WorkerRecord& worker,
                                 const std::string& batch_id, Change& change) {
  job = processing::after(std::move(job), JobEvent::inference_dispatched);
  ++job.attempt;
  job.worker_id = worker.worker_id;
  InferenceRequest message =
      inference::message_for(request.inference, inference::run_id(job.job_id, job.attempt), job.index);
  if (!batch_id.empty()) message.batch_id = batch_id;
  change.put(tables.processing.jobs, job.job_id.str(), job);
  change.put(tables.inference.runs, job.job_id.str(),
             inference::Run{message.request_id, job.job_id, job.attempt, message.model_configuration.base_model,
                            worker.worker_id, worker.incarnation, inference::RunState::executing, std::nullopt});
  change.event(std::string(InferenceRequest::event_type), request.request_id.str(), message, request.session_id);
  return message;
}

PostprocessingRequest start_postprocessing(const Tables& tables, const Request& request, Job job,
                                           const WorkerRecord& worker, const ImageBuffer& source, Change& change) {
  job = processing::after(std::move(job), JobEvent::postprocessing_dispatched);
  ++job.attempt;
  job.worker_id = worker.worker_id;
  PostprocessingRequest message;
  message.request_id = postprocessing::run_id(job.job_id, job.attempt);
  message.postprocessing_pipeline = request.pipeline;
  message.output_requirements = request.output.value_or(OutputRequirements{});
  message.source = source;
  if (request.kind == processing::RequestKind::generation) {
    const inference::Run& run = tables.inference.runs.at(job.job_id.str());
    const InferenceRequest inference = inference::message_for(request.inference, run.run_id, job.index);
    const InferenceParameters& p = inference.inference_parameters;
    message.source_inference_id = run.run_id;
    message.parameters = inference::parameters_text(inference);
    message.metadata = std::map<std::string, RawJson>{
        {"request_id", RawJson{json::to_text(request.request_id)}},
        {"image", RawJson{json::to_text(job.index)}},
        {"model", RawJson{json::to_text(run.model_id)}},
        {"seed", RawJson{json::to_text(p.seed.value_or(0))}},
        {"inference_parameters", RawJson{json::to_text(p)}},
        {"postprocessing_pipeline", RawJson{json::to_text(request.pipeline)}},
    };
  }
  change.put(tables.processing.jobs, job.job_id.str(), job);
  change.put(tables.postprocessing.runs, job.job_id.str(),
             postprocessing::Run{message.request_id, job.job_id, job.attempt, worker.worker_id, worker.incarnation,
                                 postprocessing::RunState::executing, std::nullopt, std::nullopt});
  change.event(std::string(PostprocessingRequest::event_type), request.request_id.str(), message, request.session_id);
  return message;
}

void finish_inference(const Tables& tables, const Job& job, const InferenceCompleted& message, Change& change) {
  inference::Run run =
      inference::after(tables.inference.runs.at(job.job_id.str()), inference::RunEvent::inference_completed);
  run.result = message.result_metadata;
  change.put(tables.inference.runs, job.job_id.str(), run);
  change.put(tables.processing.jobs, job.job_id.str(), processing::after(job, JobEvent::inference_completed));
  change.event(std::string(InferenceCompleted::event_type), job.request_id.str(), message,
               processing::session_of(tables.processing, job.job_id));
}

PipelineEnd finish_postprocessing(const Tables& tables, const Request& request, const Job& job,
                           const PostprocessingCompleted& message, WallTime now, Change& change) {
  postprocessing::Run run = postprocessing::after(tables.postprocessing.runs.at(job.job_id.str()),
                                                  postprocessing::RunEvent::postprocessing_completed);
  run.results = message.final_results;
  run.operations = message.operations;
  change.put(tables.postprocessing.runs, job.job_id.str(), run);
  change.event(std::string(PostprocessingCompleted::event_type), job.request_id.str(), message, request.session_id);
  if (request.kind == processing::RequestKind::check) {
    // The verdict is the result, whatever it says.
    put_job(tables, processing::after(job, JobEvent::verdict_only), now, change);
    return {};
  }
  Status deliver = postprocessing::may_deliver(request.pipeline, message);
  if (deliver) {
    deliver = postprocessing::enforce(postprocessing::policy_of(tables.postprocessing), message.final_results).delivery;
  }
  if (!deliver && deliver.error().code == ErrorCode::safety_blocked) {
    return {false, processing::failure_of(deliver.error())};
  }
  if (!deliver) {
    fail_job(tables, job, processing::failure_of(deliver.error()), now, change);
  } else if (!message.output) {
    fail_job(tables, job, {"internal", "postprocessing completed without an image"}, now, change);
  } else if (const std::string wanted = request.output.value_or(OutputRequirements{}).format;
             message.output->format != wanted) {
    fail_job(tables, job,
             {"internal",
              cat("the worker delivered ", shortened(message.output->format), "; the request asks for ", wanted)},
             now, change);
  } else {
    put_job(tables, processing::after(job, JobEvent::postprocessing_completed), now, change);
    return {true, {}};
  }
  return {};
}

void finish_storing(const Tables& tables, const Request& request, const Job& job, const ImageBuffer& image,
                    WallTime now, Change& change) {
  const std::uint64_t seed = request.inference.inference_parameters.seed.value_or(0) + job.index;
  const auto& results = tables.postprocessing.runs.at(job.job_id.str()).results;
  const auto review =
      postprocessing::enforce(postprocessing::policy_of(tables.postprocessing), results.value_or(FinalResults{}))
          .review;
  change.put(tables.postprocessing.outputs, job.job_id.str(),
             postprocessing::Output{job.job_id, image, seed, now, request.tags, review});
  put_job(tables, processing::after(job, JobEvent::stored), now, change);
}

void fail_job(const Tables& tables, const Job& job, const processing::Failure& failure, WallTime now, Change& change) {
  Job failed = processing::after(job, JobEvent::failed);
  failed.failure = failure;
  put_job(tables, failed, now, change);
}

void worker_gone(const Tables& tables, const WorkerRecord& worker, const std::string& how, bool counts_as_death,
                 WallTime now, Change& change) {
  std::map<std::string, Job> hurt;  // each job once, though it ran and was also loaded for
  for (const auto& [key, entry] : tables.model.residencies.entries()) {
    const model::Residency& residency = entry.row;
    if (residency.worker_id != worker.worker_id) continue;
    LOCKSTEP_CHECK(residency.incarnation == worker.incarnation);
    if (residency.state == model::ResidencyState::loading) {
      // A load can outlive its job's need: while this worker was away, another one may have taken the job.
      const Job* job = tables.processing.jobs.find(residency.wanted_by.str());
      if (job != nullptr && (job->stage == JobStage::queued || job->stage == JobStage::generated)) {
        hurt.emplace(job->job_id.str(), *job);
      }
    }
    undo_load(tables, residency, TransactionEvent::participant_lost, how, change);
  }
  unloads_end_with(tables, worker, change);
  for (const auto& [key, entry] : tables.processing.jobs.entries()) {
    if (entry.row.worker_id == worker.worker_id && !processing::is_terminal(entry.row.stage)) {
      hurt.emplace(key, entry.row);
    }
  }
  // A worker runs one task at a time: a job, or images of one request.
  LOCKSTEP_CHECK(hurt.empty() || std::ranges::all_of(hurt, [&](const auto& each) {
                   return hurt.size() == 1 || (each.second.request_id == hurt.begin()->second.request_id &&
                                               each.second.stage == JobStage::inferring);
                 }));
  for (const auto& [key, job] : hurt) {
    put_job(tables,
            counts_as_death ? processing::after_worker_death(job, worker.worker_id, how)
                            : processing::after(job, JobEvent::worker_lost),
            now, change);
  }
  WorkerRecord gone = worker;
  const auto next = worker_lifecycle.next(worker.state, WorkerEvent::proven_gone);
  LOCKSTEP_CHECK(next.has_value());
  gone.state = *next;
  gone.pid = 0;
  gone.start_ticks = 0;
  gone.deaths_in_a_row += counts_as_death ? 1 : 0;
  gone.last_end = how;
  gone.token_sha256.clear();
  change.put(tables.liveness.workers, worker.worker_id.str(), gone);
  const device::Device& device = tables.device.devices.at(worker.device_id.str());
  if (worker.origin == Origin::spawned) {
    change.put(tables.device.devices, worker.device_id.str(),
               device::after(device, device::DeviceEvent::worker_gone, cat(worker.worker_id.str(), ": ", how)));
  } else {
    change.erase(tables.device.devices, worker.device_id.str());  // nobody here brings it back
  }
  change.event("worker_gone", worker.worker_id.str(), WorkerEventBody{worker.worker_id, worker.incarnation, how});
}

void restart_job(const Tables& tables, const Job& job, Change& change) {
  // A check's pixels are on disk: only its run is lost.
  const bool check = tables.processing.requests.at(job.request_id.str()).kind == processing::RequestKind::check;
  const Job again = processing::after(job, check ? JobEvent::worker_lost : JobEvent::pixels_lost);
  change.put(tables.processing.jobs, job.job_id.str(), again);
}

}  // namespace lockstep
