#include "orchestrator/requests.h"

#include <algorithm>

#include "base/text.h"
#include "events/json_read.h"
#include "events/processing_events.h"

namespace lockstep {

namespace {

std::string timer_of(const OpenRequest& request) { return cat("request:", request_key(request)); }

void tell(Turn& turn, const OpenRequest& request, const RequestAnswer& answer) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(request.worker_id.str());
  if (worker == nullptr || worker->incarnation != request.incarnation || worker->state == WorkerState::gone) return;
  send(turn, *worker, FrameType::request_answer, answer, Operation{request.request_id, 0, {}});
}

/// The session that it is about; none, where it is about none or was not worth keeping.
std::optional<std::string> session_of(const OpenRequest& request) {
  if (request.request_type != CrossDomainCoordination::event_type) return std::nullopt;
  const auto asked = json::from_text<CrossDomainCoordination>(request.body.text);
  return asked ? std::optional(asked->session_id) : std::nullopt;
}

}  // namespace

std::optional<OpenRequest> take_request(Turn& turn, const WorkerRecord& worker, std::string_view request_type,
                                        std::string request_id, const std::string& body, Nanos within) {
  OpenRequest request;
  request.worker_id = worker.worker_id;
  request.incarnation = worker.incarnation;
  request.request_type = request_type;
  request.request_id = std::move(request_id);
  request.fingerprint = sha256_hex(body);
  request.body.text = body;
  request.answer_within = within;
  request.asked = turn.wall;
  switch (arrival_of(turn.tables.requests, request)) {
    case RequestArrival::fresh: return request;
    case RequestArrival::repeated:
      tell(turn, request, turn.tables.requests.requests.at(request_key(request)).answer);
      return std::nullopt;
    case RequestArrival::conflicting: {
      RequestAnswer no = denied(request, cat("request_id ", shortened(request.request_id),
                                             " is taken by another request of this worker; choose another"));
      no.conflict = true;
      tell(turn, request, no);
      return std::nullopt;
    }
  }
  return std::nullopt;
}

void answer_request(Turn& turn, const OpenRequest& request, RequestAnswer answer) {
  const bool first = !turn.tables.requests.requests.contains(request_key(request));
  const bool final = is_final(answer.outcome);
  put_answer(turn.tables.requests, request, answer, turn.change);
  turn.change.event("request_answered", request.worker_id.str(), answer, session_of(request));
  tell(turn, request, answer);
  if (!final && first) turn.effect(out::ArmTimer{timer_of(request), turn.now + request.answer_within});
  if (final && !first) turn.effect(out::DisarmTimer{timer_of(request)});
}

void request_timed_out(Turn& turn, const std::string& key) {
  const OpenRequest* request = turn.tables.requests.requests.find(key);
  if (request == nullptr || is_final(request->answer.outcome)) return;
  const std::string reason = request->answer.reason.value_or("");
  answer_request(turn, *request,
                 denied(*request, cat("its limit of ", request->answer_within / milliseconds(1), " ms has passed",
                                      reason.empty() ? "" : cat("; it waited because ", reason))));
}

Nanos time_left(const Turn& turn, WallTime until, Nanos limit) {
  const std::int64_t most = limit / milliseconds(1);
  return milliseconds(std::clamp<std::int64_t>(until.ms - turn.wall.ms, 0, most));
}

void rearm_requests(Turn& turn) {
  for (const OpenRequest& request : open_requests(turn.tables.requests)) {
    const WallTime until{request.asked.ms + request.answer_within / milliseconds(1)};
    const Nanos left = time_left(turn, until, request.answer_within);
    if (left == 0) {
      // Now, and not by a timer: before that it could be granted.
      request_timed_out(turn, request_key(request));
    } else {
      turn.effect(out::ArmTimer{timer_of(request), turn.now + left});
    }
  }
}

void requester_gone(Turn& turn, const WorkerId& worker) {
  for (const OpenRequest& request : open_requests(turn.tables.requests, worker)) {
    turn.effect(out::DisarmTimer{timer_of(request)});
  }
  close_requests(turn.tables.requests, worker, turn.change);
}

}  // namespace lockstep
