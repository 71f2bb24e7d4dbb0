#include "operations/views.h"

#include "base/text.h"
#include "domains/inference/capabilities.h"
#include "domains/inference/tuning.h"
#include "domains/memory/rules.h"
#include "domains/processing/rules.h"

namespace lockstep {

DeviceView view_of(const Tables& tables, const device::Device& device) {
  DeviceView view;
  view.device_id = device.device_id;
  view.kind = json::enum_name(device.kind);
  view.availability = json::enum_name(device.availability);
  view.reason = device.reason;
  view.worker_id = device.worker_id;
  view.memory_budget = device.memory_budget;
  view.memory_allocated = memory::allocated_on(tables.memory, device.device_id);
  view.health_level = json::enum_name(tables.device.level_of(device.device_id));
  if (const auto* found = tables.device.capabilities.find(device.device_id.str())) {
    view.name = found->name;
    view.driver_version = found->driver_version;
    view.capabilities = found->capabilities;
    view.capability_scores = found->scores;
    if (found->calibrated_at) view.calibrated_at = to_rfc3339(*found->calibrated_at);
  }
  if (const auto* held = tables.device.reservations.find(device.device_id.str())) {
    view.reserved_for = cat(held->operation_type, " of ", held->model_id.str());
  }
  return view;
}

WorkerView view_of(const WorkerRecord& worker) {
  WorkerView view;
  view.worker_id = worker.worker_id;
  view.device_id = worker.device_id;
  view.state = json::enum_name(worker.state);
  view.incarnation = worker.incarnation;
  view.pid = worker.pid;
  view.last_end = worker.last_end;
  view.deaths_in_a_row = worker.deaths_in_a_row;
  return view;
}

namespace {

std::optional<std::string> text_of(const std::optional<WallTime>& time) {
  return time ? std::optional(to_rfc3339(*time)) : std::nullopt;
}

CapabilitiesView capabilities_view(const Tables& tables, const model::Model& model) {
  const inference::Capabilities can = inference::capabilities_of(json::enum_name(model.kind));
  CapabilitiesView view{can.inference_types, can.operations, {}};
  if (can.inference_types.empty()) return view;
  for (const auto& [id, entry] : tables.model.models.entries()) {
    const std::string role = inference::capabilities_of(json::enum_name(entry.row.kind)).role;
    if (role.empty()) continue;
    const std::string unfit = model::unfit_because(model, role, entry.row);
    view.companions.push_back({role, entry.row.model_id, unfit.empty(), unfit});
  }
  return view;
}

}  // namespace

ModelView view_of(const Tables& tables, const model::Model& model) {
  ModelView view;
  view.model = model;
  view.needs = model::needs_of(tables.model, model);
  const model::Usage usage = model::usage_of(tables.model, model.model_id);
  view.capabilities = capabilities_view(tables, model);
  if (const auto* tuning = tables.inference.tunings.find(model.model_id.str())) view.config = *tuning;
  view.usage = UsageView{usage.loads, usage.uses, text_of(usage.last_loaded), text_of(usage.last_used)};
  for (const auto& [key, entry] : tables.model.residencies.entries()) {
    if (entry.row.model_id != model.model_id) continue;
    view.residencies.push_back({entry.row.worker_id, entry.row.device_id, json::enum_name(entry.row.state), {}});
  }
  return view;
}

RequestView view_of(const Tables& tables, const processing::Request& request) {
  RequestView view;
  view.request_id = request.request_id;
  view.kind = json::enum_name(request.kind);
  view.state = json::enum_name(request.state);
  view.created = to_rfc3339(request.created);
  if (request.state != processing::RequestState::accepted) view.finished = to_rfc3339(request.finished);
  view.parameters = request.inference.inference_parameters;
  view.model = request.inference.model_configuration.base_model;
  view.pipeline = request.pipeline;
  view.failure = request.failure;
  for (const processing::Job& job : processing::jobs_of(tables.processing, request.request_id)) {
    JobView each;
    each.job_id = job.job_id;
    each.index = job.index;
    each.stage = json::enum_name(job.stage);
    each.attempt = job.attempt;
    each.deaths = job.deaths;
    each.seed = view.parameters.seed.value_or(0) + job.index;
    each.worker_id = job.worker_id;
    each.failure = job.failure;
    if (const auto* run = tables.inference.runs.find(job.job_id.str())) {
      each.inference_worker = run->worker_id;
      each.inference = run->result;
    }
    if (const auto* run = tables.postprocessing.runs.find(job.job_id.str())) {
      each.postprocessing_worker = run->worker_id;
      each.operations = run->operations;
      each.results = run->results;
    }
    if (const auto* output = tables.postprocessing.outputs.find(job.job_id.str())) each.output = output->image;
    view.jobs.push_back(std::move(each));
  }
  return view;
}

RequestsView requests_view(const Tables& tables, Rev rev) {
  RequestsView view{rev, {}};
  const auto& entries = tables.processing.requests.entries();
  for (auto at = entries.rbegin(); at != entries.rend() && view.requests.size() < 200; ++at) {
    const processing::Request& request = at->second.row;
    view.requests.push_back({request.request_id, json::enum_name(request.kind), json::enum_name(request.state),
                             to_rfc3339(request.created), request.n,
                             shortened(request.inference.inference_parameters.prompt, 200), request.failure});
  }
  return view;
}

}  // namespace lockstep
