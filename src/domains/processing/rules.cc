#include "domains/processing/rules.h"

#include <algorithm>

#include "base/text.h"

namespace lockstep::processing {

Failure failure_of(const Error& error) { return {std::string(error_facts(error.code).name), error.message}; }

Job after(Job job, JobEvent event) {
  const auto next = job_lifecycle.next(job.stage, event);
  LOCKSTEP_CHECK(next.has_value());
  job.stage = *next;
  const bool running = job.stage == JobStage::inferring || job.stage == JobStage::postprocessing;
  if (!running) job.worker_id = {};
  return job;
}

Job after_worker_death(Job job, const WorkerId& worker, const std::string& how) {
  ++job.deaths;
  if (job.deaths >= deaths_max) {
    job = after(std::move(job), JobEvent::poisonous);
    job.failure = Failure{"poisonous", cat("set aside after ", job.deaths, " workers died on it; the last was ",
                                           worker.str(), ": ", how)};
    return job;
  }
  return after(std::move(job), JobEvent::worker_lost);
}

std::vector<Job> jobs_of(const Tables& tables, const RequestId& request) {
  std::vector<Job> out;
  const std::string prefix = cat(request.str(), "/");
  for (auto at = tables.jobs.entries().lower_bound(prefix);
       at != tables.jobs.entries().end() && at->first.starts_with(prefix); ++at) {
    out.push_back(at->second.row);
  }
  return out;
}

Request settled(const Tables& tables, Request request, const Job& changed, WallTime now) {
  std::vector<Job> jobs = jobs_of(tables, request.request_id);
  const auto place = std::ranges::find(jobs, changed.job_id, &Job::job_id);
  LOCKSTEP_CHECK(place != jobs.end());
  *place = changed;
  if (!std::ranges::all_of(jobs, [](const Job& job) { return is_terminal(job.stage); })) return request;
  const auto bad = std::ranges::find_if(jobs, [](const Job& job) { return job.stage != JobStage::completed; });
  request.finished = now;
  request.state = bad == jobs.end() ? RequestState::completed : RequestState::failed;
  if (bad != jobs.end()) request.failure = bad->failure;
  return request;
}

std::size_t open_jobs(const Tables& tables) {
  return static_cast<std::size_t>(std::ranges::count_if(
      tables.jobs.entries(), [](const auto& each) { return !is_terminal(each.second.row.stage); }));
}

JobId job_id(const RequestId& request, std::uint32_t index) {
  LOCKSTEP_CHECK(index < 100);
  return JobId(cat(request.str(), "/", index < 10 ? "0" : "", index));
}

}  // namespace lockstep::processing
