#pragma once

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

}  // namespace lockstep::processing
