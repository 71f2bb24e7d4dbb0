#include "orchestrator/on_session.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/sessions.h"
#include "operations/workflow.h"
#include "orchestrator/coordination.h"
#include "orchestrator/costs.h"
#include "orchestrator/deliver.h"

namespace lockstep {

namespace {

using processing::Failure;
using processing::Session;
using processing::SessionEvent;
using processing::SessionState;

constexpr std::size_t sessions_shown_max = 200;

void put(Turn& turn, const Session& session, std::string event) {
  turn.change.put(turn.tables.processing.sessions, session.session_id, session);
  turn.change.event(std::move(event), session.session_id, session);
}

/// Every worker that was told of the session, over the link it was told.
template <class F>
void each_told(Turn& turn, const Session& session, F&& f) {
  const auto told = turn.live.sessions_told.find(session.session_id);
  if (told == turn.live.sessions_told.end()) return;
  for (const auto& [worker, link] : told->second) {
    const auto live = turn.live.workers.find(worker);
    const WorkerRecord* record = turn.tables.liveness.workers.find(worker.str());
    if (record == nullptr || live == turn.live.workers.end() || live->second.link != link) continue;
    if (live->second.link_open) f(*record);
  }
}

Operation session_operation(const Session& session) {
  Operation operation;
  operation.op_id = session.session_id;
  operation.correlation.session = session.session_id;
  return operation;
}

void tell(Turn& turn, const Session& session, SessionCommand command, std::string reason) {
  const SessionControlCommand message{session.session_id, command, std::move(reason), session.resume_condition};
  turn.change.event(std::string(SessionControlCommand::event_type), session.session_id, message);
  each_told(turn, session, [&](const WorkerRecord& worker) {
    send_in_order(turn, worker, FrameType::session_control_command, message, session_operation(session));
  });
}

void start(Turn& turn, Session session) {
  session.started = turn.wall;
  if (session.session_timeout) {
    const Nanos limit = session.session_timeout->nanos().value_or(0);
    session.deadline = WallTime{turn.wall.ms + limit / milliseconds(1)};
    turn.effect(out::ArmTimer{cat("session:", session.session_id), turn.now + limit});
  }
  put(turn, session, "session_started");
}

/// A session's end: nothing of it runs, waits or holds anything any more.
void end(Turn& turn, Session session, std::optional<Failure> why) {
  session.finished = turn.wall;
  session.failure = why;
  session.resume_condition.reset();
  if (session.deadline) turn.effect(out::DisarmTimer{cat("session:", session.session_id)});
  if (why) {
    for (const RequestId& id : session.requests) {
      const processing::Request& request = turn.tables.processing.requests.at(id.str());
      if (request.state == processing::RequestState::accepted) end_request(turn, request, *why);
    }
  }
  tell(turn, session, SessionCommand::cancel_operations, cat("session_", json::enum_name(session.state)));
  coordination_over(turn, session.session_id);
  turn.live.sessions_told.erase(session.session_id);
  turn.live.session_reports.erase(session.session_id);
  put(turn, session, cat("session_", json::enum_name(session.state)));
}

/// The largest share of a device's budget that is in use, among the session's devices; absent until one reported.
std::optional<Percent> memory_usage(const Turn& turn, const Session& session) {
  std::optional<Percent> most;
  for (const auto& [id, live] : turn.live.workers) {
    if (!live.memory || !live.link_open) continue;
    const auto& allowed = session.gpu_allocation;
    if (!allowed.empty() && std::ranges::find(allowed, live.memory->device_id) == allowed.end()) continue;
    const VramMetrics& metrics = live.memory->vram_metrics;
    if (metrics.total_vram.value == 0) continue;
    const double percent =
        100.0 * static_cast<double>(metrics.used_vram.value) / static_cast<double>(metrics.total_vram.value);
    if (!most || percent > most->value) most = Percent{percent};
  }
  return most;
}

bool condition_holds(const Turn& turn, const Session& session) {
  const auto below = processing::read_resume_condition(*session.resume_condition);
  LOCKSTEP_CHECK(below.has_value());  // it was validated with the pause
  const auto usage = memory_usage(turn, session);
  return usage && usage->value < below->value;
}

bool settle_created(Turn& turn, const Session& session) {
  const processing::Prerequisites before = processing::prerequisites_of(turn.tables.processing, session);
  if (before.completed) {
    start(turn, processing::after(session, SessionEvent::prerequisites_completed).value());
    return true;
  }
  if (before.ended.empty()) return false;
  const Session& other = turn.tables.processing.sessions.at(before.ended);
  end(turn, processing::after(session, SessionEvent::prerequisite_ended).value(),
      Failure{"cancelled",
              cat("session ", other.session_id, ", which it depends on, is ", json::enum_name(other.state))});
  return true;
}

bool settle_operations(Turn& turn, const Session& session) {
  if (session.state == SessionState::active && !session.expected_operations) return false;
  const processing::OperationCount count = processing::count_operations(turn.tables.processing, session);
  if (count.open_requests > 0) return false;
  if (session.state == SessionState::active) {
    // A request that failed does none of its operations: nothing more will come of them.
    if (count.known < *session.expected_operations) return false;
    put(turn, processing::after(session, SessionEvent::complete).value(), "session_completing");
    return true;
  }
  const SessionEvent event = count.failed ? SessionEvent::operation_failed : SessionEvent::operations_completed;
  end(turn, processing::after(session, event).value(), count.failed);
  return true;
}

void resume(Turn& turn, Session session, const std::string& reason) {
  session.pause_reason.clear();
  session.resume_condition.reset();
  tell(turn, session, SessionCommand::resume_operations, reason);
  put(turn, session, "session_resumed");
}

Result<Session> command(Turn& turn, const Session& session, const std::string& word, const std::string& text) {
  if (word == "pause") {
    const PauseBody body = LOCKSTEP_TRY(read_command_body<PauseBody>(text));
    if (body.resume_condition) LOCKSTEP_TRY(processing::read_resume_condition(*body.resume_condition));
    Session paused = LOCKSTEP_TRY(processing::after(session, SessionEvent::pause));
    paused.pause_reason = body.reason.value_or("");
    paused.resume_condition = body.resume_condition;
    tell(turn, paused, SessionCommand::pause_operations, paused.pause_reason);
    put(turn, paused, "session_paused");
    return paused;
  }
  LOCKSTEP_TRY(read_command_body<SessionBody>(text));
  if (word == "resume") {
    Session resumed = LOCKSTEP_TRY(processing::after(session, SessionEvent::resume));
    resume(turn, resumed, "requested");
    return resumed;
  }
  if (word == "complete") {
    Session completing = LOCKSTEP_TRY(processing::after(session, SessionEvent::complete));
    put(turn, completing, "session_completing");
    return completing;
  }
  if (word == "cancel") {
    Session cancelled = LOCKSTEP_TRY(processing::after(session, SessionEvent::cancel));
    end(turn, cancelled, Failure{"cancelled", cat("session ", session.session_id, " was cancelled")});
    return cancelled;
  }
  return fail(ErrorCode::not_found,
              cat("a session has no command ", shortened(word), "; it has pause, resume, complete and cancel"));
}

Result<Session> create(Turn& turn, const std::string& text) {
  const SessionBody body = LOCKSTEP_TRY(read_command_body<SessionBody>(text));
  const std::string id = session_id(turn.live.epoch, ++turn.live.sessions_made);
  Session session = LOCKSTEP_TRY(read_session(turn.tables, body, id, turn.wall));
  put(turn, session, "session_created");
  return session;
}

SessionView view(const Turn& turn, const Session& session) {
  SessionView out = view_of(turn.tables, session, turn.wall);
  const auto reports = turn.live.session_reports.find(session.session_id);
  if (reports == turn.live.session_reports.end()) return out;
  for (const auto& [worker, update] : reports->second) out.workers.push_back({worker, update});
  return out;
}

void expire(Turn& turn, const Session& session) {
  const auto expired = processing::after(session, SessionEvent::session_timeout);
  if (!expired) return;  // it ended while the timer fired
  end(turn, *expired,
      Failure{"deadline_exceeded",
              cat("session ", session.session_id, " passed its session_timeout of ", session.session_timeout->text)});
}

/// How long one run may take: the inference's own timeout, or its session's operation_timeout when that is shorter.
struct RunLimit {
  Nanos nanos = 0;
  std::string words;
};
std::optional<RunLimit> run_limit(const Turn& turn, const processing::Request& request, bool inference) {
  std::optional<RunLimit> limit;
  if (inference) {
    const DurationText& timeout = request.inference.timeout;
    limit = {timeout.nanos().value_or(0), cat("the timeout of ", timeout.text)};
  }
  if (!request.session_id) return limit;
  const Session& session = turn.tables.processing.sessions.at(*request.session_id);
  if (!session.operation_timeout) return limit;
  const Nanos of_session = session.operation_timeout->nanos().value_or(0);
  if (limit && limit->nanos <= of_session) return limit;
  return RunLimit{of_session, cat("the operation_timeout of ", session.operation_timeout->text, " of session ",
                                  session.session_id)};
}

void expire_operation(Turn& turn, const std::string& subject) {
  const std::size_t colon = subject.rfind(':');
  if (colon == std::string::npos) return;
  const processing::Job* job = turn.tables.processing.jobs.find(subject.substr(0, colon));
  if (job == nullptr || job->worker_id.empty() || cat(job->attempt) != subject.substr(colon + 1)) return;
  const processing::Request& request = turn.tables.processing.requests.at(job->request_id.str());
  const bool inference = job->stage == processing::JobStage::inferring;
  const auto limit = run_limit(turn, request, inference);
  if (!limit) return;  // the timer of a run that was replaced in the same moment
  const Failure why{"deadline_exceeded", cat(inference ? "the inference" : "the postprocessing", " of ",
                                             job->job_id.str(), " passed ", limit->words)};
  abandon_job(turn, *job);
  processing::Job late = *job;
  ++late.attempt;  // its result is nobody's
  fail_job(turn.tables, late, why, turn.wall, turn.change);
}

}  // namespace

void on_command_session(Turn& turn, const in::CommandSession& input) {
  constexpr std::string_view one = "sessions/";
  const auto answer = [&](int status, const Result<Session>& session) {
    if (!session) return reply_error(turn, input.reply, session.error());
    turn.effect(out::Reply{input.reply, status, json::to_text(view(turn, *session))});
  };
  if (turn.live.stopping) {
    return reply_error(turn, input.reply, fail(ErrorCode::unavailable, "the server is stopping"));
  }
  if (input.path == "sessions") return answer(201, create(turn, input.body));
  const std::size_t slash = input.path.rfind('/');
  if (input.path.starts_with(one) && slash > one.size()) {
    const std::string id = input.path.substr(one.size(), slash - one.size());
    const Session* session = turn.tables.processing.sessions.find(id);
    if (session == nullptr) {
      return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no session ", shortened(id))));
    }
    return answer(200, command(turn, *session, input.path.substr(slash + 1), input.body));
  }
  reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no ", shortened(input.path))));
}

Result<std::string> sessions_view(const Turn& turn, const std::string& path) {
  constexpr std::string_view one = "sessions/";
  const auto& entries = turn.tables.processing.sessions.entries();
  if (path.starts_with(one)) {
    const std::string id = path.substr(one.size());
    const auto place = entries.find(id);
    if (place != entries.end()) return json::to_text(view(turn, place->second.row));
    return fail(ErrorCode::not_found, cat("there is no session ", shortened(id)));
  }
  SessionsView all{turn.live.rev, {}};
  for (auto at = entries.rbegin(); at != entries.rend() && all.sessions.size() < sessions_shown_max; ++at) {
    all.sessions.push_back(view(turn, at->second.row));
  }
  return json::to_text(all);
}

bool settle_sessions(Turn& turn) {
  for (const std::string& id : turn.live.open_sessions) {
    const Session& session = turn.tables.processing.sessions.at(id);
    if (session.state == SessionState::created && settle_created(turn, session)) return true;
    if (session.state == SessionState::active || session.state == SessionState::completing) {
      if (settle_operations(turn, session)) return true;
    }
    if (session.state == SessionState::paused && session.resume_condition && condition_holds(turn, session)) {
      const std::string condition = *session.resume_condition;
      resume(turn, processing::after(session, SessionEvent::resume).value(), condition);
      return true;
    }
  }
  return false;
}

bool on_session_timer(Turn& turn, std::string_view what, const std::string& subject) {
  if (what == "operation") {
    expire_operation(turn, subject);
    return true;
  }
  if (what != "session") return false;
  if (const Session* session = turn.tables.processing.sessions.find(subject)) expire(turn, *session);
  return true;
}

void arm_session_timers(Turn& turn) {
  const auto until = [&](WallTime deadline) {
    return turn.now + milliseconds(std::max<std::int64_t>(deadline.ms - turn.wall.ms, 0));
  };
  for (const std::string& id : turn.live.open_sessions) {
    const Session& session = turn.tables.processing.sessions.at(id);
    if (session.deadline) turn.effect(out::ArmTimer{cat("session:", id), until(*session.deadline)});
  }
  for (const JobId& id : turn.live.open_jobs) {
    const processing::Job& job = turn.tables.processing.jobs.at(id.str());
    if (job.deadline && !job.worker_id.empty()) {
      turn.effect(out::ArmTimer{cat("operation:", id.str(), ":", job.attempt), until(*job.deadline)});
    }
  }
}

bool session_allows(const Turn& turn, const processing::Request& request, const DeviceId& device) {
  if (!request.session_id) return true;
  const auto& allowed = turn.tables.processing.sessions.at(*request.session_id).gpu_allocation;
  return allowed.empty() || std::ranges::find(allowed, device) != allowed.end();
}

Status session_has_room(const Turn& turn, const processing::Request& request, const DeviceId& device, Bytes models,
                        Bytes beside) {
  if (!request.session_id) return {};
  const Session& session = turn.tables.processing.sessions.at(*request.session_id);
  if (!session.max_memory) return {};
  const Bytes granted = memory::granted_to(turn.tables.memory, session.session_id, device);
  const Bytes all = models + beside + granted;
  if (all <= session.max_memory->bytes().value_or(Bytes{})) return {};
  return fail(ErrorCode::resource_exhausted,
              cat("the request needs ", to_text(all), " on ", device.str(), " (", to_text(models), " for its models, ",
                  to_text(beside), " beside them, as a run of its size took before, and ", to_text(granted),
                  " were granted for its session); session ", session.session_id, " has a max_memory of ",
                  session.max_memory->text));
}

Status session_has_room(const Turn& turn, const processing::Request& request, processing::JobStage stage) {
  processing::Job job;
  job.stage = stage;
  Bytes models;
  for (const ModelId& id : models_needed(request, job)) {
    if (const auto model = model::usable(turn.tables.model, id)) models += (*model)->bytes;
  }
  Status out;
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    const DeviceId& device = entry.row.device_id;
    if (!session_allows(turn, request, device)) continue;
    const bool infers = stage == processing::JobStage::queued;
    const Bytes beside = infers ? predicted_beyond(turn, request.inference, device) : Bytes{};
    const Status here = session_has_room(turn, request, device, models, beside);
    if (here) return {};
    if (out) out = here;
  }
  return out;
}

namespace {

void tell_session(Turn& turn, const processing::Request& request, const WorkerRecord& worker) {
  const Session& session = turn.tables.processing.sessions.at(*request.session_id);
  const LinkId link = turn.live.workers.at(worker.worker_id).link;
  const auto [told, first] = turn.live.sessions_told[session.session_id].emplace(worker.worker_id, link);
  if (first || told->second != link) {
    told->second = link;
    const ProcessingSessionCreated message = message_of(session);
    send(turn, worker, FrameType::processing_session_created, message, session_operation(session));
    turn.change.event(std::string(ProcessingSessionCreated::event_type), session.session_id, message);
  }
}

}  // namespace

std::optional<WallTime> begin_run(Turn& turn, const processing::Request& request, const processing::Job& job,
                                  const WorkerRecord& worker) {
  if (request.session_id) tell_session(turn, request, worker);
  const auto limit = run_limit(turn, request, job.stage == processing::JobStage::queued);
  if (!limit) return std::nullopt;
  turn.effect(out::ArmTimer{cat("operation:", job.job_id.str(), ":", job.attempt + 1), turn.now + limit->nanos});
  return WallTime{turn.wall.ms + limit->nanos / milliseconds(1)};
}

Status on_session_progress(Turn& turn, const WorkerRecord& worker, const SessionProgressUpdate& update) {
  const Session* session = turn.tables.processing.sessions.find(update.session_id);
  if (session == nullptr) {
    return fail(ErrorCode::not_owner, cat("there is no session ", shortened(update.session_id)), "/session_id");
  }
  if (processing::is_terminal(session->state)) return {};  // it was under way when the session ended
  const auto told = turn.live.sessions_told.find(update.session_id);
  if (told == turn.live.sessions_told.end() || !told->second.contains(worker.worker_id)) {
    return fail(ErrorCode::not_owner, cat("it does not work for session ", update.session_id), "/session_id");
  }
  turn.live.session_reports[update.session_id].insert_or_assign(worker.worker_id, update);
  turn.publish(std::string(SessionProgressUpdate::event_type), update.session_id, update);
  return {};
}

void abandon_job(Turn& turn, const processing::Job& job) {
  if (!job.worker_id.empty()) {
    // A cancelled task still has to answer; the worker stays busy until it does or its progress deadline passes.
    const WorkerLive& live = turn.live.workers[job.worker_id];
    const auto of_batch = std::ranges::find_if(live.batch, [&](const auto& each) { return each.second == job.job_id; });
    const std::string task = of_batch == live.batch.end() ? live.task : of_batch->first;
    send(turn, turn.tables.liveness.workers.at(job.worker_id.str()), FrameType::task_cancel, TaskCancel{},
         run_operation(task, job.attempt, job.request_id));
    turn.effect(out::ArmTimer{cat("cancel:", job.worker_id.str()), turn.now + turn.settings.timing.cancel_grace});
  }
  drop_pixels(turn, job.job_id);
}

void stop_job(Turn& turn, processing::Job job, const Failure& why) {
  abandon_job(turn, job);
  job = processing::after(std::move(job), processing::JobEvent::failed);
  ++job.attempt;  // a late result of the cancelled attempt is nobody's
  job.failure = why;
  turn.change.put(turn.tables.processing.jobs, job.job_id.str(), job);
}

void fail_request(Turn& turn, processing::Request request, const Failure& why) {
  request.state = processing::RequestState::failed;
  request.finished = turn.wall;
  request.failure = why;
  turn.change.put(turn.tables.processing.requests, request.request_id.str(), request);
  turn.change.event("request_failed", request.request_id.str(), request, request.session_id);
}

void end_request(Turn& turn, const processing::Request& request, const Failure& why) {
  for (const processing::Job& job : processing::jobs_of(turn.tables.processing, request.request_id)) {
    if (!processing::is_terminal(job.stage)) stop_job(turn, job, why);
  }
  fail_request(turn, request, why);
}

}  // namespace lockstep
