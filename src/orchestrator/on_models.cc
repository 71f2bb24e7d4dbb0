// What people ask of models: load, unload, verify, add, remove. Loads and unloads are orders that settle_models()
// carries out with the means of jobs.

#include <algorithm>

#include "base/text.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/workflow.h"
#include "orchestrator/coordination.h"
#include "orchestrator/costs.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

struct OrderBody {
  ModelId model_id;
  std::string state;
};
BOOST_DESCRIBE_STRUCT(OrderBody, (), (model_id, state))

struct VerifyProgress {
  ModelId model_id;
  std::string component;
  double progress_percentage = 0;
};
BOOST_DESCRIBE_STRUCT(VerifyProgress, (), (model_id, component, progress_percentage))

Error no_model(const ModelId& id) { return fail(ErrorCode::not_found, cat("there is no model ", shortened(id.str()))); }

void reply_model(Turn& turn, ReplyId reply, int status, const ModelId& id) {
  const model::Model* model = turn.tables.model.models.find(id.str());
  const std::string body =
      model == nullptr ? json::to_text(OrderBody{id, "removed"}) : json::to_text(model_view(turn, *model));
  turn.effect(out::Reply{reply, status, body});
}

/// A worker that is named must be one that can do it.
Status fit_worker(const Turn& turn, const WorkerId& id) {
  if (id.empty()) return {};
  const WorkerRecord* worker = turn.tables.liveness.workers.find(id.str());
  if (worker == nullptr) {
    return fail(ErrorCode::not_found, cat("there is no worker ", shortened(id.str())), "/worker");
  }
  if (worker->state == WorkerState::ready) return {};
  return fail(ErrorCode::unavailable, cat("worker ", id.str(), " is ", json::enum_name(worker->state)), "/worker");
}

void take_order(Turn& turn, ReplyId reply, bool wait, ModelOrder order) {
  if (turn.live.stopping) return reply_error(turn, reply, fail(ErrorCode::unavailable, "the server is stopping"));
  if (const Status fit = fit_worker(turn, order.worker_id); !fit) return reply_error(turn, reply, fit.error());
  if (wait) order.reply = reply;
  if (!wait) turn.effect(out::Reply{reply, 202, json::to_text(OrderBody{order.model_id, "accepted"})});
  add_order(turn, std::move(order));
}

bool needed_by_open_job(const Turn& turn, const ModelId& model) {
  return std::ranges::any_of(turn.live.open_jobs, [&](const JobId& id) {
    const processing::Job& job = turn.tables.processing.jobs.at(id.str());
    const processing::Request& request = turn.tables.processing.requests.at(job.request_id.str());
    if (job.stage == processing::JobStage::storing) return false;
    const bool later = std::ranges::any_of(request.pipeline, [&](const auto& each) { return each.model == model; });
    return later || request.inference.model_configuration.base_model == model;
  });
}

void end_verification(Turn& turn, const ModelId& id, const Error& error) {
  const auto place = turn.live.verifying.find(id);
  for (const auto& reply : place->second.replies) {
    if (reply) reply_error(turn, *reply, error);
  }
  turn.live.verifying.erase(place);
}

void hash_next(Turn& turn, const model::Model& model) {
  const Verification& verification = turn.live.verifying.at(model.model_id);
  const model::Component& component = model.components.at(verification.next);
  turn.publish(
      "model_verify_progress", model.model_id.str(),
      VerifyProgress{model.model_id, component.name,
                     100.0 * static_cast<double>(verification.next) / static_cast<double>(model.components.size())});
  turn.effect(out::HashFiles{model.model_id, component.name, component.files});
}

}  // namespace

Status loadable(const model::Model& model) {
  if (model.kind == model::Kind::lora || model.kind == model::Kind::vae || model.kind == model::Kind::sdxl_refiner) {
    return fail(ErrorCode::invalid_argument, cat("model ", model.model_id.str(), " is a ", json::enum_name(model.kind),
                                                 "; no worker runs one yet, it is registered only"));
  }
  return {};
}

void add_order(Turn& turn, ModelOrder order) {
  order.number = ++turn.live.orders_made;
  const JobId id(cat("order_", turn.live.epoch.value, "_", order.number));
  turn.live.orders.emplace(id, std::move(order));
}

std::vector<JobId> orders_in_turn(const Turn& turn) {
  std::vector<std::pair<JobId, const ModelOrder*>> queue;
  for (const auto& [id, order] : turn.live.orders) queue.emplace_back(id, &order);
  std::ranges::sort(queue, {}, [](const auto& each) { return std::pair(each.second->priority, each.second->number); });
  std::vector<JobId> out;
  for (const auto& [id, order] : queue) out.push_back(id);
  return out;
}

AllocationPriority load_priority(const Turn& turn, const JobId& wanted_by) {
  if (const auto order = turn.live.orders.find(wanted_by); order != turn.live.orders.end()) {
    return order->second.priority;
  }
  const processing::Job* job = turn.tables.processing.jobs.find(wanted_by.str());
  const processing::Request* request =
      job == nullptr ? nullptr : turn.tables.processing.requests.find(job->request_id.str());
  return request == nullptr ? AllocationPriority::normal : request->inference.priority;
}

std::optional<std::string> load_queue_text(const Turn& turn, const std::string& path) {
  if (path != "loads") return std::nullopt;
  LoadQueueView view;
  for (const JobId& id : orders_in_turn(turn)) {
    const ModelOrder& order = turn.live.orders.at(id);
    QueuedLoad& each = view.loads.emplace_back();
    each.order_id = id.str();
    each.model_id = order.model_id;
    each.worker_id = order.worker_id;
    each.action = order.unload ? "unload" : "load";
    each.priority = order.priority;
    each.asked_by = order.request_key.empty() ? "a person" : "a worker";
    const auto progress = turn.live.progress.find(id);
    if (load_in_flight(turn, id)) {
      each.state = "loading";
      if (progress != turn.live.progress.end()) each.percent = progress->second.percent;
    } else {
      each.state = order.held ? "held: memory is short" : "waiting";
    }
  }
  return json::to_text(view);
}

ModelView model_view(const Turn& turn, const model::Model& model) {
  ModelView view = view_of(turn.tables, model);
  for (ResidencyView& each : view.residencies) {
    const auto told = turn.live.runtimes.find({model.model_id, each.worker_id});
    if (told != turn.live.runtimes.end()) each.runtime = told->second.runtime_metrics;
  }
  for (const auto& [key, segment] : turn.live.segments) {
    if (key.first != model.model_id) continue;
    view.cached.push_back({key.second, json::enum_name(segment.state), segment.size});
  }
  std::vector<ModelDoing> doing;
  for (const auto& [id, order] : turn.live.orders) {
    if (order.model_id != model.model_id) continue;
    const auto progress = turn.live.progress.find(id);
    const bool reports = progress != turn.live.progress.end();
    doing.push_back({order.unload ? "unload" : "load",
                     reports      ? progress->second.what
                     : order.held ? "held: memory is short"
                                  : "",
                     reports ? progress->second.percent : 0});
  }
  if (const auto place = turn.live.verifying.find(model.model_id); place != turn.live.verifying.end()) {
    const double parts = static_cast<double>(std::max<std::size_t>(model.components.size(), 1));
    doing.push_back({"verify", "", 100.0 * static_cast<double>(place->second.next) / parts});
  }
  if (!doing.empty()) view.doing = std::move(doing);
  if (auto costs = costs_of(turn.live, model.model_id); !costs.empty()) view.costs = std::move(costs);
  return view;
}

void end_order(Turn& turn, const JobId& order, const Status& status) {
  const auto place = turn.live.orders.find(order);
  const ModelOrder ended = place->second;
  turn.live.orders.erase(place);
  if (!status)
    turn.warn(cat(ended.unload ? "unloading " : "loading ", ended.model_id.str(), ": ", status.error().message));
  if (status) {
    turn.log(cat(ended.model_id.str(), ended.unload ? " is unloaded" : " is there", " as ",
                 ended.request_key.empty() ? "a person" : "a worker", " asked"));
  }
  // A stop is no answer: the request is durable, and the next life orders again.
  if (!status && !ended.request_key.empty() && !turn.live.stopping) {
    coordination_load_failed(turn, ended.request_key, status.error());
  }
  if (!ended.reply) return;
  if (!status) return reply_error(turn, *ended.reply, status.error());
  reply_model(turn, *ended.reply, 200, ended.model_id);
}

void on_load_model(Turn& turn, const in::LoadModel& input) {
  const auto model = model::usable(turn.tables.model, input.model_id);
  if (!model) return reply_error(turn, input.reply, model.error());
  if (const Status can = loadable(**model); !can) return reply_error(turn, input.reply, can.error());
  take_order(turn, input.reply, input.wait,
             {.model_id = input.model_id, .worker_id = input.worker_id, .priority = input.priority});
}

void on_unload_model(Turn& turn, const in::UnloadModel& input) {
  const auto& residencies = turn.tables.model.residencies.entries();
  const bool known = turn.tables.model.models.contains(input.model_id.str()) ||
                     std::ranges::any_of(residencies, [&](const auto& each) {
                       return each.second.row.model_id == input.model_id;  // its file may be gone, and it is not
                     });
  if (!known) return reply_error(turn, input.reply, no_model(input.model_id));
  take_order(turn, input.reply, input.wait, {.unload = true, .model_id = input.model_id, .worker_id = input.worker_id});
}

void on_verify_model(Turn& turn, const in::VerifyModel& input) {
  const model::Model* model = turn.tables.model.models.find(input.model_id.str());
  if (model == nullptr) return reply_error(turn, input.reply, no_model(input.model_id));
  if (model->components.empty()) {
    return reply_error(
        turn, input.reply,
        fail(ErrorCode::data_loss, cat("model ", input.model_id.str(), " cannot be used: ", model->reason)));
  }
  const bool runs = turn.live.verifying.contains(input.model_id);
  Verification& verification = turn.live.verifying[input.model_id];
  if (input.wait) {
    verification.replies.emplace_back(input.reply);
  } else {
    turn.effect(out::Reply{input.reply, 202, json::to_text(OrderBody{input.model_id, "accepted"})});
  }
  if (!runs) hash_next(turn, *model);
}

void on_files_hashed(Turn& turn, const in::FilesHashed& input) {
  const auto place = turn.live.verifying.find(input.model_id);
  if (place == turn.live.verifying.end()) return;
  const model::Model* known = turn.tables.model.models.find(input.model_id.str());
  if (known == nullptr) return end_verification(turn, input.model_id, no_model(input.model_id));
  model::Model model = *known;
  const auto refuse = [&](const Error& error) {
    if (error.code == ErrorCode::data_loss) mark_broken(turn, input.model_id, error.message);
    end_verification(turn, input.model_id, error);
  };
  if (!input.sha256) return refuse(input.sha256.error());
  const auto component = std::ranges::find(model.components, input.component, &model::Component::name);
  if (component == model.components.end()) {
    return end_verification(turn, input.model_id,
                            fail(ErrorCode::unavailable, "its files changed while they were read; verify it again"));
  }
  if (!component->sha256.empty() && component->sha256 != *input.sha256) {
    return refuse(fail(ErrorCode::data_loss, cat("component ", input.component, " of ", input.model_id.str(),
                                                 " has digest ", shortened(*input.sha256, 12), ", recorded was ",
                                                 shortened(component->sha256, 12), ": the file's bytes changed")));
  }
  component->sha256 = *input.sha256;
  const bool last = ++place->second.next == model.components.size();
  if (last && model.availability == model::Availability::broken) {
    model.availability = model::Availability::available;  // every byte is what it was
    model.reason.clear();
  }
  turn.change.put(turn.tables.model.models, input.model_id.str(), model);
  if (!last) return hash_next(turn, model);
  turn.change.event("model_verified", input.model_id.str(), model);
  const auto replies = std::move(place->second.replies);
  turn.live.verifying.erase(place);
  for (const auto& reply : replies) {
    if (reply) turn.effect(out::Reply{*reply, 200, json::to_text(model_view(turn, model))});
  }
}

void on_add_model(Turn& turn, const in::AddModel& input) {
  if (turn.tables.model.models.contains(input.name)) {
    return reply_error(
        turn, input.reply,
        fail(ErrorCode::invalid_argument,
             cat("there is a model ", input.name, " already; remove it, or choose another name"), "/name"));
  }
  turn.effect(out::AddFiles{input.reply, input.path, ModelId(input.name), input.link});
}

void on_remove_model(Turn& turn, const in::RemoveModel& input) {
  const model::Model* model = turn.tables.model.models.find(input.model_id.str());
  if (model == nullptr) return reply_error(turn, input.reply, no_model(input.model_id));
  if (!input.force) {
    const auto refuse = [&](std::string_view why) {
      return reply_error(
          turn, input.reply,
          fail(ErrorCode::invalid_transition, cat("model ", input.model_id.str(), " ", why, "; nothing was removed")));
    };
    if (needed_by_open_job(turn, input.model_id)) return refuse("is needed by open requests");
    for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
      if (entry.row.model_id == input.model_id) return refuse(cat("is loaded on ", entry.row.worker_id.str()));
    }
    for (const auto& [id, entry] : turn.tables.model.models.entries()) {
      for (const model::Need& need : model::needs_of(turn.tables.model, entry.row)) {
        if (need.model_id == input.model_id) return refuse(cat("is what ", id, " needs as its ", need.role));
      }
    }
  }
  turn.log(cat("a person asked to remove model ", input.model_id.str()));
  turn.effect(out::RemoveFiles{input.reply, input.model_id, model->path});
}

void on_files_moved(Turn& turn, const in::FilesMoved& input) {
  if (!input.status) return reply_error(turn, input.reply, input.status.error());
  reply_model(turn, input.reply, input.added ? 201 : 200, input.model_id);
}

}  // namespace lockstep
