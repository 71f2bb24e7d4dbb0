#include "bench/record_mix.h"

#include "base/digest.h"
#include "base/text.h"
#include "events/inference_events.h"

namespace lockstep::bench {

namespace {

constexpr std::uint64_t commits_of_an_image = 6;
constexpr std::int64_t begin_ms = 1'795'853'575'334;

processing::Request request_of(std::uint64_t number) {
  processing::Request request;
  request.request_id = RequestId(cat("req_000001_", 100'000'000 + number));
  request.inference.model_configuration.base_model = ModelId("sdxl-base");
  InferenceParameters& parameters = request.inference.inference_parameters;
  parameters.prompt = "a lighthouse above a stormy sea, oil on canvas, dramatic light";
  parameters.steps = 30;
  parameters.guidance_scale = 5.0;
  parameters.width = 1024;
  parameters.height = 1024;
  parameters.seed = 2'967'641'826'949'255'010 + number;
  request.created = WallTime{begin_ms + static_cast<std::int64_t>(number) * 1000};
  return request;
}

}  // namespace

Commit RecordMix::next() {
  const std::uint64_t number = rev_ / commits_of_an_image;
  const std::uint64_t step = rev_ % commits_of_an_image;
  const WallTime now{begin_ms + static_cast<std::int64_t>(rev_) * 250};
  processing::Request request = request_of(number);
  const std::string& id = request.request_id.str();
  const std::string key = cat(id, "/00");
  processing::Job job{.job_id = JobId(key), .request_id = request.request_id};
  inference::Run run{.run_id = cat("inf:", key, ":1"),
                     .job_id = job.job_id,
                     .attempt = 1,
                     .model_id = request.inference.model_configuration.base_model,
                     .worker_id = WorkerId("worker_0"),
                     .incarnation = Incarnation{1}};
  const std::string sha256 = sha256_hex(id);
  Change change;
  if (step == 0) {
    change.put(names_.processing.jobs, key, job);
    change.put(names_.processing.requests, id, request);
    change.event("request_accepted", id, request);
  } else if (step == 1) {
    job.stage = processing::JobStage::inferring;
    job.attempt = 1;
    job.worker_id = run.worker_id;
    job.deadline = WallTime{now.ms + 600'000};
    change.put(names_.model.usages, run.model_id.str(),
               model::Usage{.loads = 1, .uses = number + 1, .last_loaded = WallTime{begin_ms}, .last_used = now});
    change.put(names_.processing.jobs, key, job);
    change.put(names_.inference.runs, key, run);
    change.event("inference_request", id, request.inference);
  } else if (step == 2) {
    job.stage = processing::JobStage::generated;
    job.attempt = 1;
    run.state = inference::RunState::completed;
    run.result = ResultMetadata{5.9, 30, SizeText{"7.1GB"}, 7.38};
    change.put(names_.inference.runs, key, run);
    change.put(names_.processing.jobs, key, job);
    InferenceCompleted completed;
    completed.request_id = run.run_id;
    completed.result_metadata = *run.result;
    completed.result_location = cat("sha256:", sha256);
    change.event(std::string(InferenceCompleted::event_type), id, completed);
  } else if (step == 3) {
    job.stage = processing::JobStage::completed;
    job.attempt = 1;
    request.state = processing::RequestState::completed;
    request.finished = now;
    change.put(names_.postprocessing.outputs, key,
               postprocessing::Output{.job_id = job.job_id,
                                      .image = {"png", 1024, 1024, 1'848'504, sha256},
                                      .seed = *request.inference.inference_parameters.seed,
                                      .created = now});
    change.put(names_.processing.jobs, key, job);
    change.put(names_.processing.requests, id, request);
    change.event("request_completed", id, request);
  } else if (step == 4) {
    WorkerRecord worker;
    worker.worker_id = run.worker_id;
    worker.device_id = DeviceId("gpu_0");
    worker.incarnation = run.incarnation;
    worker.pid = 4242;
    worker.token_sha256 = sha256;
    change.put(names_.liveness.workers, worker.worker_id.str(), worker);
  } else {
    change.erase(names_.propagation.deliveries, "worker_0/model_cache_update/");
  }
  Commit commit = change.take(now);
  commit.rev = Rev{++rev_};
  return commit;
}

}  // namespace lockstep::bench
