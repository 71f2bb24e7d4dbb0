// What people ask for: images, checks, views, cancellation; and the answers that are due.

#include <algorithm>

#include "base/text.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/accept.h"
#include "operations/views.h"
#include "operations/workflow.h"
#include "orchestrator/admission.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_calibration.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_key.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_session.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/on_tuning.h"
#include "orchestrator/starts.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

struct ErrorBody {
  std::string message;
  std::string type;
  std::optional<std::string> param;
  std::string code;
};
BOOST_DESCRIBE_STRUCT(ErrorBody, (), (message, type, param, code))

struct ErrorEnvelope {
  ErrorBody error;
};
BOOST_DESCRIBE_STRUCT(ErrorEnvelope, (), (error))

struct Accepted {
  RequestId request_id;
  std::string state;
};
BOOST_DESCRIBE_STRUCT(Accepted, (), (request_id, state))

struct Readiness {
  bool ready = false;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(Readiness, (), (ready, reason))

struct ServedModel {
  std::string id;
  std::string object = "model";
  std::int64_t created = 0;
  std::string owned_by = "local";
};
BOOST_DESCRIBE_STRUCT(ServedModel, (), (id, object, created, owned_by))

struct ServedModels {
  std::string object = "list";
  std::vector<ServedModel> data;
};
BOOST_DESCRIBE_STRUCT(ServedModels, (), (object, data))

void reply_json(Turn& turn, ReplyId reply, int status, std::string body) {
  turn.effect(out::Reply{reply, status, std::move(body)});
}

/// Empty when images can be made now.
std::string not_ready_because(const Turn& turn) {
  if (turn.live.stopping) return "the server is stopping";
  if (!turn.live.scanned) return "the models are being read";
  const auto& workers = turn.tables.liveness.workers.entries();
  const bool any_ready =
      std::ranges::any_of(workers, [](const auto& each) { return each.second.row.state == WorkerState::ready; });
  if (any_ready) return "";
  const std::string nobody = nobody_works_because(turn);
  return nobody.empty() ? "no worker is ready yet" : nobody;
}

DeviceView device_view(const Turn& turn, const device::Device& device) {
  DeviceView view = view_of(turn.tables, device);
  const auto live = turn.live.workers.find(device.worker_id);
  if (live == turn.live.workers.end()) return view;
  if (live->second.health) {
    view.health = live->second.health->health_metrics;
    view.diagnostics = live->second.health->diagnostics;
  }
  if (live->second.memory) view.reported_memory = live->second.memory->vram_metrics;
  view.calibration = calibration_state(turn, device);
  return view;
}

StatusView status_view(const Turn& turn) {
  StatusView view;
  const Identity& self = turn.tables.identity.at("self");
  view.version = self.version;
  view.cluster_id = self.cluster_id;
  view.epoch = self.epoch;
  view.rev = turn.live.rev;
  view.not_ready_because = not_ready_because(turn);
  view.ready = view.not_ready_because.empty();
  view.queue.open = turn.live.open_jobs.size();
  view.queue.running = static_cast<std::size_t>(std::ranges::count_if(turn.live.open_jobs, [&](const JobId& id) {
    return !turn.tables.processing.jobs.at(id.str()).worker_id.empty();
  }));
  view.queue.queued = view.queue.open - view.queue.running;
  view.cache_limit = cache_limit(turn);
  if (turn.live.data_disk) view.disk_free = turn.live.data_disk->free;
  for (const auto& [key, segment] : turn.live.segments) view.cache_used += segment.size;
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    view.workers.push_back(worker_view(turn, entry.row));
  }
  for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
    view.devices.push_back(device_view(turn, entry.row));
  }
  for (const auto& [key, entry] : turn.tables.model.models.entries()) {
    view.models.push_back(model_view(turn, entry.row));
  }
  return view;
}

RequestView request_view(const Turn& turn, const processing::Request& request) {
  RequestView view = view_of(turn.tables, request);
  for (JobView& job : view.jobs) {
    job.waits_for = waits_for(turn, turn.tables.processing.jobs.at(job.job_id.str()));
    const auto progress = turn.live.progress.find(job.job_id);
    if (progress == turn.live.progress.end()) continue;
    job.doing = progress->second.what;
    job.percent = progress->second.percent;
  }
  return view;
}

void refuse(Turn& turn, ReplyId reply, const Error& error) {
  ++turn.live.counters.requests_refused[std::string(error_facts(error.code).name)];
  reply_error(turn, reply, error);
}

/// Accepts what was read, and answers now or remembers who waits.
void take_in(Turn& turn, ReplyId reply, bool wait, bool as_url, Result<processing::Request> request) {
  if (turn.live.stopping) {
    return refuse(turn, reply, fail(ErrorCode::unavailable, "the server is stopping; try again after its restart"));
  }
  if (!request) return refuse(turn, reply, request.error());
  // What is accepted waits as long as it must; a new client learns now that nobody would do its work.
  if (const std::string why = nothing_new_because(turn); !why.empty()) {
    return refuse(turn, reply, fail(ErrorCode::unavailable, why));
  }
  for (const auto stage : {processing::JobStage::queued, processing::JobStage::generated}) {
    if (const Status room = session_has_room(turn, *request, stage); !room) return refuse(turn, reply, room.error());
  }
  accept(turn.tables, *request, turn.wall, turn.change);
  if (wait) {
    turn.live.waiting.emplace(request->request_id, Waiting{reply, as_url});
  } else {
    reply_json(turn, reply, 202, json::to_text(Accepted{request->request_id, "accepted"}));
  }
}

}  // namespace

void reply_error(Turn& turn, ReplyId reply, const Error& error, bool again) {
  const ErrorFacts facts = error_facts(error.code);
  ErrorEnvelope body{{error.message, facts.http_status < 500 ? "invalid_request_error" : "server_error", std::nullopt,
                      std::string(facts.name)}};
  if (error.pointer.size() > 1) body.error.param = error.pointer.substr(1);
  turn.effect(out::Reply{reply, facts.http_status, json::to_text(body), "", again});
}

void on_generate(Turn& turn, const in::Generate& input) {
  if (!turn.live.scanned) {
    return refuse(turn, input.reply, fail(ErrorCode::unavailable, "the models are being read; try again shortly"));
  }
  const RequestId id = request_id(turn.live.epoch, ++turn.live.requests_made);
  take_in(turn, input.reply, input.wait, input.body.response_format.value_or("url") == "url",
          read_generation(turn.tables, turn.settings.accept, input.body, id, input.seed));
}

void on_check(Turn& turn, const in::Check& input) {
  const RequestId id = request_id(turn.live.epoch, ++turn.live.requests_made);
  take_in(turn, input.reply, input.wait, false, read_check(turn.tables, turn.settings.accept, input.source, id));
}

void on_view(Turn& turn, const in::View& input) {
  const auto ok = [&](const auto& view) { reply_json(turn, input.reply, 200, json::to_text(view)); };
  constexpr std::string_view one_request = "requests/";
  constexpr std::string_view one_worker = "workers/";
  constexpr std::string_view one_model = "models/";
  constexpr std::string_view one_device = "devices/";
  if (input.path == "status") return ok(status_view(turn));
  if (input.path == "requests") return ok(requests_view(turn.tables, turn.live.rev));
  if (input.path == "readyz") {
    const std::string reason = not_ready_because(turn);
    return reply_json(turn, input.reply, reason.empty() ? 200 : 503, json::to_text(Readiness{reason.empty(), reason}));
  }
  if (input.path == "sessions" || input.path.starts_with("sessions/")) {
    const auto text = sessions_view(turn, input.path);
    return text ? reply_json(turn, input.reply, 200, *text) : reply_error(turn, input.reply, text.error());
  }
  if (input.path.starts_with("workflows") || input.path == "policies/safety") {
    const auto text = content_view(turn, input.path);
    return text ? reply_json(turn, input.reply, 200, *text) : reply_error(turn, input.reply, text.error());
  }
  if (input.path == "devices") {
    DevicesView view{turn.live.rev, {}};
    for (const auto& [key, entry] : turn.tables.device.devices.entries()) {
      view.devices.push_back(device_view(turn, entry.row));
    }
    return ok(view);
  }
  if (input.path.starts_with(one_device) && !input.path.ends_with("/config")) {
    const std::string id = input.path.substr(one_device.size());
    if (const auto* device = turn.tables.device.devices.find(id)) return ok(device_view(turn, *device));
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no device ", shortened(id))));
  }
  if (input.path == "models") {
    ModelsView view{turn.live.rev, {}};
    for (const auto& [key, entry] : turn.tables.model.models.entries()) {
      view.models.push_back(model_view(turn, entry.row));
    }
    return ok(view);
  }
  if (input.path == "workers") {
    WorkersView view{turn.live.rev, {}};
    for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
      view.workers.push_back(worker_view(turn, entry.row));
    }
    return ok(view);
  }
  if (input.path.starts_with(one_worker)) {
    const std::string id = input.path.substr(one_worker.size());
    if (const auto* worker = turn.tables.liveness.workers.find(id)) return ok(worker_view(turn, *worker));
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no worker ", shortened(id))));
  }
  if (const auto text = tuning_view_text(turn, input.path)) return reply_json(turn, input.reply, 200, *text);
  if (input.path.starts_with(one_model)) {
    const std::string id = input.path.substr(one_model.size());
    if (const auto* model = turn.tables.model.models.find(id)) return ok(model_view(turn, *model));
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no model ", shortened(id))));
  }
  if (input.path == "v1/models") {
    ServedModels view;
    for (const auto& [key, entry] : turn.tables.model.models.entries()) {
      if (model::usable(turn.tables.model, entry.row.model_id)) view.data.push_back({.id = key});
    }
    return ok(view);
  }
  if (input.path.starts_with(one_request)) {
    const std::string id = input.path.substr(one_request.size());
    if (const auto* request = turn.tables.processing.requests.find(id)) return ok(request_view(turn, *request));
    return reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no request ", shortened(id))));
  }
  for (const auto& text : {device_view_text(turn, input.path), memory_view_text(turn, input.path),
                           propagation_view_text(turn, input.path), load_queue_text(turn, input.path),
                           transaction_view_text(turn, input.path)}) {
    if (text) return reply_json(turn, input.reply, 200, *text);
  }
  reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("there is no ", shortened(input.path))));
}

void on_cancel(Turn& turn, const in::Cancel& input) {
  const auto* request = turn.tables.processing.requests.find(input.request_id.str());
  if (request == nullptr) {
    return reply_error(turn, input.reply,
                       fail(ErrorCode::not_found, cat("there is no request ", shortened(input.request_id.str()))));
  }
  if (request->state != processing::RequestState::accepted) {
    return reply_error(turn, input.reply,
                       fail(ErrorCode::invalid_transition,
                            cat("request ", input.request_id.str(), " has ended: ", json::enum_name(request->state))));
  }
  end_request(turn, *request, processing::Failure{"cancelled", "it was cancelled"});
  reply_json(turn, input.reply, 200, json::to_text(Accepted{request->request_id, "cancelled"}));
}

void on_reply_gone(Turn& turn, const in::ReplyGone& input) {
  forget_key(turn, input.reply);
  std::erase_if(turn.live.waiting, [&](const auto& each) { return each.second.reply == input.reply; });
  for (auto& [id, order] : turn.live.orders) {
    if (order.reply == input.reply) order.reply.reset();
  }
  for (auto& [id, calibration] : turn.live.calibrations) std::erase(calibration.replies, input.reply);
  for (auto& [id, verification] : turn.live.verifying) {
    for (auto& reply : verification.replies) {
      if (reply == input.reply) reply.reset();
    }
  }
}

void reply_end(Turn& turn, ReplyId reply, const processing::Request& request, bool as_url, bool again) {
  if (request.state == processing::RequestState::failed) {
    const processing::Failure failure = request.failure.value_or(processing::Failure{"internal", "it failed"});
    return reply_error(turn, reply, fail(error_code_named(failure.code), failure.message), again);
  }
  if (request.kind == processing::RequestKind::check) {
    turn.effect(out::Reply{reply, 200, json::to_text(view_of(turn.tables, request)), "", again});
    return;
  }
  out::ReplyImages images{reply, request.request_id, request.created, as_url, {}, again};
  for (const processing::Job& job : processing::jobs_of(turn.tables.processing, request.request_id)) {
    const postprocessing::Output& output = turn.tables.postprocessing.outputs.at(job.job_id.str());
    images.images.push_back({output.image, output.seed});
  }
  turn.effect(std::move(images));
}

bool settle_answers(Turn& turn) {
  for (auto waiting = turn.live.waiting.begin(); waiting != turn.live.waiting.end(); ++waiting) {
    const processing::Request& request = turn.tables.processing.requests.at(waiting->first.str());
    if (request.state == processing::RequestState::accepted) continue;
    const Waiting who = waiting->second;
    turn.live.waiting.erase(waiting);
    reply_end(turn, who.reply, request, who.as_url, false);
    return true;
  }
  return false;
}

}  // namespace lockstep
