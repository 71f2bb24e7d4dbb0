// The main path of a worker: frames, timers and handlers' reports in; messages, tasks and the end out.

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/text.h"
#include "events/json_read.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"
#include "ownership/table.h"
#include "propagation/framing.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::worker {

namespace {

template <class... Fs>
struct Match : Fs... {
  using Fs::operator()...;
};

/// Calls `use` with the message that the event carries. not_yet for a type that nothing is done with here.
template <class Use>
Status read_state(const StateEvent& event, Use&& use) {
  bool known = false;
  Status status;
  boost::mp11::mp_for_each<
      boost::mp11::mp_list<DeviceConfigUpdate, DeviceRoutingUpdate, MemoryPolicyUpdate, SystemMemoryAllocated,
                           ModelCacheUpdate, SafetyPolicyUpdate, DeviceHealthUpdate, VramUsageUpdate>>([&](auto each) {
    if (event.type != decltype(each)::event_type) return;
    known = true;
    const auto body = json::from_text<decltype(each)>(event.body.text);
    if (body) {
      use(*body);
    } else {
      status = body.error();
    }
  });
  if (known) return status;
  return fail(ErrorCode::not_yet, cat("nothing is done with ", shortened(event.type), " in this version"));
}

/// At most a year from now: what a handler measures may be any number.
Timestamp after(WallTime now, double more_seconds) {
  constexpr double year = 365.0 * 24 * 3600;
  return Timestamp::of({now.ms + static_cast<std::int64_t>(std::min(more_seconds, year) * 1000)});
}

double as_seconds(Nanos time) { return static_cast<double>(time) / 1e9; }

/// The end of what took `so_far` for this share of itself, if it goes on like that. Of nothing nothing can be told:
/// now.
Timestamp extrapolated(WallTime now, Nanos so_far, Ratio share) {
  return after(now, share.value <= 0 ? 0 : as_seconds(so_far) * (1 - share.value) / share.value);
}

// What a message asks for and this version does not carry out, in a sentence; empty when there is nothing. A field that
// was read and not heeded would look like one that was.

template <class Message>
std::string not_supported(const Message&, const WorkerId&) {
  return "";
}
std::string only_now(bool effective_immediately) {
  return effective_immediately
             ? ""
             : "effective_immediately is false; a change holds from when it is applied: it must be true";
}
std::string not_supported(const DeviceRoutingUpdate& update, const WorkerId&) {
  return only_now(update.effective_immediately);
}
std::string not_supported(const MemoryPolicyUpdate& update, const WorkerId& own) {
  const auto names = [&](std::string_view name) {
    return std::ranges::find(update.applies_to, name) != update.applies_to.end();
  };
  if (names("all_workers") || names(own.str())) return only_now(update.effective_immediately);
  std::string found;
  for (const std::string& each : update.applies_to) found += cat(found.empty() ? "" : ", ", shortened(each));
  return cat("applies_to is [", shortened(found, 200), "]; it must name all_workers or ", own.str());
}
std::string not_supported(const ModelLoadRequest& request, const WorkerId&) {
  if (request.load_target == "vram") return "";
  return cat("load_target is \"", shortened(request.load_target), "\"; it must be vram");
}
std::string not_supported(const InferenceRequest& request, const WorkerId&) {
  if (request.inference_type != "text_to_image") {
    return cat("inference_type is \"", shortened(request.inference_type), "\"; it must be text_to_image");
  }
  const ModelConfiguration& models = request.model_configuration;
  if (models.refiner_model) {
    return cat("refiner_model is ", shortened(models.refiner_model->str()), "; this version runs the base alone");
  }
  if (models.lora_models && !models.lora_models->empty()) {
    return cat("lora_models names ", shortened(models.lora_models->front().str()),
               "; this version runs the base alone");
  }
  return "";
}

FrameType type_of(const MemoryAllocationRequest&) { return FrameType::memory_allocation_request; }
FrameType type_of(const CrossDomainCoordination&) { return FrameType::cross_domain_coordination; }

Operation request_operation(const std::string& id, const MemoryAllocationRequest&) { return {id, 0, {}}; }
Operation request_operation(const std::string& id, const CrossDomainCoordination& request) {
  Operation operation{id, 0, {}};
  operation.correlation.session = request.session_id;
  return operation;
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
                 [&](const in::DialNow&) {
                   dial_until_ = turn.now + identity_.reconnect_limit;
                   turn.effect(out::Dial{});
                 },
                 [&](const in::LinkOpened&) { link_opened(turn); },
                 [&](const in::DialFailed& x) { dial_failed(turn, x.reason); },
                 [&](const in::FrameArrived& x) { frame(turn, x); },
                 [&](const in::LinkClosed& x) { link_closed(turn, x.reason); },
                 [&](const in::TimerFired& x) { timer(turn, x); },
                 [&](const in::HandlersReady&) {
                   handlers_ready_ = true;
                   send(turn, FrameType::ready, Ready{});
                 },
                 [&](const in::CapabilitiesFound& x) {
                   identity_.capabilities = x.found;
                   tell_capabilities(turn);
                 },
                 [&](const in::TaskProgress& x) { progress(turn, x); },
                 [&](const in::TaskPart& x) { part(turn, x); },
                 [&](const in::TaskDone& x) { done(turn, x); },
                 [&](const in::TaskFailed& x) { failed(turn, x); },
                 [&](const in::Telemetry& x) { telemetry(turn, x); },
                 [&](const in::AskMemory& x) { ask(turn, x.request.request_id, x.request); },
                 [&](const in::Coordinate& x) { ask(turn, coordination_id(x.request), x.request); },
                 [&](const in::PowerLimitSet& x) { power_limit_set(turn, x); },
                 [&](const in::Calibrated& x) { calibrated(turn, x); },
                 [&](const in::UpdateReservation& x) { send(turn, FrameType::reservation_update, x.update); },
             },
             input.what);
  return std::move(turn.plan);
}

void Machine::apply(const Commit&) { LOCKSTEP_CHECK(false); }

template <class Body>
void Machine::transmit(Turn& turn, FrameType type, const Body& body, Operation operation, const Placed& placed,
                       std::vector<HandleId> handles, std::vector<HeldSegment> segments) {
  Envelope envelope;
  envelope.id = cat("w", identity_.incarnation.value, ".", ++messages_made_);
  envelope.source = {Side::worker, identity_.worker_id, identity_.incarnation};
  envelope.epoch = welcomed_ ? epoch_ : Epoch{};
  envelope.time = Timestamp::of(turn.wall);
  envelope.urgency = placed.lane;
  envelope.op_id = std::move(operation.op_id);
  envelope.attempt = operation.attempt;
  envelope.correlation = std::move(operation.correlation);
  Frame frame = to_frame(type, std::move(envelope), body, handles.size() + segments.size(), form_);
  turn.effect(out::Send{std::move(frame), std::move(handles), std::move(segments), placed.passage});
}

template <class Body>
void Machine::send(Turn& turn, FrameType type, const Body& body, Operation operation) {
  if (!welcomed_) return;
  transmit(turn, type, body, operation, place(type, body, operation.op_id), {}, {});
}

template <class Body>
void Machine::answer(Turn& turn, const Task& task, FrameType type, const Body& body, std::vector<HandleId> handles) {
  if (!welcomed_) {
    answers_.push_back({type, RawJson{json::to_text(body)}, task.operation, place(type, body, task.operation.op_id),
                        std::move(handles), task.model_id});
    return;
  }
  transmit(turn, type, body, task.operation, place(type, body, task.operation.op_id), std::move(handles), {});
}

void Machine::answer_failure(Turn& turn, const Task& task, std::string code, std::string message) {
  answer(turn, task, FrameType::task_failed, lockstep::TaskFailed{std::move(code), std::move(message)});
}

void Machine::leave(Turn& turn, int status, std::string reason) {
  ended_ = true;
  turn.effect(out::Exit{status, std::move(reason)});
}

std::vector<Holding> Machine::inventory() const {
  std::vector<Holding> holdings = participant_.inventory();
  const auto works_on = [&](const Holding& holding, std::string_view kind, FrameType answered) {
    const auto same = [&](const auto& each) { return each.model_id == holding.model_id; };
    return std::ranges::any_of(tasks_,
                               [&](const auto& each) { return each.second.kind == kind && same(each.second); }) ||
           std::ranges::any_of(answers_, [&](const Answer& each) { return each.type == answered && same(each); });
  };
  for (Holding& each : holdings) {
    if (each.state == HoldingState::promised) continue;
    if (works_on(each, "release", FrameType::model_released)) {
      each.state = HoldingState::releasing;
    } else if (works_on(each, "load", FrameType::model_loading_progress)) {
      each.state = HoldingState::loading;
    } else if (loaded_.contains(each.model_id)) {
      each.state = HoldingState::loaded;
    }
  }
  return holdings;
}

void Machine::link_opened(Turn& turn) {
  link_open_ = true;
  welcomed_ = false;
  sequence_in_.fill(0);
  form_ = Form::json;
  Hello hello;
  hello.worker_id = identity_.worker_id;
  hello.runtime_version = identity_.version;
  hello.pid = identity_.pid;
  hello.subscriptions = identity_.subscriptions;
  if (!identity_.schema_digest.empty()) hello.schema_digest = identity_.schema_digest;
  std::vector<HeldSegment> segments;
  if (token_.empty()) {
    hello.secret = identity_.secret;
    hello.device = identity_.device;
  } else {
    for (const auto& [model, kept] : segments_) segments.insert(segments.end(), kept.begin(), kept.end());
    Rejoin rejoin{cluster_id_, token_, epoch_, inventory(), {}, segments};
    for (const auto& [id, task] : tasks_) {
      if (task.kind != "inference_batch") rejoin.tasks.push_back({task.operation.op_id, task.operation.attempt});
      for (const auto& [run, image] : task.images) rejoin.tasks.push_back({image.op_id, image.attempt});
    }
    for (const Answer& each : answers_) rejoin.tasks.push_back({each.operation.op_id, each.operation.attempt});
    hello.rejoin = std::move(rejoin);
  }
  transmit(turn, FrameType::hello, hello, {}, place(FrameType::hello, hello, ""), {}, std::move(segments));
}

void Machine::link_closed(Turn& turn, const std::string& reason) {
  link_open_ = false;
  welcomed_ = false;
  held_answers_.clear();  // they are asked for again over the next one
  batches_.clear();       // what is missing of them was lost with it, and the rest is begun anew
  if (identity_.reconnect_limit == 0) return leave(turn, 0, cat("the link ended: ", reason));
  // A link that was refused or broke before its welcome is one more failed try, not a new beginning.
  if (dial_until_ != 0) return dial_failed(turn, reason);
  dial_until_ = turn.now + identity_.reconnect_limit;
  dial_wait_ = dial_wait_first;
  turn.effect(out::Dial{});
}

void Machine::dial_failed(Turn& turn, const std::string& reason) {
  if (turn.now >= dial_until_) {
    return leave(turn, 0, cat("no orchestrator for ", identity_.reconnect_limit / seconds(1), " s: ", reason));
  }
  dial_wait_ = dial_wait_ == 0 ? dial_wait_first : std::min(2 * dial_wait_, dial_wait_max);
  turn.effect(out::ArmTimer{"dial", turn.now + dial_wait_});
}

void Machine::welcome(Turn& turn, const FrameHeader& header, const Welcome& welcome) {
  epoch_ = header.epoch;
  identity_.incarnation = header.incarnation;
  const std::string& ours = identity_.schema_digest;
  form_ = !ours.empty() && welcome.schema_digest == ours ? Form::packed : Form::json;
  if (cluster_id_ != welcome.cluster_id) {
    sessions_ = {};
    state_ = {};  // its revs are another journal's
  }
  cluster_id_ = welcome.cluster_id;
  token_ = welcome.token;
  keep_segments_ = welcome.keep_segments;
  device_id_ = welcome.device_id;
  memory_budget_ = welcome.memory_budget;
  apply_budget();
  heartbeat_ = milliseconds(static_cast<std::int64_t>(welcome.heartbeat_ms));
  acknowledged_ = turn.now;
  welcomed_ = true;
  dial_until_ = 0;
  dial_wait_ = 0;
  turn.effect(out::ArmTimer{"heartbeat", turn.now + heartbeat_});
  tell_capabilities(turn);
  if (handlers_ready_) send(turn, FrameType::ready, Ready{});
  for (const auto& [name, request] : asked_) {  // the same request again is harmless, and its answer may have been lost
    std::visit([&](const auto& each) { send(turn, type_of(each), each, request_operation(name.second, each)); },
               request);
  }
  for (Answer& each : answers_) {
    transmit(turn, each.type, each.body, std::move(each.operation), each.placed, std::move(each.handles), {});
  }
  answers_.clear();
  for (const auto& [model, runtime] : loaded_) tell_runtime(turn, model);
}

void Machine::frame(Turn& turn, const in::FrameArrived& input) {
  std::vector<HandleId> handles = input.handles;
  const FrameHeader& header = input.frame.header;
  if (!link_open_) return turn.drop(handles);  // the last bytes of a link that was given up
  const auto type = static_cast<FrameType>(header.type);
  const bool joining = type == FrameType::welcome || type == FrameType::refused;
  const bool ours = header.incarnation == identity_.incarnation || (joining && identity_.incarnation == Incarnation{});
  std::uint64_t& sequence = sequence_in_[static_cast<std::size_t>(header.urgency)];
  if (!ours || joining == welcomed_ || (!joining && header.epoch != epoch_) || header.sequence != sequence + 1) {
    turn.drop(handles);
    return leave(turn, 3,
                 cat("frame ", header.sequence, " of epoch ", header.epoch.value, ", type ", header.type, ", lane P",
                     static_cast<int>(header.urgency), ", does not continue this link"));
  }
  sequence = header.sequence;
  if (header.packed && form_ != Form::packed) {
    turn.drop(handles);
    return leave(turn, 3, cat("a packed frame of type ", header.type, " over a link that agreed on JSON"));
  }
  const auto envelope = from_frame(input.frame);
  Status status = envelope ? ownership::may_send(Side::orchestrator, type) : Status(envelope.error());
  if (status) status = dispatch(turn, input.frame, *envelope, handles);
  turn.drop(handles);
  if (!status && (status.error().code == ErrorCode::not_owner || status.error().code == ErrorCode::not_yet)) {
    ++writes_refused_;  // the next heartbeat says so; nothing changed, and the worker goes on
    return;
  }
  if (!status) {
    leave(turn, 3,
          cat("a bad frame of type ", header.type, " at \"", status.error().pointer, "\": ", status.error().message));
  }
}

template <class Body>
void Machine::start(Turn& turn, Task task, const Body& body, std::vector<HandleId>& handles) {
  const TaskId id = ++tasks_made_;
  if (task.operation.correlation.session) {
    sessions_.running(*task.operation.correlation.session, cat(task.kind, "_execution"));
    report_session(turn, task);
  }
  turn.effect(out::StartTask{id, task.kind, json::to_text(body), std::move(handles)});
  handles.clear();
  task.began = turn.now;
  tasks_.emplace(id, std::move(task));
}

Status Machine::dispatch(Turn& turn, const Frame& frame, const Envelope& envelope, std::vector<HandleId>& handles) {
  const Task task{"", {envelope.op_id, envelope.attempt, envelope.correlation}, {}, {}};
  const bool fenced = turn.now - acknowledged_ > self_fence;
  switch (static_cast<FrameType>(frame.header.type)) {
    case FrameType::welcome: welcome(turn, frame.header, LOCKSTEP_TRY(read_message<Welcome>(envelope))); return {};
    case FrameType::refused: {
      const Refused refused = LOCKSTEP_TRY(read_message<Refused>(envelope));
      if (!refused.retry || identity_.reconnect_limit == 0) {
        leave(turn, 5, cat("the orchestrator refused this worker: ", refused.reason));
        return {};
      }
      link_open_ = false;
      turn.effect(out::DropLink{});
      dial_failed(turn, refused.reason);
      return {};
    }
    case FrameType::heartbeat_ack: acknowledged_ = turn.now; return {};
    case FrameType::transaction_prepare: {
      const TransactionPrepare prepare = LOCKSTEP_TRY(read_message<TransactionPrepare>(envelope));
      TransactionVote vote = participant_.prepare(prepare);
      if (fenced) {
        participant_.abort(prepare.transaction_id);
        vote = {prepare.transaction_id, Vote::vote_abort, "the worker has fenced itself: no acknowledged heartbeat"};
      }
      send(turn, FrameType::transaction_vote, vote, task.operation);
      return {};
    }
    case FrameType::transaction_commit: {
      const TransactionDecision decision = LOCKSTEP_TRY(read_message<TransactionDecision>(envelope));
      if (!participant_.commit(decision.transaction_id)) {
        return fail(ErrorCode::invalid_transition, cat(decision.transaction_id.str(), " was never promised"));
      }
      send(turn, FrameType::transaction_ack, TransactionAck{decision.transaction_id}, task.operation);
      return {};
    }
    case FrameType::transaction_abort:
      participant_.abort(LOCKSTEP_TRY(read_message<TransactionDecision>(envelope)).transaction_id);
      return {};
    case FrameType::model_load_request: {
      const ModelLoadRequest request = LOCKSTEP_TRY(read_message<ModelLoadRequest>(envelope));
      const LoadPlan* plan = participant_.held(request.model_id);
      if (fenced && plan != nullptr) {
        forget(turn, ModelId(plan->model_id));
        answer_failure(turn, task, "unavailable", "the worker has fenced itself");
        return {};
      }
      const std::string wrong = not_supported(request, identity_.worker_id);
      if (!wrong.empty() && plan != nullptr) {
        forget(turn, ModelId(plan->model_id));
        answer_failure(turn, task, "invalid_argument", wrong);
        return {};
      }
      if (plan == nullptr || handles.size() != plan->components.size()) {
        return fail(ErrorCode::invalid_transition,
                    cat("a load of ", request.model_id.str(), " that was not committed"));
      }
      if (keep_segments_) {
        std::vector<HeldSegment>& kept = segments_[plan->model_id];
        for (std::size_t i = 0; i < handles.size(); ++i) {
          const ComponentPlan& component = plan->components[i];
          if (component.model_id) continue;  // another model's: it is read now and not held after
          kept.push_back({plan->model_id, component.name, component.sha256});
          turn.effect(out::KeepSegment{handles[i], plan->model_id, component.name});
        }
      }
      start(turn, {"load", task.operation, plan->model_id, {}},
            LoadTask{plan->model_id, plan->kind, plan->path, plan->components}, handles);
      return {};
    }
    case FrameType::model_release: {
      const ModelRelease release = LOCKSTEP_TRY(read_message<ModelRelease>(envelope));
      start(turn, {"release", task.operation, release.model_id, {}}, ReleaseTask{release.model_id}, handles);
      return {};
    }
    case FrameType::inference_request: {
      const InferenceRequest request = LOCKSTEP_TRY(read_message<InferenceRequest>(envelope));
      const InferenceParameters& p = request.inference_parameters;
      const ModelId& model = request.model_configuration.base_model;
      const std::string wrong = not_supported(request, identity_.worker_id);
      if (fenced || participant_.held(model) == nullptr || !wrong.empty()) {
        const std::string code = fenced || wrong.empty() ? "unavailable" : "invalid_argument";
        const std::string why = fenced           ? "the worker has fenced itself"
                                : !wrong.empty() ? wrong
                                                 : cat(model.str(), " is not here");
        answer_failure(turn, task, code, why);
        if (!request.batch_id) return {};
        for (const auto& [run, operation] : batches_[*request.batch_id].images) {  // it will never be whole
          answer_failure(turn, {"inference", operation, model, run}, code, why);
        }
        batches_.erase(*request.batch_id);
        return {};
      }
      const InferenceTask image{request.request_id,
                                model,
                                p.prompt,
                                p.negative_prompt.value_or(""),
                                p.steps,
                                p.guidance_scale,
                                p.width,
                                p.height,
                                p.seed.value_or(0),
                                envelope.correlation.session,
                                p.scheduler ? json::enum_name(*p.scheduler) : std::string()};
      if (!request.batch_id) {
        start(turn, {"inference", task.operation, model, request.request_id}, image, handles);
        return {};
      }
      Batch& batch = batches_[*request.batch_id];
      batch.model_id = model;
      if (batch.images.emplace(request.request_id, task.operation).second) batch.bodies.push_back(image);
      begin_if_whole(turn, *request.batch_id);
      return {};
    }
    case FrameType::inference_orchestration: {
      const InferenceOrchestration order = LOCKSTEP_TRY(read_message<InferenceOrchestration>(envelope));
      if (!order.resource_allocation.vram_limit.bytes()) {
        return fail(
            ErrorCode::invalid_argument,
            cat("vram_limit is \"", shortened(order.resource_allocation.vram_limit.text), "\", which is no size"),
            "/resource_allocation/vram_limit");
      }
      batches_[order.batch_id].order = order;
      begin_if_whole(turn, order.batch_id);
      return {};
    }
    case FrameType::postprocessing_request: {
      const PostprocessingRequest request = LOCKSTEP_TRY(read_message<PostprocessingRequest>(envelope));
      if (fenced) {
        answer_failure(turn, task, "unavailable", "the worker has fenced itself");
        return {};
      }
      if (!request.source || handles.size() != 1) {
        return fail(ErrorCode::invalid_argument, "postprocessing without exactly one source", "/source");
      }
      std::vector<ModelId> models;
      for (const PipelineOperation& each : request.postprocessing_pipeline) models.push_back(each.model);
      PostprocessTask job{request.request_id,
                          *request.source,
                          request.postprocessing_pipeline,
                          request.parameters.value_or(""),
                          request.metadata.value_or(std::map<std::string, RawJson>{}),
                          request.output_requirements.format,
                          request.output_requirements.quality,
                          envelope.correlation.session};
      if (!request.output_requirements.metadata_preservation) {  // how it was made is not to stand in the file
        job.parameters.clear();
        job.metadata.clear();
      }
      start(turn, {"postprocess", task.operation, {}, request.request_id, models}, job, handles);
      return {};
    }
    case FrameType::device_calibrate:
      calibrate(turn, LOCKSTEP_TRY(read_message<DeviceCalibrate>(envelope)), task, fenced);
      return {};
    case FrameType::state_changes:
      return change_state(turn, LOCKSTEP_TRY(read_message<StateChanges>(envelope)), task.operation);
    case FrameType::request_answer: hear_answer(LOCKSTEP_TRY(read_message<RequestAnswer>(envelope))); return {};
    case FrameType::processing_session_created:
      sessions_.created(LOCKSTEP_TRY(read_message<ProcessingSessionCreated>(envelope)), turn.wall);
      return {};
    case FrameType::session_control_command:
      session_command(turn, LOCKSTEP_TRY(read_message<SessionControlCommand>(envelope)));
      return {};
    case FrameType::task_cancel: cancel(turn, envelope.op_id); return {};
    default: break;
  }
  return fail(ErrorCode::not_yet, cat("nothing is done with frame type ", frame.header.type, " in this version"));
}

void Machine::begin_if_whole(Turn& turn, const std::string& batch_id) {
  const auto place = batches_.find(batch_id);
  if (!place->second.order || place->second.images.size() < place->second.order->batch_configuration.batch_size) return;
  Batch batch = std::move(place->second);
  batches_.erase(place);
  const Bytes limit = batch.order->resource_allocation.vram_limit.bytes().value_or(Bytes{});
  if (participant_.used() > limit) {
    for (const auto& [run, operation] : batch.images) {
      answer_failure(turn, {"inference", operation, batch.model_id, run}, "resource_exhausted",
                     cat("vram_limit is ", batch.order->resource_allocation.vram_limit.text, "; the models here hold ",
                         to_text(participant_.used())));
    }
    return;
  }
  Task task{"inference_batch", batch.images.begin()->second, batch.model_id, batch_id};
  task.size = batch.images.size();
  task.images = std::move(batch.images);
  std::vector<HandleId> none;
  start(
      turn, std::move(task),
      InferenceBatchTask{batch_id, batch.order->batch_configuration.parallel_execution, limit, std::move(batch.bodies)},
      none);
}

/// An image that others are made with can not be stopped alone: it is answered at once, and its picture dropped.
void Machine::cancel(Turn& turn, const std::string& op_id) {
  for (auto& [id, running] : tasks_) {
    if (running.kind != "inference_batch") {
      if (running.operation.op_id == op_id) turn.effect(out::CancelTask{id});
      continue;
    }
    const auto image =
        std::ranges::find_if(running.images, [&](const auto& each) { return each.second.op_id == op_id; });
    if (image == running.images.end()) continue;
    if (running.images.size() == 1) {
      turn.effect(out::CancelTask{id});
      continue;
    }
    answer_failure(turn, {"inference", image->second, running.model_id, image->first}, "cancelled", "it was cancelled");
    running.images.erase(image);
  }
}

void Machine::apply_budget() {
  Bytes budget = memory_budget_;
  // The shares of src/domains/device/config.cc: what the orchestrator does not grant is not promised here either.
  const std::string policy = state_.settings.memory_allocation_policy.value_or("aggressive");
  const double kept_free = policy == "conservative" ? 0.15 : policy == "moderate" ? 0.05 : 0;
  budget.value -= static_cast<std::uint64_t>(static_cast<double>(budget.value) * kept_free);
  if (state_.memory_policy.vram_reservation_limit) {
    budget = std::min(budget, state_.memory_policy.vram_reservation_limit->bytes().value_or(budget));
  }
  participant_.set_budget(budget);
}

Status Machine::change_state(Turn& turn, const StateChanges& changes, const Operation& operation) {
  for (std::size_t i = 0; i < changes.events.size(); ++i) {
    const Status good = read_state(changes.events[i], [](const auto&) {});
    if (good || good.error().code == ErrorCode::not_yet) continue;
    return fail(good.error().code, good.error().message, cat("/events/", i, "/body", good.error().pointer));
  }
  if (changes.snapshot) state_ = {};
  StateApplied answer{changes.rev, {}};
  for (const StateEvent& event : changes.events) answer.results.push_back(apply(turn, event));
  apply_budget();
  if (!changes.requires_confirmation) return {};
  // The driver can take seconds: what does not tell of it is answered at once.
  const auto waits = [](const AppliedResult& each) { return each.type == DeviceConfigUpdate::event_type; };
  if (power_awaited_ && std::ranges::any_of(answer.results, waits)) {
    held_answers_.emplace_back(std::move(answer), operation);
  } else {
    send(turn, FrameType::state_applied, answer, operation);
  }
  return {};
}

AppliedResult Machine::apply(Turn& turn, const StateEvent& event) {
  AppliedResult& known = state_.applied[{event.type, event.subject}];
  if (event.rev <= known.rev) {  // it came again, or was overtaken by a newer one
    AppliedResult again = known;
    again.rev = event.rev;
    return again;
  }
  known = {event.type, event.subject, event.rev, AppliedOutcome::applied, "", std::nullopt};
  const auto refuse = [&](AppliedOutcome outcome, std::string reason) {
    known.outcome = outcome;
    known.reason = std::move(reason);
    ++writes_refused_;
  };
  /// The change as it should be carried out, or not at all: then the worker says which field it cannot heed.
  const auto heeds = [&](const auto& update) {
    const std::string wrong = not_supported(update, identity_.worker_id);
    if (wrong.empty()) return true;
    known.outcome = AppliedOutcome::rejected;
    known.reason = wrong;
    return false;
  };
  const auto is_anothers = [&](const DeviceId& device) {
    if (device != device_id_) return true;
    refuse(AppliedOutcome::not_owner, cat("how ", device.str(), " is, this worker says"));
    return false;
  };
  const Status read = read_state(
      event, Match{
                 [&](const DeviceConfigUpdate& update) {
                   if (update.device_id != device_id_) {
                     return refuse(AppliedOutcome::not_owner, cat("this worker has ", device_id_.str()));
                   }
                   configure(turn, update);
                 },
                 [&](const DeviceRoutingUpdate& update) {
                   if (heeds(update)) state_.routing = update.routing_table;
                 },
                 [&](const MemoryPolicyUpdate& update) {
                   if (heeds(update)) state_.memory_policy = update.policy_changes;
                 },
                 [&](const SystemMemoryAllocated& update) { state_.system_memory = update; },
                 [&](const ModelCacheUpdate& update) {
                   for (const ModelId& id : update.cache_changes.removed) state_.cached_models.erase(id);
                   state_.cached_models.insert(update.cache_changes.added.begin(), update.cache_changes.added.end());
                   state_.cache_told = update;
                 },
                 [&](const SafetyPolicyUpdate& update) { state_.safety_policy = update; },
                 [&](const DeviceHealthUpdate& update) {
                   if (is_anothers(update.device_id)) state_.peers[update.device_id].health = update;
                 },
                 [&](const VramUsageUpdate& update) {
                   if (is_anothers(update.device_id)) state_.peers[update.device_id].memory = update;
                 },
             });
  if (!read) refuse(AppliedOutcome::not_yet, read.error().message);
  return known;
}

Told Machine::told() const {
  Told out{device_id_,           state_.settings, state_.memory_policy, state_.routing,
           state_.system_memory, std::nullopt,    state_.safety_policy, {}};
  if (state_.cache_told) {
    out.model_cache = ModelCache{{state_.cached_models.begin(), state_.cached_models.end()},
                                 state_.cache_told->cache_changes.cache_utilization,
                                 state_.cache_told->available_models};
  }
  for (const auto& [device, peer] : state_.peers) out.peers.emplace(device.str(), peer);
  return out;
}

std::map<std::string, std::uint64_t> Machine::applied_revs() const {
  std::map<std::string, std::uint64_t> out;
  for (const auto& [name, result] : state_.applied) out[cat(name.first, "/", name.second)] = result.rev;
  return out;
}

void Machine::configure(Turn& turn, const DeviceConfigUpdate& update) {
  // The whole of what is intended comes each time: a setting that is absent is the default again.
  state_.settings = update.changes;
  state_.temperature_critical = update.temperature_critical;
  if (!update.changes.power_limit && !power_limit_ && !power_awaited_) return;
  power_awaited_ = true;
  turn.effect(out::SetPowerLimit{++power_orders_, update.changes.power_limit});
}

void Machine::power_limit_set(Turn& turn, const in::PowerLimitSet& input) {
  if (input.number != power_orders_) return;  // a newer limit is on its way to the driver
  power_awaited_ = false;
  // What the driver refuses leaves it as it was, a limit of before included.
  if (input.refused.empty()) power_limit_ = state_.settings.power_limit;
  state_.settings.power_limit = power_limit_;
  AppliedResult& known = state_.applied[{std::string(DeviceConfigUpdate::event_type), device_id_.str()}];
  if (!input.refused.empty()) {
    known.outcome = AppliedOutcome::rejected;
    known.reason = cat("power_limit: ", input.refused);
    known.settings = {{"power_limit", input.refused}};
  }
  for (auto& [answer, operation] : std::exchange(held_answers_, {})) {
    for (AppliedResult& each : answer.results) {
      if (each.type != known.type || each.subject != known.subject) continue;
      const std::uint64_t rev = each.rev;
      each = known;
      each.rev = rev;
    }
    send(turn, FrameType::state_applied, answer, operation);
  }
}

template <class Request>
void Machine::ask(Turn& turn, const std::string& id, const Request& request) {
  const RequestName name{Request::event_type, id};
  const auto known = request_answers_.find(name);
  const bool answered = known != request_answers_.end() && known->second.outcome != RequestOutcome::queued;
  if (!answered) asked_.try_emplace(name, request);  // of two with one name the first is due; the other is refused
  send(turn, type_of(request), request, request_operation(id, request));
}

void Machine::hear_answer(RequestAnswer answer) {
  if (answer.conflict.value_or(false)) return;  // the first request of this id is as it was
  constexpr std::size_t kept = 256;
  const RequestName name{answer.request_type, answer.request_id};
  const auto known = request_answers_.find(name);
  if (known != request_answers_.end() && known->second.outcome != RequestOutcome::queued) return;  // told again
  if (answer.outcome != RequestOutcome::queued) asked_.erase(name);
  request_answers_.insert_or_assign(name, std::move(answer));
  std::erase(answers_heard_, name);
  answers_heard_.push_back(name);
  if (answers_heard_.size() <= kept) return;
  request_answers_.erase(answers_heard_.front());
  answers_heard_.erase(answers_heard_.begin());
}

void Machine::session_command(Turn& turn, const SessionControlCommand& message) {
  if (message.command == SessionCommand::cancel_operations) {
    for (const auto& [id, running] : tasks_) {
      if (running.operation.correlation.session == message.session_id) turn.effect(out::CancelTask{id});
    }
  }
  if (sessions_.command(message)) report_session(turn, message.session_id);
}

void Machine::report_session(Turn& turn, const Task& task) {
  if (task.operation.correlation.session) report_session(turn, *task.operation.correlation.session);
}

void Machine::report_session(Turn& turn, const std::string& session) {
  const auto report = sessions_.report(session, turn.wall, participant_.used(), utilization_);
  if (!report) return;
  Operation operation;
  operation.op_id = session;
  operation.correlation.session = session;
  send(turn, FrameType::session_progress_update, *report, std::move(operation));
}

void Machine::forget(Turn& turn, const ModelId& model) {
  participant_.release(model);
  loaded_.erase(model);
  if (segments_.erase(model) > 0) turn.effect(out::ForgetSegments{model});
}

void Machine::timer(Turn& turn, const in::TimerFired& input) {
  if (input.name == "dial") {
    if (dial_until_ != 0 && !link_open_) turn.effect(out::Dial{});
    return;
  }
  if (input.name != "heartbeat" || !welcomed_) return;  // the next welcome arms it again
  Heartbeat heartbeat{handler_progress_, static_cast<std::uint32_t>(tasks_.size()), std::nullopt};
  if (writes_refused_ > 0) heartbeat.writes_refused = writes_refused_;
  send(turn, FrameType::heartbeat, heartbeat);
  // A profile says how often the device is disturbed by being looked at.
  const std::string profile = state_.settings.optimization_profile.value_or("balanced");
  const std::uint64_t every = profile == "performance" ? 4 : profile == "efficiency" ? 2 : 1;
  if (beats_++ % every == 0) turn.effect(out::SampleTelemetry{});
  turn.effect(out::ArmTimer{"heartbeat", turn.now + heartbeat_});
}

void Machine::telemetry(Turn& turn, const in::Telemetry& input) {
  HealthMetrics health = input.health;
  utilization_ = health.utilization;
  health.error_count += handler_failures_;
  DeviceDiagnostics diagnostics = input.diagnostics;
  if (health.temperature) baselines_.add("temperature", *health.temperature);
  if (diagnostics.power_draw) baselines_.add("power_draw", *diagnostics.power_draw);
  diagnostics.deviations = baselines_.departing();
  diagnostics.temperature_critical = state_.temperature_critical;
  const Bytes total = memory_budget_;
  if (total.value > 0) {
    health.memory_usage.value = std::min(1.0, static_cast<double>(input.used.value) / static_cast<double>(total.value));
  }
  DeviceHealthUpdate update{device_id_, health, Timestamp::of(turn.wall), AllocationPriority::normal, diagnostics};
  if (is_critical(update)) update.propagation_urgency = AllocationPriority::critical;  // a lower word would lower it
  send(turn, FrameType::device_health_update, update);
  pressure_ = pressure_of(share_of(input.used, total), {}, pressure_);
  send(turn, FrameType::vram_usage_update,
       VramUsageUpdate{device_id_,
                       {total, input.used, total - input.used, input.fragmentation},
                       pressure_,
                       pressure_ == PressureLevel::critical});
}

void Machine::tell_capabilities(Turn& turn) {
  if (!identity_.capabilities) return;
  identity_.capabilities->device_id = device_id_;
  send(turn, FrameType::device_capability_discovered, *identity_.capabilities);
}

void Machine::calibrate(Turn& turn, const DeviceCalibrate& order, Task task, bool fenced) {
  task.kind = "calibrate";
  if (order.device_id != device_id_) {
    return answer_failure(turn, task, "not_owner", cat("this worker has ", device_id_.str()));
  }
  if (fenced) return answer_failure(turn, task, "unavailable", "the worker has fenced itself");
  if (!tasks_.empty()) {
    return answer_failure(turn, task, "unavailable",
                          cat("a measurement beside a running ", tasks_.begin()->second.kind, " would be wrong"));
  }
  const TaskId id = ++tasks_made_;
  tasks_.emplace(id, std::move(task));
  turn.effect(out::Calibrate{id});
}

void Machine::calibrated(Turn& turn, const in::Calibrated& input) {
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return;
  const Task task = place->second;
  tasks_.erase(place);
  ++handler_progress_;
  if (!input.found) return answer_failure(turn, task, "unavailable", input.found.error().message);
  identity_.capabilities = *input.found;
  identity_.capabilities->device_id = device_id_;
  baselines_ = {};  // what was usual of the device as it was
  answer(turn, task, FrameType::device_capability_discovered, *identity_.capabilities);
}

void Machine::tell_runtime(Turn& turn, const ModelId& model) {
  const ModelRuntime& runtime = loaded_.at(model);
  const LoadPlan* plan = participant_.held(model);
  const double average =
      runtime.inferences == 0 ? 0 : runtime.inference_seconds / static_cast<double>(runtime.inferences);
  const bool leaves = std::ranges::any_of(
      tasks_, [&](const auto& each) { return each.second.kind == "release" && each.second.model_id == model; });
  send(turn, FrameType::model_runtime_update,
       ModelRuntimeUpdate{model,
                          {handlers_ready_ && !leaves, runtime.warm, runtime.optimization_level, average},
                          plan == nullptr ? Bytes{} : plan->bytes});
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
                                         extrapolated(turn.wall, turn.now - task.began, report->fraction),
                                         {}};
      send(turn, FrameType::model_loading_progress, message, task.operation);
    }
  } else if (task.kind == "inference" || task.kind == "inference_batch") {
    if (const auto report = json::from_text<InferenceReport>(input.report)) {
      const std::uint32_t left = report->total_steps - std::min(report->step, report->total_steps);
      InferenceProgress message{
          task.run_id,
          {report->step, report->total_steps, report->step_time_avg, after(turn.wall, left * report->step_time_avg)},
          {SizeText::of(participant_.used()), utilization_}};
      if (task.kind == "inference") send(turn, FrameType::inference_progress, message, task.operation);
      for (const auto& [run, operation] : task.images) {
        message.request_id = run;
        send(turn, FrameType::inference_progress, message, operation);
      }
    }
  } else if (task.kind == "postprocess") {
    if (const auto report = json::from_text<PostprocessReport>(input.report)) {
      const PostprocessingProgress message{
          task.run_id,
          {report->current_operation, report->operations_completed, report->total_operations,
           report->current_operation_progress},
          {report->upscaling_quality_score, report->processing_time.value_or(as_seconds(turn.now - task.began))}};
      send(turn, FrameType::postprocessing_progress, message, task.operation);
    }
  }
}

Status Machine::image_done(Turn& turn, const Task& task, const std::string& report, std::vector<HandleId>& handles) {
  const InferenceDone done = LOCKSTEP_TRY(json::from_text<InferenceDone>(report));
  if (handles.size() != 1) return fail(ErrorCode::internal, "exactly one descriptor was expected");
  const InferenceCompleted message{
      task.run_id,
      {done.execution_time, done.total_steps_executed, SizeText::of(done.peak_bytes), done.result_quality_score},
      cat("sha256:", done.sha256),
      true,  // pixels are no file: what nobody else does to them, postprocessing writes one
      done.postprocessing_recommendations.value_or(std::vector<std::string>{}),
      ImageBuffer{"rgb8", done.width, done.height, done.bytes, done.sha256}};
  answer(turn, task, FrameType::inference_completed, message, std::move(handles));
  handles.clear();
  const auto runtime = loaded_.find(task.model_id);
  if (runtime == loaded_.end()) return {};
  ++runtime->second.inferences;
  runtime->second.warm = true;
  runtime->second.inference_seconds += done.execution_time;
  if (done.total_steps_executed > 0) {
    const std::string images = task.size > 1 ? cat(task.size, " of ") : "";
    baselines_.add(cat("step_time:", task.model_id.str(), ":", images, done.width, "x", done.height),
                   done.execution_time / done.total_steps_executed);
  }
  tell_runtime(turn, task.model_id);
  return {};
}

void Machine::part(Turn& turn, const in::TaskPart& input) {
  std::vector<HandleId> handles = input.handles;
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return turn.drop(handles);
  const auto image = place->second.images.find(input.request_id);
  if (image == place->second.images.end()) return turn.drop(handles);  // cancelled, or handed over a second time
  Task task{"inference", image->second, place->second.model_id, image->first};
  task.size = place->second.size;
  place->second.images.erase(image);
  ++handler_progress_;
  if (const Status good = image_done(turn, task, input.report, handles); !good) {
    ++handler_failures_;
    turn.drop(handles);
    answer_failure(
        turn, task, "internal",
        cat("the inference_batch handler answered badly at \"", good.error().pointer, "\": ", good.error().message));
  }
  if (!task.operation.correlation.session) return;
  sessions_.done(*task.operation.correlation.session, 1);
  if (!place->second.images.empty()) {
    sessions_.running(*task.operation.correlation.session, cat(place->second.kind, "_execution"));
  }
  report_session(turn, task);
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
    const std::string what =
        cat("the ", task.kind, " handler answered badly at \"", error.pointer, "\": ", error.message);
    // Nobody knows what is still there: as after a release that failed, only the end of this process frees it.
    if (task.kind == "release") return leave(turn, 4, cat("releasing ", task.model_id.str(), " failed: ", what));
    if (task.kind == "load") forget(turn, task.model_id);
    answer_failure(turn, task, "internal", what);
  };
  if (task.kind == "load") {
    const auto report = json::from_text<LoadDone>(input.report);
    if (!report) return bad(report.error());
    loaded_[task.model_id] = {};
    if (report->optimization_level) loaded_[task.model_id].optimization_level = *report->optimization_level;
    answer(turn, task, FrameType::model_loading_progress,
           ModelLoadingProgress{task.model_id, "loaded", Percent{100}, report->bytes, Timestamp::of(turn.wall), {}});
    tell_runtime(turn, task.model_id);
  } else if (task.kind == "release") {
    const auto report = json::from_text<ReleaseDone>(input.report);
    if (!report) return bad(report.error());
    if (report->bytes_mapped.value == 0) forget(turn, task.model_id);
    answer(turn, task, FrameType::model_released, ModelReleased{task.model_id, report->bytes_mapped});
  } else if (task.kind == "inference") {
    if (const Status good = image_done(turn, task, input.report, handles); !good) return bad(good.error());
  } else if (task.kind == "inference_batch") {
    turn.drop(handles);
    for (const auto& [run, operation] : task.images) {
      ++handler_failures_;
      answer_failure(turn, {"inference", operation, task.model_id, run}, "internal",
                     cat("the inference_batch handler ended without ", run));
    }
  } else {
    const auto report = json::from_text<PostprocessDone>(input.report);
    if (!report) return bad(report.error());
    if (report->output.has_value() != (handles.size() == 1)) {
      return bad(fail(ErrorCode::internal, "an output and its descriptor come together"));
    }
    PostprocessingCompleted message{task.run_id,  {report->safety, report->quality},
                                    "",           {report->total_processing_time, SizeText::of(report->peak_bytes)},
                                    std::nullopt, report->operations,
                                    report->usage};
    if (report->output) {
      message.output_location = cat("sha256:", report->output->sha256);
      message.output = ImageBuffer{report->output->format.value_or("png"), report->output->width,
                                   report->output->height, report->output->bytes, report->output->sha256};
    }
    answer(turn, task, FrameType::postprocessing_completed, message, std::move(handles));
    // A pipeline that an unsafe picture stopped has not used the models behind the check.
    const std::size_t used = std::min(task.models.size(), report->operations.size());
    for (std::size_t i = 0; i < used; ++i) {
      const auto runtime = loaded_.find(task.models[i]);
      if (runtime != loaded_.end() && !std::exchange(runtime->second.warm, true)) tell_runtime(turn, task.models[i]);
    }
  }
  handles.clear();
  if (!task.operation.correlation.session) return;
  if (task.kind == "inference_batch") return;  // each of its parts was told
  const auto report = json::from_text<PostprocessDone>(input.report);
  const bool pipeline = task.kind == "postprocess" && report.has_value();
  sessions_.done(*task.operation.correlation.session,
                 pipeline ? static_cast<std::uint32_t>(report->operations.size()) : 1);
  report_session(turn, task);
}

void Machine::failed(Turn& turn, const in::TaskFailed& input) {
  const auto place = tasks_.find(input.task);
  if (place == tasks_.end()) return;
  const Task task = place->second;
  tasks_.erase(place);
  ++handler_progress_;
  ++handler_failures_;
  if (task.kind == "load") forget(turn, task.model_id);
  if (task.kind == "release") return leave(turn, 4, cat("releasing ", task.model_id.str(), " failed: ", input.message));
  if (task.kind != "inference_batch") answer_failure(turn, task, input.code, input.message);
  for (const auto& [run, operation] : task.images) {
    answer_failure(turn, {"inference", operation, task.model_id, run}, input.code, input.message);
  }
  // What the load held is proven free by a sample: the sooner, the sooner something else may have it.
  if (task.kind == "load") turn.effect(out::SampleTelemetry{});
  if (!task.operation.correlation.session) return;
  sessions_.done(*task.operation.correlation.session, 0);
  report_session(turn, task);
}

}  // namespace lockstep::worker
