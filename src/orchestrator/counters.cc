#include "orchestrator/counters.h"

#include "events/json_write.h"

namespace lockstep {

namespace {

using processing::JobStage;

bool forward(JobStage from, JobStage to) {
  return to > from && (!processing::is_terminal(to) || to == JobStage::completed);
}

}  // namespace

std::string_view death_cause(std::string_view how, bool ours, bool ended_for_a_reason) {
  if (ours) return "requested";
  if (ended_for_a_reason) return "ended";
  if (how.starts_with("signal ")) return "signal";
  if (how.starts_with("exit status ")) return "exit";
  if (how.starts_with("it could not be started")) return "not_started";
  return "other";
}

CommitCount::CommitCount(const Tables& before, const Commit& commit) {
  for (const FactChange& fact : commit.changes) {
    if (fact.table == before.processing.jobs.name()) {
      const auto* row = before.processing.jobs.find(fact.key);
      jobs_.emplace(fact.key, row == nullptr ? std::nullopt : std::optional(row->stage));
    } else if (fact.table == before.processing.requests.name()) {
      const auto* row = before.processing.requests.find(fact.key);
      requests_.emplace(fact.key, row == nullptr ? std::nullopt : std::optional(row->state));
    } else if (fact.table == before.model.residencies.name()) {
      const auto* row = before.model.residencies.find(fact.key);
      residencies_.emplace(fact.key, row == nullptr ? std::nullopt : std::optional(row->state));
    } else if (fact.table == before.liveness.workers.name()) {
      const auto* row = before.liveness.workers.find(fact.key);
      workers_.emplace(fact.key, row == nullptr ? Incarnation{} : row->incarnation);
    } else if (fact.table == before.transactions.decisions.name()) {
      decisions_ += fact.value && !before.transactions.decisions.contains(fact.key) ? 1 : 0;
    }
  }
}

void CommitCount::applied(const Tables& after, std::optional<Nanos> now, Counters& counters) const {
  for (const auto& [key, before] : jobs_) {
    const processing::Job* job = after.processing.jobs.find(key);
    if (before) --counters.jobs[*before];
    if (job != nullptr) ++counters.jobs[job->stage];
    if (job == nullptr || !now || before == job->stage) continue;
    const auto entered = counters.stage_entered.find(job->job_id);
    if (before && entered != counters.stage_entered.end() && forward(*before, job->stage)) {
      counters.stage_seconds[*before].observe(*now - entered->second);
    }
    if (!before) counters.job_accepted[job->job_id] = *now;
    if (!processing::is_terminal(job->stage)) {
      counters.stage_entered[job->job_id] = *now;
      continue;
    }
    ++counters.jobs_ended[job->stage];
    counters.stage_entered.erase(job->job_id);
    const auto accepted = counters.job_accepted.extract(job->job_id);
    if (accepted && job->stage == JobStage::completed) counters.job_seconds.observe(*now - accepted.mapped());
  }
  if (!now) return;
  for (const auto& [key, before] : requests_) {
    const processing::Request* request = after.processing.requests.find(key);
    if (request == nullptr || before == request->state) continue;
    if (!before) ++counters.requests_accepted[json::enum_name(request->kind)];
    if (request->state != processing::RequestState::accepted)
      ++counters.requests_ended[json::enum_name(request->state)];
  }
  for (const auto& [key, before] : residencies_) {
    const model::Residency* held = after.model.residencies.find(key);
    if (held != nullptr && held->state == model::ResidencyState::loading) {
      counters.load_decided[key] = *now;
    } else if (held != nullptr && held->state == model::ResidencyState::loaded) {
      if (const auto decided = counters.load_decided.extract(key)) {
        counters.load_seconds.observe(*now - decided.mapped());
      }
    } else if (held == nullptr && before) {
      counters.load_decided.erase(key);
      ++(*before == model::ResidencyState::loading ? counters.loads_failed : counters.releases);
    }
  }
  for (const auto& [key, before] : workers_) {
    const WorkerRecord* worker = after.liveness.workers.find(key);
    if (worker != nullptr && worker->incarnation > before) ++counters.worker_starts[worker->worker_id];
  }
  counters.transactions_committed += decisions_;
}

}  // namespace lockstep
