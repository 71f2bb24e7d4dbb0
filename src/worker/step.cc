// The main path of a worker: frames, timers and handlers' reports in; messages, tasks and the end out.

#include "base/check.h"
#include "base/text.h"
#include "events/json_read.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::worker {

namespace {

template <class... Fs>
struct Match : Fs... {
  using Fs::operator()...;
};

Timestamp after(WallTime now, double more_seconds) {
  return Timestamp::of({now.ms + static_cast<std::int64_t>(more_seconds * 1000)});
}

}  // namespace

struct Machine::Turn {
  Nanos now;
  WallTime wall;
  Plan<Effect> plan;

  template <class What>
  void effect(What what) {
    plan.effect(std::move(what));
  }
  void drop(std::vector<HandleId>& handles) {
    for (const HandleId handle : handles) effect(out::DropHandle{handle});
    handles.clear();
  }
};

Machine::Machine(Identity identity) : identity_(std::move(identity)) {}

Plan<Effect> Machine::step(const Input& input) {
  Turn turn{input.now, input.wall, {}};
  if (ended_) return {};
  std::visit(Match{
                 [&](const in::Started&) { started(turn); },
                 [&](const in::FrameArrived& x) { frame(turn, x); },
                 [&](const in::LinkClosed& x) { leave(turn, 0, cat("the link ended: ", x.reason)); },
                 [&](const in::TimerFired& x) { timer(turn, x); },
                 [&](const in::HandlersReady&) {
                   handlers_ready_ = true;
                   if (epoch_ != Epoch{}) send(turn, FrameType::ready, Ready{});
                 },
                 [&](const in::TaskProgress& x) { progress(turn, x); },
                 [&](const in::TaskDone& x) { done(turn, x); },
                 [&](const in::TaskFailed& x) { failed(turn, x); },
                 [&](const in::Telemetry& x) { telemetry(turn, x); },
             },
             input.what);
  return std::move(turn.plan);
}

void Machine::apply(const Commit&) { LOCKSTEP_CHECK(false); }

template <class Body>
void Machine::send(Turn& turn, FrameType type, const Body& body, std::uint32_t attempt, std::string subject,
                   std::vector<HandleId> handles, Urgency urgency) {
  Frame frame;
  frame.body =
      json::to_text(Envelope{Timestamp::of(turn.wall), attempt, std::move(subject), RawJson{json::to_text(body)}});
  frame.header.body_length = static_cast<std::uint32_t>(frame.body.size());
  frame.header.type = static_cast<std::uint16_t>(type);
  frame.header.urgency = urgency;
  frame.header.descriptors = static_cast<std::uint8_t>(handles.size());
  frame.header.epoch = epoch_;
  frame.header.incarnation = identity_.incarnation;
  frame.header.sequence = ++sequence_out_;
  turn.effect(out::Send{std::move(frame), std::move(handles)});
}

void Machine::send_failure(Turn& turn, const Task& task, std::string code, std::string message) {
  send(turn, FrameType::task_failed, lockstep::TaskFailed{std::move(code), std::move(message)}, task.attempt,
       task.subject, {}, Urgency::p1_high);
}

void Machine::leave(Turn& turn, int status, std::string reason) {
  ended_ = true;
  turn.effect(out::Exit{status, std::move(reason)});
}

void Machine::started(Turn& turn) {
  send(turn, FrameType::hello, Hello{identity_.worker_id, identity_.version, identity_.pid});
}

void Machine::frame(Turn& turn, const in::FrameArrived& input) {
  std::vector<HandleId> handles = input.handles;
  const FrameHeader& header = input.frame.header;
  const bool welcome = header.type == static_cast<std::uint16_t>(FrameType::welcome);
  const bool current = header.incarnation == identity_.incarnation && (welcome || header.epoch == epoch_);
  if (!current || header.sequence != sequence_in_ + 1) {
    turn.drop(handles);
    return leave(turn, 3,
                 cat("frame ", header.sequence, " of epoch ", header.epoch.value, " does not continue this link"));
  }
  sequence_in_ = header.sequence;
  const auto envelope = json::from_text<Envelope>(input.frame.body);
  const Status status = envelope ? dispatch(turn, input.frame, *envelope, handles) : Status(envelope.error());
  turn.drop(handles);
  if (!status) {
    leave(turn, 3,
          cat("a bad frame of type ", header.type, " at \"", status.error().pointer, "\": ", status.error().message));
  }
}

template <class Body>
void Machine::start(Turn& turn, Task task, const Body& body, std::vector<HandleId>& handles) {
  const TaskId id = ++tasks_made_;
  turn.effect(out::StartTask{id, task.kind, json::to_text(body), std::move(handles)});
  handles.clear();
  tasks_.emplace(id, std::move(task));
}

Status Machine::dispatch(Turn& turn, const Frame& frame, const Envelope& envelope, std::vector<HandleId>& handles) {
  const std::string& body = envelope.body.text;
  const Task task{"", envelope.subject, envelope.attempt, {}, {}};
  const bool fenced = epoch_ != Epoch{} && turn.now - acknowledged_ > self_fence;
  switch (static_cast<FrameType>(frame.header.type)) {
    case FrameType::welcome: {
      const Welcome welcome = LOCKSTEP_TRY(json::from_text<Welcome>(body));
      epoch_ = frame.header.epoch;
      device_id_ = welcome.device_id;
      participant_.set_budget(welcome.memory_budget);
      heartbeat_ = milliseconds(static_cast<std::int64_t>(welcome.heartbeat_ms));
      acknowledged_ = turn.now;
      turn.effect(out::ArmTimer{"heartbeat", turn.now + heartbeat_});
      if (handlers_ready_) send(turn, FrameType::ready, Ready{});
      return {};
    }
    case FrameType::heartbeat_ack: acknowledged_ = turn.now; return {};
    case FrameType::transaction_prepare: {
      const TransactionPrepare prepare = LOCKSTEP_TRY(json::from_text<TransactionPrepare>(body));
      TransactionVote vote = participant_.prepare(prepare);
      if (fenced) {
        participant_.abort(prepare.transaction_id);
        vote = {prepare.transaction_id, Vote::vote_abort, "the worker has fenced itself: no acknowledged heartbeat"};
      }
      send(turn, FrameType::transaction_vote, vote, 0, envelope.subject, {}, Urgency::p1_high);
      return {};
    }
    case FrameType::transaction_commit: {
      const TransactionDecision decision = LOCKSTEP_TRY(json::from_text<TransactionDecision>(body));
      if (!participant_.commit(decision.transaction_id)) {
        return fail(ErrorCode::invalid_transition, cat(decision.transaction_id.str(), " was never promised"));
      }
      send(turn, FrameType::transaction_ack, TransactionAck{decision.transaction_id}, 0, envelope.subject);
      return {};
    }
    case FrameType::transaction_abort:
      participant_.abort(LOCKSTEP_TRY(json::from_text<TransactionDecision>(body)).transaction_id);
      return {};
    case FrameType::model_load_request: {
      const ModelLoadRequest request = LOCKSTEP_TRY(json::from_text<ModelLoadRequest>(body));
      const LoadPlan* plan = participant_.held(request.model_id);
      if (fenced && plan != nullptr) {
        participant_.release(plan->model_id);
        send_failure(turn, task, "unavailable", "the worker has fenced itself");
        return {};
      }
      if (plan == nullptr || handles.size() != plan->components.size()) {
        return fail(ErrorCode::invalid_transition,
                    cat("a load of ", request.model_id.str(), " that was not committed"));
      }
      start(turn, {"load", task.subject, task.attempt, plan->model_id, {}},
            LoadTask{plan->model_id, plan->kind, plan->path, plan->components}, handles);
      return {};
    }
    case FrameType::model_release: {
      const ModelRelease release = LOCKSTEP_TRY(json::from_text<ModelRelease>(body));
      start(turn, {"release", task.subject, task.attempt, release.model_id, {}}, ReleaseTask{release.model_id},
            handles);
      return {};
    }
    case FrameType::inference_request: {
      const InferenceRequest request = LOCKSTEP_TRY(json::from_text<InferenceRequest>(body));
      const InferenceParameters& p = request.inference_parameters;
      const ModelId& model = request.model_configuration.base_model;
      if (fenced || participant_.held(model) == nullptr) {
        send_failure(turn, task, "unavailable",
                     fenced ? "the worker has fenced itself" : cat(model.str(), " is not here"));
        return {};
      }
      start(turn, {"inference", task.subject, task.attempt, {}, request.request_id},
            InferenceTask{request.request_id, model, p.prompt, p.negative_prompt.value_or(""), p.steps,
                          p.guidance_scale, p.width, p.height, p.seed.value_or(0)},
            handles);
      return {};
    }
    case FrameType::postprocessing_request: {
      const PostprocessingRequest request = LOCKSTEP_TRY(json::from_text<PostprocessingRequest>(body));
      if (fenced) {
        send_failure(turn, task, "unavailable", "the worker has fenced itself");
        return {};
      }
      if (!request.source || handles.size() != 1) {
        return fail(ErrorCode::invalid_argument, "postprocessing without exactly one source", "/source");
      }
      start(turn, {"postprocess", task.subject, task.attempt, {}, request.request_id},
            PostprocessTask{
                request.request_id, *request.source, request.postprocessing_pipeline, request.parameters.value_or(""),
                request.metadata.value_or(std::map<std::string, RawJson>{}), request.output_requirements.format},
            handles);
      return {};
    }
    case FrameType::task_cancel:
      for (const auto& [id, running] : tasks_) {
        if (running.subject == envelope.subject) turn.effect(out::CancelTask{id});
      }
      return {};
    default: break;
  }
  return fail(ErrorCode::invalid_argument, cat("an orchestrator does not send frame type ", frame.header.type));
}

void Machine::timer(Turn& turn, const in::TimerFired& input) {
  if (input.name != "heartbeat") return;
  send(turn, FrameType::heartbeat, Heartbeat{handler_progress_, static_cast<std::uint32_t>(tasks_.size())}, 0, {}, {},
       Urgency::p1_high);
  turn.effect(out::SampleTelemetry{});
  turn.effect(out::ArmTimer{"heartbeat", turn.now + heartbeat_});
}

void Machine::telemetry(Turn& turn, const in::Telemetry& input) {
  if (epoch_ == Epoch{}) return;
  HealthMetrics health = input.health;
  health.error_count = handler_failures_;
  const Bytes total = participant_.budget();
  if (total.value > 0) {
    health.memory_usage.value = std::min(1.0, static_cast<double>(input.used.value) / static_cast<double>(total.value));
  }
  send(turn, FrameType::device_health_update,
       DeviceHealthUpdate{device_id_, health, Timestamp::of(turn.wall), "normal"}, 0, {}, {}, Urgency::p3_low);
  const PressureLevel level = pressure_of(input.used, total);
  send(turn, FrameType::vram_usage_update,
       VramUsageUpdate{device_id_,
                       {total, input.used, total - input.used, input.fragmentation},
                       level,
                       level == PressureLevel::critical},
       0, {}, {}, level >= PressureLevel::high ? Urgency::p1_high : Urgency::p3_low);
}

void Machine::progress(Turn& turn, const in::TaskProgress& input) {
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return;  // it was answered already
  const Task& task = place->second;
  ++handler_progress_;
  // A progress report that cannot be read is a defect of the handler; its result will tell. Progress is never fatal.
  if (task.kind == "load") {
    if (const auto report = json::from_text<LoadReport>(input.report)) {
      const ModelLoadingProgress message{task.model_id,
                                         cat("loading_", report->component),
                                         Percent{report->fraction.value * 100},
                                         report->bytes,
                                         after(turn.wall, 0),
                                         {}};
      send(turn, FrameType::model_loading_progress, message, task.attempt, task.subject, {}, Urgency::p3_low);
    }
  } else if (task.kind == "inference") {
    if (const auto report = json::from_text<InferenceReport>(input.report)) {
      const std::uint32_t left = report->total_steps - std::min(report->step, report->total_steps);
      const InferenceProgress message{
          task.run_id,
          {report->step, report->total_steps, report->step_time_avg, after(turn.wall, left * report->step_time_avg)},
          {SizeText::of(participant_.used()), Percent{0}}};
      send(turn, FrameType::inference_progress, message, task.attempt, task.subject, {}, Urgency::p3_low);
    }
  } else if (task.kind == "postprocess") {
    if (const auto report = json::from_text<PipelineProgress>(input.report)) {
      send(turn, FrameType::postprocessing_progress, PostprocessingProgress{task.run_id, *report, {}}, task.attempt,
           task.subject, {}, Urgency::p3_low);
    }
  }
}

void Machine::done(Turn& turn, const in::TaskDone& input) {
  std::vector<HandleId> handles = input.handles;
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return turn.drop(handles);  // a second answer for one task
  const Task task = place->second;
  tasks_.erase(place);
  ++handler_progress_;
  const auto bad = [&](const Error& error) {
    ++handler_failures_;
    turn.drop(handles);
    if (task.kind == "load") participant_.release(task.model_id);
    send_failure(turn, task, "internal",
                 cat("the ", task.kind, " handler answered badly at \"", error.pointer, "\": ", error.message));
  };
  if (task.kind == "load") {
    const auto report = json::from_text<LoadDone>(input.report);
    if (!report) return bad(report.error());
    send(turn, FrameType::model_loading_progress,
         ModelLoadingProgress{task.model_id, "loaded", Percent{100}, report->bytes, Timestamp::of(turn.wall), {}},
         task.attempt, task.subject);
  } else if (task.kind == "release") {
    const auto report = json::from_text<ReleaseDone>(input.report);
    if (!report) return bad(report.error());
    if (report->bytes_mapped.value == 0) participant_.release(task.model_id);
    send(turn, FrameType::model_released, ModelReleased{task.model_id, report->bytes_mapped}, task.attempt,
         task.subject);
  } else if (task.kind == "inference") {
    const auto report = json::from_text<InferenceDone>(input.report);
    if (!report) return bad(report.error());
    if (handles.size() != 1) return bad(fail(ErrorCode::internal, "exactly one descriptor was expected"));
    const InferenceCompleted message{task.run_id,
                                     {report->execution_time, report->total_steps_executed,
                                      SizeText::of(report->peak_bytes), report->result_quality_score},
                                     cat("sha256:", report->sha256),
                                     true,
                                     {"upscaling", "safety_check"},
                                     ImageBuffer{"rgb8", report->width, report->height, report->bytes, report->sha256}};
    send(turn, FrameType::inference_completed, message, task.attempt, task.subject, std::move(handles));
  } else {
    const auto report = json::from_text<PostprocessDone>(input.report);
    if (!report) return bad(report.error());
    if (report->output.has_value() != (handles.size() == 1)) {
      return bad(fail(ErrorCode::internal, "an output and its descriptor come together"));
    }
    PostprocessingCompleted message{task.run_id,  {report->safety, report->quality},
                                    "",           {report->total_processing_time, SizeText::of(report->peak_bytes)},
                                    std::nullopt, report->operations};
    if (report->output) {
      message.output_location = cat("sha256:", report->output->sha256);
      message.output = ImageBuffer{"png", report->output->width, report->output->height, report->output->bytes,
                                   report->output->sha256};
    }
    send(turn, FrameType::postprocessing_completed, message, task.attempt, task.subject, std::move(handles));
  }
  handles.clear();
}

void Machine::failed(Turn& turn, const in::TaskFailed& input) {
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return;
  const Task task = place->second;
  tasks_.erase(place);
  ++handler_progress_;
  ++handler_failures_;
  if (task.kind == "load") participant_.release(task.model_id);
  if (task.kind == "release") return leave(turn, 4, cat("releasing ", task.model_id.str(), " failed: ", input.message));
  send_failure(turn, task, input.code, input.message);
}

}  // namespace lockstep::worker
