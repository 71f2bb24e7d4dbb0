#include "operations/requests.h"

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

namespace {

RequestAnswer answer_to(const OpenRequest& request, RequestOutcome outcome) {
  RequestAnswer answer;
  answer.request_type = request.request_type;
  answer.request_id = request.request_id;
  answer.outcome = outcome;
  return answer;
}

/// Room for one more answered request of this worker.
void forget_oldest(const RequestTables& tables, const OpenRequest& newest, Change& change) {
  std::size_t answered = 0;
  const OpenRequest* oldest = nullptr;
  for (const auto& [key, entry] : tables.requests.entries()) {
    const OpenRequest& row = entry.row;
    if (row.worker_id != newest.worker_id || !is_final(row.answer.outcome) || key == request_key(newest)) continue;
    ++answered;
    if (oldest == nullptr || row.asked < oldest->asked) oldest = &row;
  }
  if (answered >= answers_kept) change.erase(tables.requests, request_key(*oldest));
}

}  // namespace

std::string request_key(const WorkerId& worker, std::string_view request_type, std::string_view request_id) {
  return cat(worker.str(), "/", request_type, "/", request_id);
}

std::string request_key(const OpenRequest& request) {
  return request_key(request.worker_id, request.request_type, request.request_id);
}

RequestArrival arrival_of(const RequestTables& tables, const OpenRequest& request) {
  const OpenRequest* known = tables.requests.find(request_key(request));
  // An earlier incarnation's requests went with it; a row that is left is this one's.
  if (known == nullptr) return RequestArrival::fresh;
  return known->fingerprint == request.fingerprint ? RequestArrival::repeated : RequestArrival::conflicting;
}

void put_answer(const RequestTables& tables, OpenRequest request, RequestAnswer answer, Change& change) {
  const OpenRequest* known = tables.requests.find(request_key(request));
  LOCKSTEP_CHECK(known == nullptr || !is_final(known->answer.outcome));
  LOCKSTEP_CHECK(answer.request_type == request.request_type && answer.request_id == request.request_id);
  request.answer = std::move(answer);
  if (is_final(request.answer.outcome)) forget_oldest(tables, request, change);
  change.put(tables.requests, request_key(request), request);
}

bool may_start_dependents(const RequestTables& tables, const std::string& key) {
  const OpenRequest* known = tables.requests.find(key);
  return known != nullptr && known->answer.outcome == RequestOutcome::granted;
}

std::vector<OpenRequest> open_requests(const RequestTables& tables, const WorkerId& worker) {
  std::vector<OpenRequest> out;
  for (const auto& [key, entry] : tables.requests.entries()) {
    if (is_final(entry.row.answer.outcome)) continue;
    if (worker.empty() || entry.row.worker_id == worker) out.push_back(entry.row);
  }
  return out;
}

void close_requests(const RequestTables& tables, const WorkerId& worker, Change& change) {
  for (const auto& [key, entry] : tables.requests.entries()) {
    if (entry.row.worker_id == worker) change.erase(tables.requests, key);
  }
}

RequestAnswer granted(const OpenRequest& request, std::optional<GrantedReservation> reservation) {
  RequestAnswer answer = answer_to(request, RequestOutcome::granted);
  answer.reservation = std::move(reservation);
  return answer;
}

RequestAnswer queued(const OpenRequest& request, std::optional<WallTime> estimated_start, std::string reason) {
  RequestAnswer answer = answer_to(request, RequestOutcome::queued);
  if (estimated_start) answer.estimated_start = Timestamp::of(*estimated_start);
  if (!reason.empty()) answer.reason = std::move(reason);
  return answer;
}

RequestAnswer denied(const OpenRequest& request, std::string reason) {
  RequestAnswer answer = answer_to(request, RequestOutcome::denied);
  answer.reason = std::move(reason);
  return answer;
}

}  // namespace lockstep
