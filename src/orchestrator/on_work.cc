// Completions of slow work that the environment did: scans, filled segments, opened and stored pixels.

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/text.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/workflow.h"
#include "orchestrator/on_saga.h"
#include "orchestrator/on_session.h"
#include "orchestrator/turn.h"

namespace lockstep {

void mark_broken(Turn& turn, const ModelId& id, const std::string& reason) {
  model::Model broken = turn.tables.model.models.at(id.str());
  broken.availability = model::Availability::broken;
  broken.reason = reason;
  turn.change.put(turn.tables.model.models, id.str(), broken);
  turn.change.event("model_broken", id.str(), broken);
  turn.warn(cat("model ", id.str(), " cannot be used: ", reason));
}

namespace {

bool same(const model::Model& a, const model::Model& b) { return json::to_text(a) == json::to_text(b); }

/// Of the same bytes in the same form: what was filled or loaded of one is the other too.
bool same_files(const model::Model& a, const model::Model& b) {
  const auto files = [](const model::Model& model) {
    std::string text;
    for (const model::Component& component : model.components)
      text += cat(component.name, json::to_text(component.files),
                  component.dtype_in_cache ? std::string(json::enum_name(*component.dtype_in_cache)) : "");
    return text;
  };
  return files(a) == files(b);
}

}  // namespace

void on_models_scanned(Turn& turn, const in::ModelsScanned& input) {
  turn.live.scanned = true;
  if (!input.problem.empty()) turn.warn(input.problem);
  std::set<std::string> seen;
  for (const ModelId& id : input.unsettled) seen.insert(id.str());
  for (const in::ScannedModel& scanned : input.models) {
    const std::string& id = scanned.model.model_id.str();
    seen.insert(id);
    const model::Model* known = turn.tables.model.models.find(id);
    model::Model fresh = model::with_known_digests(scanned.model, known);
    if (known != nullptr && known->availability == model::Availability::broken && !fresh.components.empty() &&
        same_files(*known, fresh)) {
      fresh.availability =
          known->availability;  // its bytes were found to be others; a look at sizes and times heals nothing
      fresh.reason = known->reason;
    }
    for (std::size_t i = 0; i < scanned.layouts.size(); ++i) {
      turn.live.layouts[{scanned.model.model_id, scanned.model.components.at(i).name}] = scanned.layouts[i];
    }
    if (known != nullptr && same(*known, fresh)) continue;
    if (known != nullptr && !same_files(*known, fresh)) forget_copies(turn, scanned.model.model_id);
    turn.change.put(turn.tables.model.models, id, fresh);
    turn.change.event("model_registered", id, fresh);
    if (fresh.availability == model::Availability::broken) {
      turn.warn(cat("model ", id, " cannot be used: ", fresh.reason));
    } else {
      turn.log(cat("model ", id, ": ", json::enum_name(fresh.kind), ", needs ", to_text(fresh.bytes)));
    }
  }
  for (const auto& [id, entry] : turn.tables.model.models.entries()) {
    if (seen.contains(id) || !input.problem.empty()) continue;  // a folder that cannot be read says nothing is gone
    turn.change.erase(turn.tables.model.models, id);
    if (turn.tables.model.usages.contains(id)) turn.change.erase(turn.tables.model.usages, id);
    if (turn.tables.inference.tunings.contains(id)) turn.change.erase(turn.tables.inference.tunings, id);
    turn.change.event("model_gone", id, entry.row);
    turn.log(cat("model ", id, " is gone"));
    forget_copies(turn, entry.row.model_id);
  }
}

void on_segment_filled(Turn& turn, const in::SegmentFilled& input) {
  const auto place = turn.live.segments.find({input.model_id, input.component});
  if (place == turn.live.segments.end()) return;
  const auto refuse = [&](Error error) {
    if (error.code == ErrorCode::data_loss) mark_broken(turn, input.model_id, error.message);
    place->second.state = SegmentState::failed;
    place->second.error = std::move(error);
    place->second.size = Bytes{};
  };
  if (turn.live.stale_segments.contains(input.model_id)) {
    // Filled from files that have changed meanwhile: whoever needs it asks again.
    if (input.sha256) turn.effect(out::DropSegment{input.model_id, input.component});
    turn.live.segments.erase(place);
    return;
  }
  if (!input.sha256) return refuse(input.sha256.error());
  const model::Model* model = turn.tables.model.models.find(input.model_id.str());
  if (model == nullptr) {
    turn.effect(out::DropSegment{input.model_id, input.component});
    return refuse(fail(ErrorCode::not_found, cat("model ", input.model_id.str(), " is gone")));
  }
  model::Model verified = *model;
  for (model::Component& component : verified.components) {
    if (component.name != input.component) continue;
    if (component.sha256.empty()) {
      component.sha256 = *input.sha256;
      turn.change.put(turn.tables.model.models, input.model_id.str(), verified);
    } else if (component.sha256 != *input.sha256) {
      turn.effect(out::DropSegment{input.model_id, input.component});
      return refuse(fail(ErrorCode::data_loss, cat("component ", input.component, " of ", input.model_id.str(),
                                                   " has digest ", shortened(*input.sha256, 12), ", recorded was ",
                                                   shortened(component.sha256, 12), ": the file's bytes changed")));
    }
  }
  place->second.state = SegmentState::ready;
  turn.live.ram.cache_told = false;
  turn.change.put(turn.tables.memory.segments, memory::segment_key(input.model_id, input.component),
                  memory::Segment{input.model_id, input.component, place->second.size, *input.sha256, input.identity});
}

void forget_segment(Turn& turn, const std::pair<ModelId, std::string>& key) {
  turn.live.ram.cache_told = false;
  const std::string row = memory::segment_key(key.first, key.second);
  if (turn.tables.memory.segments.contains(row)) turn.change.erase(turn.tables.memory.segments, row);
}

void on_pixels_opened(Turn& turn, const in::PixelsOpened& input) {
  turn.live.opening.erase(input.job_id);
  const processing::Job* job = turn.tables.processing.jobs.find(input.job_id.str());
  if (job == nullptr || job->stage != processing::JobStage::generated) {
    if (input.handle) turn.effect(out::DropHandle{*input.handle});
    return;
  }
  if (!input.handle) {
    return fail_job(turn.tables, *job, processing::failure_of(input.handle.error()), turn.wall, turn.change);
  }
  const processing::Request& request = turn.tables.processing.requests.at(job->request_id.str());
  turn.live.pixels[input.job_id] = {*input.handle, *request.source};
}

void on_pixels_stored(Turn& turn, const in::PixelsStored& input) {
  turn.live.storing.erase(input.job_id);
  const processing::Job* job = turn.tables.processing.jobs.find(input.job_id.str());
  if (job == nullptr || job->stage != processing::JobStage::storing || job->attempt != input.attempt) return;
  const processing::Request& request = turn.tables.processing.requests.at(job->request_id.str());
  if (!input.image) {
    fail_job(turn.tables, *job, processing::failure_of(input.image.error()), turn.wall, turn.change);
  } else {
    finish_storing(turn.tables, request, *job, *input.image, turn.wall, turn.change);
  }
}

namespace {

/// A delivered image goes with its request; its output, whose file goes too, is added to `outputs`.
void roll_back(Turn& turn, const processing::Job& delivered, const processing::Failure& why,
               std::vector<postprocessing::Output>& outputs) {
  processing::Job job = processing::after(delivered, processing::JobEvent::rolled_back);
  job.failure = why;
  turn.change.put(turn.tables.processing.jobs, job.job_id.str(), job);
  const postprocessing::Output* output = turn.tables.postprocessing.outputs.find(job.job_id.str());
  if (output == nullptr) return;
  turn.change.erase(turn.tables.postprocessing.outputs, job.job_id.str());
  turn.change.event("output_rolled_back", job.request_id.str(), *output,
                    processing::session_of(turn.tables.processing, job.job_id));
  outputs.push_back(*output);
}

}  // namespace

void gate_failed(Turn& turn, const processing::Request& request, const processing::Job& job,
                 const processing::Failure& why) {
  using processing::ErrorHandling;
  const ErrorHandling handling = request.error_handling.value_or(ErrorHandling::keep_delivered);
  if (handling == ErrorHandling::finish_others) return fail_job(turn.tables, job, why, turn.wall, turn.change);
  const processing::Failure others{why.code, cat("image ", job.index, " of the request failed a gate: ", why.message)};
  std::vector<postprocessing::Output> outputs;
  for (const processing::Job& each : processing::jobs_of(turn.tables.processing, request.request_id)) {
    if (each.job_id == job.job_id) {
      processing::Job failed = processing::after(each, processing::JobEvent::failed);
      failed.failure = why;
      turn.change.put(turn.tables.processing.jobs, failed.job_id.str(), failed);
    } else if (!processing::is_terminal(each.stage)) {
      stop_job(turn, each, others);
    } else if (each.stage == processing::JobStage::completed && handling == ErrorHandling::cascade_rollback) {
      roll_back(turn, each, others, outputs);
    }
  }
  roll_back_outputs(turn, request.request_id, std::move(outputs), others.message);
  fail_request(turn, request, why);
}

void drop_pixels(Turn& turn, const JobId& job) {
  const auto place = turn.live.pixels.find(job);
  if (place == turn.live.pixels.end()) return;
  turn.effect(out::DropHandle{place->second.handle});
  turn.live.pixels.erase(place);
}

bool settle_pixels(Turn& turn) {
  const std::size_t before = turn.live.pixels.size();
  std::erase_if(turn.live.pixels, [&](const auto& each) {
    const processing::Job* job = turn.tables.processing.jobs.find(each.first.str());
    if (job != nullptr && !processing::is_terminal(job->stage)) return false;
    turn.effect(out::DropHandle{each.second.handle});
    return true;
  });
  return turn.live.pixels.size() < before;
}

void blame_load(Turn& turn, const JobId& wanted_by, const Error& why) {
  if (turn.live.orders.contains(wanted_by)) return end_order(turn, wanted_by, why);
  const processing::Job* row = turn.tables.processing.jobs.find(wanted_by.str());
  // A load can outlive its job's need: another worker may have taken the job meanwhile.
  if (row == nullptr || (row->stage != processing::JobStage::queued && row->stage != processing::JobStage::generated)) {
    return;
  }
  processing::Job job = *row;
  ++job.load_failures;
  const bool hopeless = error_facts(why.code).retry == Retry::never;
  if (hopeless || job.load_failures >= processing::load_failures_max) {
    drop_pixels(turn, wanted_by);
    return fail_job(turn.tables, job, processing::failure_of(why), turn.wall, turn.change);
  }
  turn.change.put(turn.tables.processing.jobs, wanted_by.str(), job);
  turn.warn(cat("loading for ", wanted_by.str(), " failed (", job.load_failures, " of ", processing::load_failures_max,
                "): ", why.message));
}

}  // namespace lockstep
