#pragma once

// The life of a job, one image through inference, postprocessing and storage; and of a session, which holds requests
// together (§1.4).

#include <boost/describe.hpp>

#include "base/transition_table.h"

namespace lockstep::processing {

/// queued          waits for a worker with its model    generated   pixels exist, waits for postprocessing
/// inferring       a worker runs the model              storing     the encoded image is being written
/// postprocessing  a worker runs the pipeline           completed · failed · set_aside (poisonous): ends
enum class JobStage { queued, inferring, generated, postprocessing, storing, completed, failed, set_aside };
BOOST_DESCRIBE_ENUM(JobStage, queued, inferring, generated, postprocessing, storing, completed, failed, set_aside)

enum class JobEvent {
  inference_dispatched,
  inference_completed,
  postprocessing_dispatched,
  postprocessing_completed,  // with an image to store
  verdict_only,              // completed without an image: a check
  stored,
  worker_lost,
  pixels_lost,  // the pixels lived in a process that is gone
  failed,
  poisonous,
  rolled_back,  // another image of its request failed a gate, and what was delivered goes too
};
BOOST_DESCRIBE_ENUM(JobEvent, inference_dispatched, inference_completed, postprocessing_dispatched,
                    postprocessing_completed, verdict_only, stored, worker_lost, pixels_lost, failed, poisonous,
                    rolled_back)

inline constexpr auto job_lifecycle = transition_table<JobStage, JobEvent>({
    {JobStage::queued, JobEvent::inference_dispatched, JobStage::inferring},
    {JobStage::inferring, JobEvent::inference_completed, JobStage::generated},
    {JobStage::generated, JobEvent::postprocessing_dispatched, JobStage::postprocessing},
    {JobStage::postprocessing, JobEvent::postprocessing_completed, JobStage::storing},
    {JobStage::postprocessing, JobEvent::verdict_only, JobStage::completed},
    {JobStage::storing, JobEvent::stored, JobStage::completed},
    // A worker that dies takes nothing with it but its own run: the pixels are the orchestrator's.
    {JobStage::inferring, JobEvent::worker_lost, JobStage::queued},
    {JobStage::postprocessing, JobEvent::worker_lost, JobStage::generated},
    // A load for the job died with its worker: the job itself was not running.
    {JobStage::queued, JobEvent::worker_lost, JobStage::queued},
    {JobStage::generated, JobEvent::worker_lost, JobStage::generated},
    // The orchestrator itself restarted: pixels it held in memory are gone.
    {JobStage::inferring, JobEvent::pixels_lost, JobStage::queued},
    {JobStage::generated, JobEvent::pixels_lost, JobStage::queued},
    {JobStage::postprocessing, JobEvent::pixels_lost, JobStage::queued},
    {JobStage::storing, JobEvent::pixels_lost, JobStage::queued},
    {JobStage::queued, JobEvent::failed, JobStage::failed},
    {JobStage::inferring, JobEvent::failed, JobStage::failed},
    {JobStage::generated, JobEvent::failed, JobStage::failed},
    {JobStage::postprocessing, JobEvent::failed, JobStage::failed},
    {JobStage::storing, JobEvent::failed, JobStage::failed},
    {JobStage::queued, JobEvent::poisonous, JobStage::set_aside},
    {JobStage::inferring, JobEvent::poisonous, JobStage::set_aside},
    {JobStage::generated, JobEvent::poisonous, JobStage::set_aside},
    {JobStage::postprocessing, JobEvent::poisonous, JobStage::set_aside},
    {JobStage::completed, JobEvent::rolled_back, JobStage::failed},
});
static_assert(job_lifecycle.deterministic());

/// created     accepted, its prerequisites have not all completed     completing  takes no request, ends its own
/// active      its operations start as workers are free               completed · failed · cancelled · expired: ends
/// paused      no operation of it starts; what runs, finishes
enum class SessionState { created, active, paused, completing, completed, failed, cancelled, expired };
BOOST_DESCRIBE_ENUM(SessionState, created, active, paused, completing, completed, failed, cancelled, expired)

enum class SessionEvent {
  prerequisites_completed,
  prerequisite_ended,  // without completing
  pause,
  resume,
  complete,  // nothing more is coming
  operations_completed,
  operation_failed,  // the session has ended its work, and not all of it was done
  cancel,
  session_timeout,
};
BOOST_DESCRIBE_ENUM(SessionEvent, prerequisites_completed, prerequisite_ended, pause, resume, complete,
                    operations_completed, operation_failed, cancel, session_timeout)

inline constexpr auto session_lifecycle = transition_table<SessionState, SessionEvent>({
    {SessionState::created, SessionEvent::prerequisites_completed, SessionState::active},
    {SessionState::created, SessionEvent::prerequisite_ended, SessionState::failed},
    {SessionState::created, SessionEvent::cancel, SessionState::cancelled},
    {SessionState::active, SessionEvent::pause, SessionState::paused},
    {SessionState::active, SessionEvent::complete, SessionState::completing},
    {SessionState::active, SessionEvent::cancel, SessionState::cancelled},
    {SessionState::active, SessionEvent::session_timeout, SessionState::expired},
    {SessionState::paused, SessionEvent::resume, SessionState::active},
    {SessionState::paused, SessionEvent::cancel, SessionState::cancelled},
    {SessionState::paused, SessionEvent::session_timeout, SessionState::expired},  // a pause stops no clock
    {SessionState::completing, SessionEvent::operations_completed, SessionState::completed},
    {SessionState::completing, SessionEvent::operation_failed, SessionState::failed},
    {SessionState::completing, SessionEvent::cancel, SessionState::cancelled},
    {SessionState::completing, SessionEvent::session_timeout, SessionState::expired},
});
static_assert(session_lifecycle.deterministic());

constexpr bool is_terminal(SessionState state) {
  return state == SessionState::completed || state == SessionState::failed || state == SessionState::cancelled ||
         state == SessionState::expired;
}

constexpr bool is_terminal(JobStage stage) {
  return stage == JobStage::completed || stage == JobStage::failed || stage == JobStage::set_aside;
}

}  // namespace lockstep::processing
