// Accept: what workers say. A frame of another incarnation or epoch, or out of sequence, changes nothing (S6).

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/device/rules.h"
#include "domains/inference/rules.h"
#include "domains/model/rules.h"
#include "domains/postprocessing/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"
#include "operations/model_load.h"
#include "operations/workflow.h"
#include "orchestrator/coordination.h"
#include "orchestrator/costs.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_calibration.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_session.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/owner_gate.h"
#include "orchestrator/starts.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

using processing::Job;
using processing::JobStage;

/// What all frame handlers need; `handles` are given up to whoever takes them, the rest is dropped.
struct Arrival {
  const WorkerRecord& worker;
  WorkerLive& live;
  const Envelope& envelope;
  std::vector<HandleId> handles;
};

/// The message, read once in whichever form it came; not_owner when it is about a thing of another worker's. A hello is
/// no such statement: who it is was decided before it was let in.
template <class Body>
Result<Body> body_of(const Turn& turn, const Arrival& arrival) {
  Body body = LOCKSTEP_TRY(read_message<Body>(arrival.envelope));
  if constexpr (!std::is_same_v<Body, Hello>) {
    LOCKSTEP_TRY_STATUS(things_are_its_own(turn, arrival.worker, arrival.envelope, body));
  }
  return body;
}

/// The residency that the worker's load task is about; nullptr when the report is late.
const model::Residency* residency_of_load(const Turn& turn, const Arrival& arrival) {
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    if (entry.row.worker_id == arrival.worker.worker_id &&
        arrival.envelope.op_id == cat("load:", entry.row.transaction_id.str())) {
      return &entry.row;
    }
  }
  return nullptr;
}

/// The job whose current run this report belongs to; nullptr when it is late or never was.
const Job* job_of_run(const Turn& turn, const Arrival& arrival, JobStage stage) {
  const Job* job = turn.tables.processing.jobs.find(arrival.live.job_of(arrival.envelope.op_id).str());
  if (job == nullptr || job->stage != stage || job->attempt != arrival.envelope.attempt ||
      job->worker_id != arrival.worker.worker_id) {
    return nullptr;
  }
  return job;
}

template <class Body>
void show_progress(Turn& turn, const Arrival& arrival, std::string what, double percent, const Body& body) {
  expect_progress(turn, arrival.worker.worker_id);
  const JobId job = arrival.live.job_of(arrival.envelope.op_id);
  turn.live.progress[job] = {std::move(what), percent};
  const Job* row = turn.tables.processing.jobs.find(job.str());
  const std::string subject = row == nullptr ? job.str() : row->request_id.str();
  turn.publish(std::string(Body::event_type), subject, body, processing::session_of(turn.tables.processing, job));
}

Status on_hello(Turn& turn, Arrival& arrival) {
  const Hello hello = LOCKSTEP_TRY(body_of<Hello>(turn, arrival));
  if (hello.worker_id != arrival.worker.worker_id) {
    return fail(ErrorCode::invalid_argument, cat("hello names ", shortened(hello.worker_id.str())), "/worker_id");
  }
  const auto next = worker_lifecycle.next(arrival.worker.state, WorkerEvent::hello);
  if (!next) return fail(ErrorCode::invalid_transition, "a second hello");
  WorkerRecord online = arrival.worker;
  online.state = *next;
  online.subscriptions = hello.subscriptions;
  turn.change.put(turn.tables.liveness.workers, online.worker_id.str(), online);
  welcome_worker(turn, online, turn.tables.device.devices.at(online.device_id.str()), hello);
  return {};
}

Status on_ready(Turn& turn, Arrival& arrival) {
  const auto next = worker_lifecycle.next(arrival.worker.state, WorkerEvent::handlers_ready);
  if (!next) return fail(ErrorCode::invalid_transition, "ready out of turn");
  WorkerRecord ready = arrival.worker;
  ready.state = *next;
  ready.deaths_in_a_row = 0;
  turn.change.put(turn.tables.liveness.workers, ready.worker_id.str(), ready);
  const device::Device& device = turn.tables.device.devices.at(ready.device_id.str());
  turn.change.put(turn.tables.device.devices, device.device_id.str(),
                  device::after(device, device::DeviceEvent::worker_ready, ""));
  turn.change.event("worker_ready", ready.worker_id.str(), ready);
  turn.effect(out::DisarmTimer{cat("start:", ready.worker_id.str())});
  forget_deaths(turn, ready.worker_id);
  begin_deliveries(turn, ready);
  tell_device_facts(turn, ready);
  tell_memory_facts(turn, ready);
  tell_content_facts(turn, ready);
  turn.log(cat(ready.worker_id.str(), " is ready"));
  return {};
}

Status on_vote(Turn& turn, Arrival& arrival) {
  const TransactionVote vote = LOCKSTEP_TRY(body_of<TransactionVote>(turn, arrival));
  const TransactionState state = state_of(turn.tables, turn.live.intents, vote.transaction_id);
  const TransactionEvent event =
      vote.prepare_result == Vote::vote_commit ? TransactionEvent::vote_commit : TransactionEvent::vote_abort;
  const TransactionState next = after(state, event);
  if (next == state) {  // late, or said again
    // Unknown means aborted (presumed): the worker may forget its promise. The replay is over, so silence is final.
    if (state == TransactionState::aborted) {
      send(turn, arrival.worker, FrameType::transaction_abort, TransactionDecision{vote.transaction_id},
           transaction_operation(vote.transaction_id));
    }
    return {};
  }
  const LoadIntent intent = turn.live.intents.at(vote.transaction_id);
  if (intent.worker_id != arrival.worker.worker_id || intent.incarnation != arrival.worker.incarnation) {
    return fail(ErrorCode::not_owner, cat("a vote on ", vote.transaction_id.str(), " of another worker"));
  }
  if (next == TransactionState::aborted) {
    abort_load(turn, intent.transaction_id, event, vote.reason,
               fail(ErrorCode::resource_exhausted, cat(intent.worker_id.str(), " cannot load ",
                                                       intent.plan.model_id.str(), ": ", shortened(vote.reason, 500))));
    return {};
  }
  turn.live.intents.erase(intent.transaction_id);
  turn.effect(out::DisarmTimer{cat("prepare:", vote.transaction_id.str())});
  decide_load(turn.tables, intent, turn.change);
  send(turn, arrival.worker, FrameType::transaction_commit, TransactionDecision{intent.transaction_id},
       transaction_operation(intent.transaction_id));
  std::vector<out::Attachment> segments;
  for (const ComponentPlan& component : intent.plan.components) {
    segments.push_back({component.model_id.value_or(intent.plan.model_id), component.name, 0});
  }
  send(turn, arrival.worker, FrameType::model_load_request, load_message(intent, load_priority(turn, intent.wanted_by)),
       load_operation(intent.transaction_id), std::move(segments));
  expect_progress(turn, intent.worker_id);
  return {};
}

Status on_load_progress(Turn& turn, Arrival& arrival) {
  const ModelLoadingProgress progress = LOCKSTEP_TRY(body_of<ModelLoadingProgress>(turn, arrival));
  const model::Residency* residency = residency_of_load(turn, arrival);
  if (residency == nullptr || residency->state != model::ResidencyState::loading) return {};
  if (progress.model_id != residency->model_id) {
    return fail(ErrorCode::invalid_argument, cat("progress names ", shortened(progress.model_id.str())), "/model_id");
  }
  if (progress.loading_stage != "loaded") {
    show_progress(turn, arrival, cat("loading ", progress.model_id.str()), progress.progress_percentage.value,
                  progress);
    load_progressed(turn, residency->transaction_id, progress.progress_percentage.value / 100);
    return {};
  }
  turn.live.residency_used[{residency->model_id, residency->worker_id}] = ++turn.live.uses;
  turn.log(cat(residency->model_id.str(), " is loaded on ", residency->worker_id.str()));
  finish_load(turn.tables, *residency, turn.wall, turn.change);
  turn.change.event(std::string(ModelLoadingProgress::event_type), progress.model_id.str(), progress,
                    processing::session_of(turn.tables.processing, residency->wanted_by));
  task_over(turn, arrival.worker.worker_id);
  return {};
}

/// Of a run that nobody waits for any more. A worker that was told to cancel it and goes on to its next step is alive;
/// if it goes on for long, the deadline of the cancellation ends it.
Status late_progress(Turn& turn, const Arrival& arrival) {
  if (arrival.live.works_on(arrival.envelope.op_id)) expect_progress(turn, arrival.worker.worker_id);
  return {};
}

Status on_inference_progress(Turn& turn, Arrival& arrival) {
  const InferenceProgress progress = LOCKSTEP_TRY(body_of<InferenceProgress>(turn, arrival));
  if (job_of_run(turn, arrival, JobStage::inferring) == nullptr) return late_progress(turn, arrival);
  const ExecutionMetrics& steps = progress.execution_metrics;
  step_measured(turn, arrival.worker, steps);
  show_progress(turn, arrival, "inference", steps.total_steps == 0 ? 0 : 100.0 * steps.current_step / steps.total_steps,
                progress);
  return {};
}

Status on_inference_completed(Turn& turn, Arrival& arrival) {
  const InferenceCompleted completed = LOCKSTEP_TRY(body_of<InferenceCompleted>(turn, arrival));
  const Job* job = job_of_run(turn, arrival, JobStage::inferring);
  const std::uint32_t images = std::max(arrival.live.batch_size, 1u);
  run_over(turn, arrival.worker.worker_id, arrival.envelope.op_id);
  if (job == nullptr) return {};
  if (!completed.result || arrival.handles.size() != 1) {
    return fail(ErrorCode::invalid_argument, "inference_completed without exactly one image", "/result");
  }
  turn.live.pixels[job->job_id] = {arrival.handles.front(), *completed.result};
  arrival.handles.clear();
  inference_took(turn, arrival.worker, turn.tables.processing.requests.at(job->request_id.str()).inference,
                 completed.result_metadata, images);
  finish_inference(turn.tables, *job, completed, turn.change);
  return {};
}

Status on_postprocessing_progress(Turn& turn, Arrival& arrival) {
  const PostprocessingProgress progress = LOCKSTEP_TRY(body_of<PostprocessingProgress>(turn, arrival));
  if (job_of_run(turn, arrival, JobStage::postprocessing) == nullptr) return late_progress(turn, arrival);
  show_progress(turn, arrival, progress.pipeline_progress.current_operation,
                progress.pipeline_progress.current_operation_progress.value, progress);
  return {};
}

Status on_postprocessing_completed(Turn& turn, Arrival& arrival) {
  const PostprocessingCompleted completed = LOCKSTEP_TRY(body_of<PostprocessingCompleted>(turn, arrival));
  const Job* job = job_of_run(turn, arrival, JobStage::postprocessing);
  run_over(turn, arrival.worker.worker_id, arrival.envelope.op_id);
  if (job == nullptr) return {};
  if (completed.output.has_value() != (arrival.handles.size() == 1)) {
    return fail(ErrorCode::invalid_argument, "postprocessing_completed names an image that does not ride with it",
                "/output");
  }
  pipeline_took(turn, completed);
  const processing::Request& request = turn.tables.processing.requests.at(job->request_id.str());
  const PipelineEnd end = finish_postprocessing(turn.tables, request, *job, completed, turn.wall, turn.change);
  if (end.gate) gate_failed(turn, request, *job, *end.gate);
  if (end.store) {
    turn.live.storing[job->job_id] = completed.output->sha256;
    turn.effect(out::StorePixels{job->job_id, job->attempt, arrival.handles.front(), *completed.output});
    arrival.handles.clear();
  }
  drop_pixels(turn, job->job_id);
  return {};
}

Status on_task_failed(Turn& turn, Arrival& arrival) {
  const TaskFailed failed = LOCKSTEP_TRY(body_of<TaskFailed>(turn, arrival));
  if (!arrival.live.works_on(arrival.envelope.op_id)) return {};
  const Error why = fail(error_code_named(failed.code), shortened(failed.message, 2000));
  if (is_calibrating(turn, arrival.worker, arrival.envelope.op_id)) {
    calibration_failed(turn, arrival.worker, why);
    return {};
  }
  const JobId job_id = arrival.live.job_of(arrival.envelope.op_id);
  const bool of_many = arrival.live.batch_size > 1;
  const model::Residency* residency = residency_of_load(turn, arrival);
  run_over(turn, arrival.worker.worker_id, arrival.envelope.op_id);
  if (residency != nullptr) {
    load_fails(turn, residency->transaction_id, "copy_failed", why.message);
    await_unload(turn.tables, *residency, why.message, turn.wall, turn.change);
    undo_load(turn.tables, *residency, TransactionEvent::acknowledged, why.message, turn.change);
    blame_load(turn, residency->wanted_by, why);
    return {};
  }
  const Job* job = turn.tables.processing.jobs.find(job_id.str());
  if (job == nullptr || processing::is_terminal(job->stage) || job->attempt != arrival.envelope.attempt) return {};
  if (of_many && why.code == ErrorCode::resource_exhausted) {
    // Too many at once says nothing about one: the next attempt is by itself.
    turn.warn(cat(job_id.str(), " goes by itself: ", why.message));
    turn.change.put(turn.tables.processing.jobs, job_id.str(),
                    processing::after(*job, processing::JobEvent::worker_lost));
    return {};
  }
  drop_pixels(turn, job_id);
  fail_job(turn.tables, *job, processing::failure_of(why), turn.wall, turn.change);
  return {};
}

Status on_model_released(Turn& turn, Arrival& arrival) {
  const ModelReleased released = LOCKSTEP_TRY(body_of<ModelReleased>(turn, arrival));
  const model::Residency* residency = model::residency(turn.tables.model, released.model_id, arrival.worker.worker_id);
  if (residency == nullptr || residency->state != model::ResidencyState::releasing) {
    // It had released it while nobody heard, and said so when it came back: only its answer was still due.
    run_over(turn, arrival.worker.worker_id, arrival.envelope.op_id);
    return {};
  }
  if (released.bytes_mapped.value != 0) {
    // It says "released" and the mapping says otherwise: only the end of the process makes the bytes free.
    end_worker(
        turn, arrival.worker.worker_id,
        cat("it still maps ", to_text(released.bytes_mapped), " of ", released.model_id.str(), " after releasing it"));
    return {};
  }
  finish_release(turn.tables, *residency, turn.change);
  task_over(turn, arrival.worker.worker_id);
  return {};
}

/// How a model does on its worker (§2.3): shown and passed on, nothing is decided by it.
Status on_model_runtime(Turn& turn, Arrival& arrival) {
  const ModelRuntimeUpdate update = LOCKSTEP_TRY(body_of<ModelRuntimeUpdate>(turn, arrival));
  const model::Residency* held = model::residency(turn.tables.model, update.model_id, arrival.worker.worker_id);
  if (held == nullptr) return {};  // late: it was released meanwhile
  turn.live.runtimes[{update.model_id, arrival.worker.worker_id}] = update;
  turn.publish(std::string(ModelRuntimeUpdate::event_type), update.model_id.str(), update);
  return {};
}

Status dispatch(Turn& turn, FrameType type, Arrival& arrival) {
  switch (type) {
    case FrameType::hello: return on_hello(turn, arrival);
    case FrameType::ready: return on_ready(turn, arrival);
    case FrameType::heartbeat:
      arrival.live.refused_there = LOCKSTEP_TRY(body_of<Heartbeat>(turn, arrival)).writes_refused.value_or(0);
      send(turn, arrival.worker, FrameType::heartbeat_ack, Heartbeat{});
      return {};
    case FrameType::transaction_vote: return on_vote(turn, arrival);
    case FrameType::transaction_ack: {
      const TransactionAck ack = LOCKSTEP_TRY(body_of<TransactionAck>(turn, arrival));
      end_transaction(turn.tables, ack.transaction_id, TransactionEvent::acknowledged, turn.change);
      return {};
    }
    case FrameType::model_loading_progress: return on_load_progress(turn, arrival);
    case FrameType::inference_progress: return on_inference_progress(turn, arrival);
    case FrameType::inference_completed: return on_inference_completed(turn, arrival);
    case FrameType::postprocessing_progress: return on_postprocessing_progress(turn, arrival);
    case FrameType::postprocessing_completed: return on_postprocessing_completed(turn, arrival);
    case FrameType::task_failed: return on_task_failed(turn, arrival);
    case FrameType::model_released: return on_model_released(turn, arrival);
    case FrameType::session_progress_update:
      return on_session_progress(turn, arrival.worker, LOCKSTEP_TRY(body_of<SessionProgressUpdate>(turn, arrival)));
    case FrameType::device_health_update: {
      const DeviceHealthUpdate update = LOCKSTEP_TRY(body_of<DeviceHealthUpdate>(turn, arrival));
      health_sampled(turn, arrival.worker, update, !arrival.live.health);
      arrival.live.health = update;
      turn.publish(std::string(DeviceHealthUpdate::event_type), update.device_id.str(), update);
      return {};
    }
    case FrameType::vram_usage_update: {
      const VramUsageUpdate update = LOCKSTEP_TRY(body_of<VramUsageUpdate>(turn, arrival));
      vram_sampled(turn, arrival.worker, update, !arrival.live.memory);
      arrival.live.memory = update;
      turn.publish(std::string(VramUsageUpdate::event_type), update.device_id.str(), update);
      return {};
    }
    case FrameType::model_runtime_update: return on_model_runtime(turn, arrival);
    case FrameType::device_capability_discovered:
      return capabilities_reported(turn, arrival.worker,
                                   LOCKSTEP_TRY(body_of<DeviceCapabilityDiscovered>(turn, arrival)),
                                   arrival.envelope.op_id);
    case FrameType::memory_allocation_request:
      return memory_asked(turn, arrival.worker, LOCKSTEP_TRY(body_of<MemoryAllocationRequest>(turn, arrival)));
    case FrameType::cross_domain_coordination:
      return coordination_asked(turn, arrival.worker, LOCKSTEP_TRY(body_of<CrossDomainCoordination>(turn, arrival)));
    case FrameType::reservation_update:
      return reservation_updated(turn, arrival.worker, LOCKSTEP_TRY(body_of<ReservationUpdate>(turn, arrival)));
    case FrameType::state_applied:
      return state_applied(turn, arrival.worker, arrival.envelope.op_id,
                           LOCKSTEP_TRY(body_of<StateApplied>(turn, arrival)));
    default: break;
  }
  // It is the worker's to say, and nothing here would come of it: that must not look like being heard.
  return fail(ErrorCode::not_yet, cat("nothing is done with ", json::enum_name(type), " in this version"));
}

}  // namespace

void on_frame(Turn& turn, const in::FrameArrived& input) {
  const auto drop = [&](const std::vector<HandleId>& handles) {
    for (const HandleId handle : handles) turn.effect(out::DropHandle{handle});
  };
  const WorkerRecord* worker = turn.tables.liveness.workers.find(input.worker_id.str());
  const FrameHeader& header = input.frame.header;
  const auto type = static_cast<FrameType>(header.type);
  if (worker == nullptr || worker->incarnation != input.incarnation || worker->state == WorkerState::gone) {
    return drop(input.handles);
  }
  WorkerLive& live = turn.live.workers[input.worker_id];
  if (live.link != input.link) return drop(input.handles);  // late bytes of a connection that was replaced
  const bool first = type == FrameType::hello;
  const auto lane = static_cast<std::size_t>(header.urgency);
  if (header.incarnation != worker->incarnation || (!first && header.epoch != turn.live.epoch) ||
      header.sequence != live.sequence_in[lane] + 1) {
    ++live.frames_refused;
    ++turn.live.counters.frames_refused[input.worker_id];
    drop(input.handles);
    return end_worker(turn, input.worker_id,
                      cat("it sent frame ", header.sequence, " of incarnation ", header.incarnation.value, ", epoch ",
                          header.epoch.value, " in lane P", lane, " where ", live.sequence_in[lane] + 1, ", ",
                          worker->incarnation.value, ", ", turn.live.epoch.value, " was expected"));
  }
  live.sequence_in[lane] = header.sequence;
  live.heard = turn.now;
  live.silent = false;
  turn.effect(out::DisarmTimer{cat("freeze:", input.worker_id.str())});
  turn.effect(out::ArmTimer{cat("silence:", input.worker_id.str()), turn.now + turn.settings.timing.silence});

  if (header.packed && live.form != Form::packed) {
    ++live.frames_refused;
    drop(input.handles);
    return end_worker(turn, input.worker_id,
                      cat("it sent a packed ", json::enum_name(type), " over a link that agreed on JSON"));
  }
  const auto envelope = from_frame(input.frame);
  if (!envelope) {
    ++live.frames_refused;
    drop(input.handles);
    return end_worker(turn, input.worker_id,
                      cat("it sent a broken envelope at ", envelope.error().pointer, ": ", envelope.error().message));
  }
  Arrival arrival{*worker, live, *envelope, input.handles};
  Status status = owner_gate(type);
  if (status) status = dispatch(turn, type, arrival);
  drop(arrival.handles);
  if (!status && (status.error().code == ErrorCode::not_owner || status.error().code == ErrorCode::not_yet)) {
    return refuse_write(turn, *worker, type, status.error());
  }
  if (!status) {
    ++live.frames_refused;
    ++turn.live.counters.frames_refused[input.worker_id];
    end_worker(
        turn, input.worker_id,
        cat("it sent a bad ", json::enum_name(type), " at \"", status.error().pointer, "\": ", status.error().message));
  }
}

}  // namespace lockstep
