#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "domains/processing/tables.h"

namespace lockstep::processing {

inline constexpr std::uint32_t deaths_max = 3;         // the third death on one job sets it aside
inline constexpr std::uint32_t load_failures_max = 3;  // then the job fails with the load's reason

/// An error in the words that a job or request keeps.
Failure failure_of(const Error& error);

/// The job after an event; an event its stage does not accept is a defect.
Job after(Job job, JobEvent event);

/// The job back after its worker died, one attempt later, or set aside with the reason.
Job after_worker_death(Job job, const WorkerId& worker, const std::string& how);

/// The jobs of a request in image order.
std::vector<Job> jobs_of(const Tables& tables, const RequestId& request);

/// The request's end when all its jobs have ended, with `changed` standing for its row in the table: completed, or
/// failed with the first failed job's reason. An unchanged request otherwise.
Request settled(const Tables& tables, Request request, const Job& changed, WallTime now);

/// Jobs that have not ended; what a full queue counts.
std::size_t open_jobs(const Tables& tables);

JobId job_id(const RequestId& request, std::uint32_t index);

// ---- sessions (§1.4, §2.4) ----------------------------------------------------------------------------------------

inline constexpr std::size_t session_requests_max = 1000;

/// The session after an event; invalid_transition names the session, its state and the event.
Result<Session> after(Session session, SessionEvent event);

/// Every limit of it readable and above zero, every prerequisite known. invalid_argument or not_found name the field.
/// A session can only depend on sessions that exist before it, so that no cycle can arise.
Status validate(const Tables& tables, const Session& session);

/// Where its prerequisites stand: all completed, one ended otherwise (its id), or neither yet.
struct Prerequisites {
  bool completed = false;
  std::string ended;  // the first that ended without completing
};
Prerequisites prerequisites_of(const Tables& tables, const Session& session);

/// Operations of a session, each an inference, one operation of a pipeline, or the storing of an image.
struct OperationCount {
  std::uint32_t done = 0;
  std::uint32_t known = 0;  // done, running or waiting
  std::uint32_t open_requests = 0;
  std::optional<Failure> failed;  // of the first request that failed
};
OperationCount count_operations(const Tables& tables, const Session& session);

/// Whether an operation of a job may start: its session, if it has one, is active or completing.
bool may_start(const Tables& tables, const Request& request);

/// Of its session; a request without one is interactive.
SessionClass class_of(const Tables& tables, const Request& request);

/// The session of the job's request; none, where it has none, or where there is no such job.
std::optional<std::string> session_of(const Tables& tables, const JobId& job);

/// "memory_usage_below_80_percent" as 80; invalid_argument when it is another sentence or above 100.
Result<Percent> read_resume_condition(const std::string& text);

/// The rank of a request in the queue, the lower the sooner; a request without a session is interactive and normal.
int queue_rank(const Tables& tables, const Request& request);

}  // namespace lockstep::processing
