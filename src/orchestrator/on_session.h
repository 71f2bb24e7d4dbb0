#pragma once

// Sessions in the orchestrator (§1.4, §2.4): what people command, what workers are told and report, and the limits.

#include <string>
#include <string_view>

#include "events/json_read.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// The body of a command. An unknown key is refused: a typing error must not be a default.
template <class Body>
Result<Body> read_command_body(const std::string& text) {
  json::ReadNotes notes;
  Body body = LOCKSTEP_TRY(json::from_text<Body>(text.empty() ? "{}" : text, &notes));
  if (notes.unknown_keys == 0) return body;
  return fail(ErrorCode::invalid_argument, cat("the key \"", shortened(notes.first_unknown), "\" is unknown"),
              notes.first_unknown);
}

/// The view of a workflow template, of all of them, or of the safety policy, as JSON. on_content.cc
Result<std::string> content_view(const Turn& turn, const std::string& path);

/// The worker is ready: it is told the safety policy, unless that is the built-in one. on_content.cc
void tell_content_facts(Turn& turn, const WorkerRecord& worker);

// Commands of people. Of workflows, outputs and the safety policy: on_content.cc
void on_command_session(Turn& turn, const in::CommandSession& input);
void on_command_workflow(Turn& turn, const in::CommandWorkflow& input);
void on_tag_output(Turn& turn, const in::TagOutput& input);
void on_set_safety_policy(Turn& turn, const in::SetSafetyPolicy& input);
void on_list_outputs(Turn& turn, const in::ListOutputs& input);

/// The view at "sessions" or "sessions/<id>" as JSON; not_found when there is none.
Result<std::string> sessions_view(const Turn& turn, const std::string& path);

/// One further decision about a session: it starts, resumes, completes or fails. True when one was taken.
bool settle_sessions(Turn& turn);

/// "session:<id>" and "operation:<job>:<attempt>" are ours.
bool on_session_timer(Turn& turn, std::string_view what, const std::string& subject);

/// After a start: the deadlines of before count on.
void arm_session_timers(Turn& turn);

/// Whether the request's session lets its operations run on this device.
bool session_allows(const Turn& turn, const processing::Request& request, const DeviceId& device);

/// Whether `max_memory` of the request's session, where it has one, allows a run on this device: its models, what it is
/// expected to take beside them, and what was granted for the session there. resource_exhausted names each, and the
/// limit. §2.4
Status session_has_room(const Turn& turn, const processing::Request& request, const DeviceId& device, Bytes models,
                        Bytes beside);
/// The same on any of the session's devices, for an image of the request in this stage.
Status session_has_room(const Turn& turn, const processing::Request& request, processing::JobStage stage);

/// Before a run of the request goes to the worker: the worker hears of the session, if there is one, and the run gets
/// its deadline: the inference's timeout, the session's operation_timeout.
/// Returns the deadline for the job's row.
std::optional<WallTime> begin_run(Turn& turn, const processing::Request& request, const processing::Job& job,
                                  const WorkerRecord& worker);

/// session_progress_update of a worker that works for the session; of another it is not_owner.
Status on_session_progress(Turn& turn, const WorkerRecord& worker, const SessionProgressUpdate& update);

/// Ends what is open of a request: its runs are cancelled, its pixels given up, and every answer says why.
void end_request(Turn& turn, const processing::Request& request, const processing::Failure& why);
/// A job that is not wanted any more: its task is cancelled and its pixels are given up. The row is not changed.
void abandon_job(Turn& turn, const processing::Job& job);
/// The same, and the job has failed.
void stop_job(Turn& turn, processing::Job job, const processing::Failure& why);
/// The request has failed, with jobs that have ended or end in the same decision.
void fail_request(Turn& turn, processing::Request request, const processing::Failure& why);

}  // namespace lockstep
