#include "operations/sessions.h"

#include "base/text.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/workflow.h"

namespace lockstep {

namespace {

using processing::Session;
using processing::SessionState;

std::string padded(std::uint64_t number) {
  std::string digits = cat(number);
  return digits.size() < 6 ? std::string(6 - digits.size(), '0') + digits : digits;
}

/// The most memory that one step of the request needs on its device.
Bytes memory_needed(const Tables& tables, const processing::Request& request) {
  Bytes most;
  for (const auto stage : {processing::JobStage::queued, processing::JobStage::generated}) {
    processing::Job job;
    job.stage = stage;
    Bytes need;
    for (const ModelId& id : models_needed(request, job)) {
      if (const auto model = model::usable(tables.model, id)) need += (*model)->bytes;
    }
    most = std::max(most, need);
  }
  return most;
}

std::string waits_for(const Tables& tables, const Session& session) {
  if (session.state == SessionState::created) {
    for (const std::string& id : session.depends_on) {
      const SessionState state = tables.processing.sessions.at(id).state;
      if (state != SessionState::completed)
        return cat("session ", id, " has to complete first; it is ", json::enum_name(state));
    }
    return "it is about to start";
  }
  if (session.state != SessionState::paused) return "";
  const std::string reason = session.pause_reason.empty() ? "" : cat(": ", session.pause_reason);
  return cat("it is paused", reason, session.resume_condition ? cat("; until ", *session.resume_condition) : "");
}

}  // namespace

Result<Session> read_session(const Tables& tables, const SessionBody& body, const std::string& id, WallTime now) {
  Session session;
  session.session_id = id;
  session.session_class = body.session_class.value_or(processing::SessionClass::interactive);
  session.priority = body.priority.value_or(AllocationPriority::normal);
  session.max_memory = body.max_memory;
  session.gpu_allocation = body.gpu_allocation.value_or(std::vector<DeviceId>{});
  session.operation_timeout = body.operation_timeout;
  session.session_timeout = body.session_timeout;
  session.expected_operations = body.expected_operations;
  session.depends_on = body.depends_on.value_or(std::vector<std::string>{});
  session.created = now;
  LOCKSTEP_TRY_STATUS(processing::validate(tables.processing, session));
  for (std::size_t i = 0; i < session.gpu_allocation.size(); ++i) {
    const std::string& device = session.gpu_allocation[i].str();
    if (tables.device.devices.contains(device)) continue;
    return fail(ErrorCode::not_found, cat("there is no device ", shortened(device)), cat("/gpu_allocation/", i));
  }
  return session;
}

Status join_session(const Tables& tables, const std::string& id, processing::Request& request) {
  const Session* session = tables.processing.sessions.find(id);
  if (session == nullptr) {
    return fail(ErrorCode::not_found, cat("there is no session ", shortened(id)), "/session_id");
  }
  if (session->state == SessionState::completing || processing::is_terminal(session->state)) {
    return fail(ErrorCode::invalid_transition,
                cat("session ", id, " takes no more requests; it is ", json::enum_name(session->state)), "/session_id");
  }
  if (session->requests.size() >= processing::session_requests_max) {
    return fail(ErrorCode::resource_exhausted,
                cat("session ", id, " has ", session->requests.size(), " requests; the limit is ",
                    processing::session_requests_max),
                "/session_id");
  }
  const Bytes need = memory_needed(tables, request);
  if (session->max_memory && need > session->max_memory->bytes().value_or(Bytes{})) {
    return fail(ErrorCode::resource_exhausted, cat("the request needs ", to_text(need), " on one device; session ", id,
                                                   " has a max_memory of ", session->max_memory->text));
  }
  request.session_id = id;
  return {};
}

std::string session_id(Epoch epoch, std::uint64_t counter) {
  return cat("ses_", padded(epoch.value), "_", padded(counter));
}

ProcessingSessionCreated message_of(const Session& session) {
  return {session.session_id,
          session.workflow_template,
          {session.priority, session.max_memory.value_or(SizeText{}), session.gpu_allocation},
          session.expected_operations.value_or(0),
          {session.operation_timeout.value_or(DurationText{}), session.session_timeout.value_or(DurationText{})}};
}

SessionView view_of(const Tables& tables, const Session& session, WallTime now) {
  SessionView view;
  view.session = session;
  const processing::OperationCount count = processing::count_operations(tables.processing, session);
  const std::uint32_t all = std::max(count.known, session.expected_operations.value_or(0));
  view.operations_completed = count.done;
  view.operations_remaining = processing::is_terminal(session.state) ? 0 : all - count.done;
  if (all > 0) view.percent = 100.0 * count.done / all;
  if (count.done > 0 && view.operations_remaining > 0 && session.started) {
    const double each = static_cast<double>(now.ms - session.started->ms) / count.done;
    view.estimated_completion = to_rfc3339({now.ms + static_cast<std::int64_t>(each * view.operations_remaining)});
  }
  view.waits_for = waits_for(tables, session);
  return view;
}

}  // namespace lockstep
