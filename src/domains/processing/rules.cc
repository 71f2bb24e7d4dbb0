#include "domains/processing/rules.h"

#include <algorithm>
#include <charconv>

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

namespace {

template <class Read>
Status validate_limit(std::string_view field, const std::string& text, const Read& read) {
  const std::string pointer = cat("/", field);
  if (!read) return fail(read.error().code, cat(field, ": ", read.error().message), pointer);
  return fail(ErrorCode::invalid_argument, cat(field, " is \"", shortened(text), "\"; it must be above zero"), pointer);
}

Status validate_duration(std::string_view field, const std::optional<DurationText>& limit) {
  if (!limit) return {};
  const auto nanos = limit->nanos();
  if (nanos && *nanos > 0) return {};
  return validate_limit(field, limit->text, nanos);
}

}  // namespace

Result<Session> after(Session session, SessionEvent event) {
  const auto next = session_lifecycle.next(session.state, event);
  if (!next) {
    return fail(ErrorCode::invalid_transition,
                cat("session ", session.session_id, " is ", json::enum_name(session.state), "; it does not accept ",
                    json::enum_name(event)));
  }
  session.state = *next;
  return session;
}

Status validate(const Tables& tables, const Session& session) {
  if (session.max_memory) {
    const auto bytes = session.max_memory->bytes();
    if (!bytes || bytes->value == 0) return validate_limit("max_memory", session.max_memory->text, bytes);
  }
  LOCKSTEP_TRY_STATUS(validate_duration("operation_timeout", session.operation_timeout));
  LOCKSTEP_TRY_STATUS(validate_duration("session_timeout", session.session_timeout));
  if (session.expected_operations && *session.expected_operations == 0) {
    return fail(ErrorCode::invalid_argument, "expected_operations is 0; it must be at least 1", "/expected_operations");
  }
  for (std::size_t i = 0; i < session.depends_on.size(); ++i) {
    if (tables.sessions.contains(session.depends_on[i])) continue;
    return fail(ErrorCode::not_found, cat("there is no session ", shortened(session.depends_on[i]), " to depend on"),
                cat("/depends_on/", i));
  }
  return {};
}

Prerequisites prerequisites_of(const Tables& tables, const Session& session) {
  Prerequisites out{true, {}};
  for (const std::string& id : session.depends_on) {
    const SessionState state = tables.sessions.at(id).state;
    if (state == SessionState::completed) continue;
    out.completed = false;
    if (is_terminal(state) && out.ended.empty()) out.ended = id;
  }
  return out;
}

OperationCount count_operations(const Tables& tables, const Session& session) {
  OperationCount out;
  for (const RequestId& id : session.requests) {
    const Request& request = tables.requests.at(id.str());
    const auto pipeline = static_cast<std::uint32_t>(request.pipeline.size());
    if (request.state == RequestState::accepted) ++out.open_requests;
    if (request.state == RequestState::failed && !out.failed) out.failed = request.failure;
    for (const Job& job : jobs_of(tables, id)) {
      out.known += pipeline + 2;
      const bool past_inference = job.stage == JobStage::generated || job.stage == JobStage::postprocessing;
      if (past_inference) out.done += 1;
      if (job.stage == JobStage::storing) out.done += 1 + pipeline;
      if (job.stage == JobStage::completed) out.done += pipeline + 2;
    }
  }
  return out;
}

bool may_start(const Tables& tables, const Request& request) {
  if (!request.session_id) return true;
  const SessionState state = tables.sessions.at(*request.session_id).state;
  return state == SessionState::active || state == SessionState::completing;
}

SessionClass class_of(const Tables& tables, const Request& request) {
  return request.session_id ? tables.sessions.at(*request.session_id).session_class : SessionClass::interactive;
}

std::optional<std::string> session_of(const Tables& tables, const JobId& job) {
  const Job* row = tables.jobs.find(job.str());
  return row == nullptr ? std::nullopt : tables.requests.at(row->request_id.str()).session_id;
}

Result<Percent> read_resume_condition(const std::string& text) {
  constexpr std::string_view before = "memory_usage_below_";
  constexpr std::string_view behind = "_percent";
  if (text.starts_with(before) && text.ends_with(behind) && text.size() > before.size() + behind.size()) {
    const char* const from = text.data() + before.size();
    const char* const to = text.data() + text.size() - behind.size();
    unsigned percent = 0;
    const auto read = std::from_chars(from, to, percent);
    if (read.ec == std::errc{} && read.ptr == to && percent >= 1 && percent <= 100) return Percent{double(percent)};
  }
  return fail(
      ErrorCode::invalid_argument,
      cat("resume_condition is \"", shortened(text), "\"; it must be memory_usage_below_N_percent, N from 1 to 100"),
      "/resume_condition");
}

int queue_rank(const Tables& tables, const Request& request) {
  Session plain;
  const Session& session = request.session_id ? tables.sessions.at(*request.session_id) : plain;
  return 4 * static_cast<int>(session.session_class) + static_cast<int>(session.priority);
}

}  // namespace lockstep::processing
