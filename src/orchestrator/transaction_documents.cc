#include "orchestrator/transaction_documents.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/limits.h"
#include "operations/model_load.h"
#include "operations/sagas.h"
#include "operations/workflow.h"
#include "orchestrator/costs.h"

namespace lockstep {

namespace {

Consistency holds(bool yes) { return yes ? Consistency::consistent : Consistency::inconsistent; }

const memory::Allocation* allocation_of(const Turn& turn, const LoggedTransaction& load) {
  return turn.tables.memory.allocations.find(allocation_of_load(load.transaction_id).str());
}

bool lane_is_its_own(const Turn& turn, const LoggedTransaction& load) {
  const device::Reservation* lane = turn.tables.device.reservations.find(load.device_id.str());
  return lane != nullptr && lane->transaction_id == load.transaction_id;
}

bool prepares(const Turn& turn, const LoggedTransaction& load) {
  return turn.live.intents.contains(load.transaction_id);
}

/// Every part of the model stands in the cache, filled from files whose digest was checked.
bool cache_holds(const Turn& turn, const ModelId& id) {
  const model::Model* model = turn.tables.model.models.find(id.str());
  if (model == nullptr) return false;
  return std::ranges::all_of(model::parts_of(turn.tables.model, *model), [&](const model::Part& part) {
    const auto segment = turn.live.segments.find({part.model_id, part.component.name});
    return segment != turn.live.segments.end() && segment->second.state == SegmentState::ready;
  });
}

bool is_registered_whole(const Turn& turn, const ModelId& id) {
  return model::usable(turn.tables.model, id).has_value();
}

/// The device's grants, promises and loads are within what it may hold.
bool ledger_fits(const Turn& turn, const DeviceId& device) {
  return memory::granted_on(turn.tables.memory, device) + promised_on(turn.live.intents, device) <=
         limit_on(turn.tables, device).bytes;
}

std::uint32_t residencies_on(const Turn& turn, const DeviceId& device) {
  return static_cast<std::uint32_t>(std::ranges::count_if(
      turn.tables.model.residencies.entries(), [&](const auto& each) { return each.second.row.device_id == device; }));
}

std::uint32_t allocations_on(const Turn& turn, const DeviceId& device) {
  return static_cast<std::uint32_t>(std::ranges::count_if(
      turn.tables.memory.allocations.entries(), [&](const auto& each) { return each.second.row.device_id == device; }));
}

DurationText whole_seconds(double value) { return {cat(static_cast<std::uint64_t>(std::ceil(value)), "s")}; }
DurationText of_nanos(Nanos time) { return whole_seconds(static_cast<double>(time) / 1e9); }

std::string bytes_text(Bytes bytes) { return cat(bytes.value, "B"); }

/// done: so many steps are completed. The next one runs while the saga goes on, or is the one that failed.
Saga saga_of(const SagaDefinition& saga, const TransactionId& id, std::size_t done, SagaStatus status) {
  Saga out{std::string(saga.name), saga_id_of(id), {}, {}, status};
  const bool back = status != SagaStatus::running && status != SagaStatus::completed;
  for (std::size_t i = 0; i < saga.steps.size(); ++i) {
    SagaStepStatus step = SagaStepStatus::pending;
    if (i < done) step = status == SagaStatus::compensated ? SagaStepStatus::compensated : SagaStepStatus::completed;
    if (i == done) step = back ? SagaStepStatus::failed : SagaStepStatus::running;
    out.saga_steps.push_back({static_cast<std::uint32_t>(i + 1), std::string(saga.steps[i].service),
                              std::string(saga.steps[i].action), std::string(saga.steps[i].compensation), step});
  }
  if (!back) return out;
  // The failed step is undone too: whether it had an effect is not known, so its compensation must bear that it had
  // none.
  for (const std::uint32_t step : to_compensate(saga, done, std::min(done + 1, saga.steps.size()))) {
    out.compensation_sequence.emplace_back(saga.steps[step - 1].compensation);
  }
  return out;
}

SagaStatus status_of(LoggedState state) {
  switch (state) {
    case LoggedState::preparing:
    case LoggedState::committing: return SagaStatus::running;
    case LoggedState::committed: return SagaStatus::completed;
    case LoggedState::compensating: return SagaStatus::compensating;
    case LoggedState::aborted:
    case LoggedState::compensated: return SagaStatus::compensated;
    case LoggedState::parked: return SagaStatus::parked;
  }
  return SagaStatus::running;
}

/// The copy failed: what it had put on the device is gone by the worker's word, if not by its allocator's.
bool is_undone(LoggedState state) {
  return state == LoggedState::compensating || state == LoggedState::compensated || state == LoggedState::parked;
}

}  // namespace

// ---- a load -------------------------------------------------------------------------------------------------------

const model::Residency* residency_of(const Turn& turn, const LoggedTransaction& load) {
  const model::Residency* held = model::residency(turn.tables.model, load.model_id, load.worker_id);
  return held != nullptr && held->transaction_id == load.transaction_id ? held : nullptr;
}

AtomicDeviceMemory device_memory_document(const Turn& turn, const LoggedTransaction& load) {
  AtomicDeviceMemory out;
  out.transaction_id = load.transaction_id;
  DeviceMemoryParameters device{
      load.device_id, "model_loading", of_nanos(turn.settings.timing.progress_deadline), {}, {}};
  out.operations = {
      {StepDomain::device, DeviceMemoryOperation::reserve_device, std::move(device)},
      {StepDomain::memory, DeviceMemoryOperation::allocate_vram, {load.device_id, {}, {}, load.bytes, "model"}}};
  out.rollback_actions = {{StepDomain::device, "release_device_reservation", "memory_allocation_failed"},
                          {StepDomain::memory, "deallocate_reserved_memory", "device_reservation_failed"}};
  return out;
}

DeviceMemoryConsistency device_memory_consistency(const Turn& turn, const LoggedTransaction& load) {
  const memory::Allocation* bytes = allocation_of(turn, load);
  const bool lane = lane_is_its_own(turn, load);
  const model::Residency* held = residency_of(turn, load);
  const bool copied = held != nullptr && held->state != model::ResidencyState::loading;
  // While the copy runs both are there; then the lane is free for the next load, and the bytes stay with the model;
  // of a load that came to nothing there is neither.
  const bool agree = held == nullptr ? !lane && bytes == nullptr : (lane != copied) && bytes != nullptr;
  const std::uint32_t devices = residencies_on(turn, load.device_id);
  const std::uint32_t allocations = allocations_on(turn, load.device_id);
  const std::string& id = load.transaction_id.str();
  ConsistencyCheck halves{"device_allocation_matches_memory_allocation", {}, {}, {}, {}, agree};
  halves.device_state = lane || copied ? cat("allocated_to_", id) : "free";
  halves.memory_state = bytes != nullptr ? cat("allocated_for_", id) : "free";
  ConsistencyCheck totals{"resource_totals_balance", {}, {}, devices, allocations, devices == allocations};
  DeviceMemoryConsistency out;
  out.consistency_score = Ratio{((agree ? 1 : 0) + (totals.consistency ? 1 : 0)) / 2.0};
  out.validation_checks = {std::move(halves), std::move(totals)};
  out.transaction_id = load.transaction_id;
  out.device_id = load.device_id;
  return out;
}

AtomicModelMemory model_memory_document(const Turn& turn, const LoggedTransaction& load) {
  AtomicModelMemory out;
  out.transaction_id = load.transaction_id;
  const model::Model* model = turn.tables.model.models.find(load.model_id.str());
  const Bytes in_cache = model == nullptr ? Bytes{} : model::bytes_in_cache(turn.tables.model, *model);
  out.operations = {
      {StepDomain::model, ModelMemoryOperation::prepare_model_cache, {load.model_id, "ram", in_cache, {}, {}, {}}},
      {StepDomain::memory,
       ModelMemoryOperation::reserve_vram,
       {{}, {}, {}, load.device_id, load.bytes, "model_loading"}}};
  const bool cached = cache_holds(turn, load.model_id);
  const bool reserved =
      (prepares(turn, load) || allocation_of(turn, load) != nullptr) && ledger_fits(turn, load.device_id);
  // In the order in which they were found to hold; the chain ends where one does not.
  if (cached) out.dependency_chain.emplace_back("ram_cache_available");
  if (cached && reserved) out.dependency_chain.emplace_back("vram_reservation_successful");
  if (cached && reserved && is_registered_whole(turn, load.model_id)) {
    out.dependency_chain.emplace_back("model_integrity_verified");
  }
  const auto live = turn.live.workers.find(load.worker_id);
  const bool tracked =
      live != turn.live.workers.end() && live->second.works_on(load_operation(load.transaction_id).op_id);
  out.consistency_requirements = {cached, reserved, tracked};
  return out;
}

ModelLoadingStateUpdate loading_state(const Turn& turn, const LoggedTransaction& load, double progress) {
  const model::Residency* held = residency_of(turn, load);
  const memory::Allocation* bytes = allocation_of(turn, load);
  const bool loaded = held != nullptr && held->state == model::ResidencyState::loaded;
  const Ratio share{std::clamp(progress, 0.0, 1.0)};
  Bytes cached;
  for (const auto& [key, segment] : turn.live.segments) cached += segment.size;
  const Bytes limit = turn.settings.cache_limit;
  const double used = limit.value == 0 ? 0 : static_cast<double>(cached.value) / static_cast<double>(limit.value);
  LoadStateChange model;
  model.model_cache_status = loaded ? "loaded" : "loading_to_vram";
  model.cache_utilization = Ratio{std::clamp(used, 0.0, 1.0)};
  model.loading_progress = share;
  LoadStateChange memory;
  memory.vram_allocation_status =
      bytes != nullptr && bytes->state == memory::AllocationState::in_use ? "in_use" : "reserved";
  memory.allocated_bytes = bytes == nullptr ? Bytes{} : bytes->bytes;
  memory.allocation_progress = share;
  ModelLoadingStateUpdate out;
  out.transaction_id = load.transaction_id;
  out.state_updates = {{StepDomain::model, std::move(model)}, {StepDomain::memory, std::move(memory)}};
  // A worker of a GPU has its own copy when the model is loaded: the cache may have given its segments to others.
  const bool in_cache = loaded || cache_holds(turn, load.model_id);
  const bool in_ledger = bytes != nullptr && bytes->bytes == load.bytes && ledger_fits(turn, load.device_id);
  const bool agree = held != nullptr && bytes != nullptr && held->allocation_id == bytes->allocation_id &&
                     loaded == (bytes->state == memory::AllocationState::in_use);
  out.consistency_checkpoint = {holds(in_cache), holds(in_ledger), holds(agree)};
  return out;
}

ModelLoadingFailure loading_failure(const LoggedTransaction& load) {
  ModelLoadingFailure out;
  out.transaction_id = load.transaction_id;
  RollbackParameters memory;
  memory.reservation_id = allocation_of_load(load.transaction_id);
  memory.cleanup_partial_allocation = true;
  RollbackParameters model;
  model.model_id = load.model_id;
  model.cleanup_incomplete_loading = true;
  RollbackParameters both;
  both.transaction_id = load.transaction_id;
  both.notify_dependent_services = true;
  out.rollback_sequence = {{1, StepDomain::memory, "release_vram_reservation", std::move(memory)},
                           {2, StepDomain::model, "cleanup_partial_cache", std::move(model)},
                           {3, StepDomain::both, "reset_loading_state", std::move(both)}};
  if (!load.reason.empty()) out.reason = load.reason;
  return out;
}

namespace {

std::string lock_of(const LoggedTransaction& load, std::string_view service) {
  if (service == "device_service") return cat(load.device_id.str(), "_allocation");
  if (service == "memory_service") return cat("vram_allocation_", bytes_text(load.bytes));
  return cat("cache_pin_", load.model_id.str());
}

}  // namespace

TransactionVoting voting(const LoggedTransaction& load) {
  const bool all = load.state != LoggedState::aborted;
  PrepareVote worker{"python_model_worker", all ? Vote::vote_commit : Vote::vote_abort, {}, "confirmed", {}};
  if (all) {
    worker.resource_locks.emplace_back("model_loading_context");
  } else {
    worker.reason = load.reason;
  }
  TransactionVoting out;
  out.transaction_id = load.transaction_id;
  // The services share the coordinator's journal: they have voted before anybody else is asked.
  for (const ServiceVote& each : load.votes) {
    PrepareVote& vote = out.participants.emplace_back();
    vote.participant = each.service;
    vote.prepare_result = each.vote ? Vote::vote_commit : Vote::vote_abort;
    vote.rollback_capability = each.vote ? "confirmed" : "not_needed";
    if (each.vote) {
      vote.resource_locks.push_back(lock_of(load, each.service));
    } else {
      vote.reason = each.vote.error().message;
    }
  }
  if (load.asked) out.participants.push_back(std::move(worker));
  out.coordinator_decision = all ? CoordinatorDecision::proceed_to_commit : CoordinatorDecision::abort;
  return out;
}

TransactionOutcome outcome(const Turn& turn, const LoggedTransaction& load) {
  const bool commit = load.decided.has_value();
  TransactionOutcome out;
  out.transaction_id = load.transaction_id;
  out.phase = commit ? CommitPhase::commit : CommitPhase::abort;
  out.coordinator_command = commit ? CoordinatorCommand::commit : CoordinatorCommand::abort;
  const Timestamp when = Timestamp::of(load.decided.value_or(load.changed));
  const CommitResult here = commit ? CommitResult::committed : CommitResult::aborted;
  const bool held = allocation_of(turn, load) != nullptr;
  for (const char* service : {"device_service", "memory_service", "model_service"}) {
    out.participant_responses.push_back({service, here, held ? "allocated" : "released", when});
  }
  ParticipantResponse worker{"python_model_worker", CommitResult::pending, "model_loading", Timestamp::of(turn.wall)};
  const WorkerRecord* record = turn.tables.liveness.workers.find(load.worker_id.str());
  const bool lost = record == nullptr || record->incarnation != load.incarnation || record->state == WorkerState::gone;
  const bool told = !turn.tables.transactions.decisions.contains(load.transaction_id.str());
  if (!commit) {
    worker.commit_result = lost ? CommitResult::lost : CommitResult::aborted;
    worker.resource_status = lost ? "lost" : "released";
  } else if (load.state == LoggedState::committed) {
    worker.commit_result = CommitResult::committed;
    worker.resource_status = "model_loaded";
  } else if (lost) {
    worker.commit_result = CommitResult::lost;
    worker.resource_status = "lost";
  } else if (is_undone(load.state)) {
    worker.commit_result = CommitResult::committed;
    worker.resource_status = "released";
  } else if (told) {
    worker.commit_result = CommitResult::committed;
  }
  const CommitResult answer = worker.commit_result;
  if (load.asked) out.participant_responses.push_back(std::move(worker));
  out.transaction_status = !commit                             ? "aborted"
                           : answer == CommitResult::committed ? "committed_successfully"
                           : answer == CommitResult::lost      ? "committed_participant_lost"
                                                               : "committing";
  return out;
}

Saga load_saga(const LoggedTransaction& load, bool back) {
  // The first three are one commit record, the decision; the copy is the last step.
  return saga_of(model_loading, load.transaction_id, load.state == LoggedState::committed ? 4 : 3,
                 back ? SagaStatus::compensating : status_of(load.state));
}

Saga rollback_saga(const LoggedTransaction& entry) {
  const SagaDefinition* saga = saga_definition(entry.saga);
  // Some of its images were stored and some never will be: of the request, the last step is the one that failed.
  if (saga != nullptr) return saga_of(*saga, entry.transaction_id, saga->steps.size() - 1, status_of(entry.state));
  return {entry.saga, saga_id_of(entry.transaction_id), {}, {}, status_of(entry.state)};
}

bool ledger_is_free_of(const Turn& turn, const LoggedTransaction& load) {
  return allocation_of(turn, load) == nullptr && residency_of(turn, load) == nullptr && !lane_is_its_own(turn, load) &&
         !prepares(turn, load) && !turn.tables.transactions.decisions.contains(load.transaction_id.str());
}

PartialAllocationFailure partial_allocation(const LoggedTransaction& load, ReleaseProof proof) {
  PartialAllocationFailure out;
  out.failure_point = load.failure_point;
  // What the services held when the last participant failed, in the order in which they took it. Before the decision
  // the bytes on the device are the participant's to promise, and are what failed.
  out.allocated_resources = {{"device_reservation", "allocated", true}};
  if (load.decided) out.allocated_resources.push_back({"vram_allocation", "allocated", true});
  out.allocated_resources.push_back({"ram_cache_space", "allocated", true});
  out.rollback_coordination.rollback_order = "reverse_allocation_order";
  for (auto each = out.allocated_resources.rbegin(); each != out.allocated_resources.rend(); ++each) {
    out.rollback_coordination.rollback_sequence.push_back(cat("release_", each->resource));
  }
  out.rollback_coordination.consistency_validation = "verify_all_resources_released";
  out.transaction_id = load.transaction_id;
  if (!load.reason.empty()) out.reason = load.reason;
  out.verified = std::move(proof);
  return out;
}

// ---- an image -----------------------------------------------------------------------------------------------------

namespace {

struct ImageState {
  const processing::Job* job = nullptr;
  const processing::Request* request = nullptr;
  const processing::Session* session = nullptr;
  const inference::Run* run = nullptr;
  bool session_named = false;
};

ImageState state_of(const Turn& turn, const LoggedTransaction& image) {
  ImageState out;
  out.job = turn.tables.processing.jobs.find(image.job_id.str());
  if (out.job == nullptr) return out;
  out.request = turn.tables.processing.requests.find(out.job->request_id.str());
  if (out.request != nullptr && out.request->session_id) {
    out.session_named = true;
    out.session = turn.tables.processing.sessions.find(*out.request->session_id);
  }
  const inference::Run* run = turn.tables.inference.runs.find(image.job_id.str());
  if (run != nullptr && run->run_id == image.run_id) out.run = run;
  return out;
}

bool works_on_it(const Turn& turn, const LoggedTransaction& image) {
  const auto live = turn.live.workers.find(image.worker_id);
  return live != turn.live.workers.end() && live->second.works_on(image.run_id);
}

bool model_is_loaded(const Turn& turn, const LoggedTransaction& image) {
  const model::Residency* held = model::residency(turn.tables.model, image.model_id, image.worker_id);
  return held != nullptr && held->incarnation == image.incarnation && held->state == model::ResidencyState::loaded;
}

/// The session is there, runs, and knows of the request; one without a session is coherent with none.
bool session_is_coherent(const ImageState& is) {
  if (!is.session_named) return is.request != nullptr;
  return is.session != nullptr && !processing::is_terminal(is.session->state) &&
         std::ranges::find(is.session->requests, is.request->request_id) != is.session->requests.end();
}

std::vector<std::string> sequence_of(const processing::Request& request) {
  std::vector<std::string> out;
  for (const PipelineOperation& each : request.pipeline) out.push_back(each.operation);
  return out;
}

bool has_operation(const processing::Request& request, std::string_view operation) {
  return std::ranges::any_of(request.pipeline, [&](const auto& each) { return each.operation == operation; });
}

std::string pipeline_id(const LoggedTransaction& image) { return cat("post:", image.job_id.str()); }

}  // namespace

AtomicProcessingInference processing_inference_document(const Turn& turn, const LoggedTransaction& image) {
  const ImageState is = state_of(turn, image);
  AtomicProcessingInference out;
  out.transaction_id = image.transaction_id;
  const std::string request = is.request == nullptr ? image.job_id.str() : is.request->request_id.str();
  const std::string session = is.session_named ? *is.request->session_id : request;
  const auto live = turn.live.workers.find(image.worker_id);
  const std::string batch =
      live != turn.live.workers.end() && live->second.batch_size > 1 ? live->second.task : image.run_id;
  out.session_context = {session, batch, "tightly_coupled"};
  const AllocationPriority priority = is.session != nullptr   ? is.session->priority
                                      : is.request != nullptr ? is.request->inference.priority
                                                              : AllocationPriority::normal;
  ProcessingInferenceParameters resources;
  resources.session_id = session;
  resources.resource_requirements = ResourceRequirements{
      is.session != nullptr && is.session->max_memory ? *is.session->max_memory : SizeText{bytes_text(image.bytes)},
      image.device_id, priority};
  ProcessingInferenceParameters context;
  context.batch_id = batch;
  context.model_requirements =
      is.request != nullptr && is.job != nullptr ? std::vector<ModelId>{image.model_id} : std::vector<ModelId>{};
  context.inference_type = is.request == nullptr ? "text_to_image" : is.request->inference.inference_type;
  out.atomic_operations = {
      {StepDomain::processing, ProcessingInferenceOperation::reserve_session_resources, std::move(resources)},
      {StepDomain::inference, ProcessingInferenceOperation::prepare_inference_context, std::move(context)}};
  out.consistency_guarantees = {works_on_it(turn, image) && ledger_fits(turn, image.device_id), session_is_coherent(is),
                                is.run != nullptr && model_is_loaded(turn, image)};
  return out;
}

SessionInferenceSync session_sync(const Turn& turn, const LoggedTransaction& image, std::string readiness) {
  const ImageState is = state_of(turn, image);
  const bool held = works_on_it(turn, image);
  SessionSyncData processing;
  processing.session_status = is.session != nullptr ? json::enum_name(is.session->state) : "none";
  processing.resource_allocation = held ? "confirmed" : "released";
  std::uint32_t open = 0;
  if (is.request != nullptr) {
    for (const processing::Job& job : processing::jobs_of(turn.tables.processing, is.request->request_id)) {
      if (!processing::is_terminal(job.stage)) ++open;
    }
  }
  processing.operation_queue = open;
  const AllocationPriority asked = is.request == nullptr ? AllocationPriority::normal : is.request->inference.priority;
  processing.priority_level = is.session != nullptr ? is.session->priority : asked;
  SessionSyncData inference;
  inference.inference_readiness = std::move(readiness);
  inference.model_loading_status = model_is_loaded(turn, image) ? "complete" : "incomplete";
  for (const OperationCostView& each : costs_of(turn.live, image.model_id)) {
    if (each.operation == "inference" && each.runs > 0) {
      inference.estimated_execution_time = whole_seconds(each.seconds_mean);
    }
  }
  const double budget = static_cast<double>(limit_on(turn.tables, image.device_id).bytes.value);
  const double used = static_cast<double>(memory::granted_on(turn.tables.memory, image.device_id).value);
  inference.resource_utilization = Ratio{budget <= 0 ? 0 : std::clamp(used / budget, 0.0, 1.0)};
  SessionInferenceSync out;
  out.transaction_id = image.transaction_id;
  out.coordination_type = "bidirectional";
  out.state_synchronization = {{SyncDirection::processing_to_inference, std::move(processing)},
                               {SyncDirection::inference_to_processing, std::move(inference)}};
  const bool device_allowed =
      is.session == nullptr || is.session->gpu_allocation.empty() ||
      std::ranges::find(is.session->gpu_allocation, image.device_id) != is.session->gpu_allocation.end();
  const bool in_time = is.job == nullptr || !is.job->deadline || turn.wall.ms <= is.job->deadline->ms;
  out.consistency_validation = {device_allowed && is.run != nullptr && is.run->worker_id == image.worker_id,
                                is.session == nullptr || is.session->priority <= asked, in_time};
  return out;
}

AtomicInferencePostprocessing inference_postprocessing_document(const Turn& turn, const LoggedTransaction& image) {
  const ImageState is = state_of(turn, image);
  AtomicInferencePostprocessing out;
  out.transaction_id = image.transaction_id;
  out.pipeline_coordination = {image.run_id, pipeline_id(image), "streaming"};
  const processing::Request none;
  const processing::Request& request = is.request == nullptr ? none : *is.request;
  InferencePostprocessingParameters execute;
  execute.request_id = image.run_id;
  execute.postprocessing_requirements =
      PostprocessingNeeds{has_operation(request, "safety_check"), has_operation(request, "upscaling"),
                          request.output ? request.output->format : "png"};
  InferencePostprocessingParameters prepare;
  prepare.pipeline_id = pipeline_id(image);
  prepare.expected_input_format = "rgb8";
  prepare.processing_sequence = sequence_of(request);
  out.atomic_operations = {
      {StepDomain::inference, InferencePostprocessingOperation::execute_with_postprocessing_preparation,
       std::move(execute)},
      {StepDomain::postprocessing, InferencePostprocessingOperation::prepare_pipeline_for_inference,
       std::move(prepare)}};
  out.streaming_coordination = {
      "shared",
      {"technical_quality"},
      json::enum_name(request.error_handling.value_or(processing::ErrorHandling::keep_delivered))};
  if (has_operation(request, "safety_check")) {
    out.streaming_coordination.quality_gates.insert(out.streaming_coordination.quality_gates.begin(),
                                                    "safety_validation");
  }
  return out;
}

InferencePostprocessingFlow pipeline_flow(const Turn& turn, const LoggedTransaction& image) {
  const ImageState is = state_of(turn, image);
  InferencePostprocessingFlow out;
  out.transaction_id = image.transaction_id;
  FlowStage preparation{
      FlowStageName::preparation,
      {"reserve_inference_resources", "prepare_postprocessing_pipeline", "validate_end_to_end_requirements"},
      "all_resources_available",
      {},
      {}};
  FlowStage execution{
      FlowStageName::execution,
      {"execute_inference_with_streaming", "stream_to_postprocessing_pipeline", "monitor_quality_gates"},
      "streaming_integrity",
      {},
      {}};
  FlowStage completion{FlowStageName::completion,
                       {"finalize_postprocessing_results", "cleanup_inference_resources", "validate_final_output"},
                       "complete_pipeline_success",
                       {},
                       {}};
  // Of the pipeline every model is there that its operations name; of the run, that it was begun on a worker with its
  // own.
  std::string lacks;
  if (is.request != nullptr) {
    for (const PipelineOperation& each : is.request->pipeline) {
      if (!each.model.empty() && !is_registered_whole(turn, each.model))
        lacks = cat(each.model.str(), " is not usable");
    }
  }
  preparation.consistent = lacks.empty() && is.run != nullptr;
  if (!lacks.empty()) preparation.found = lacks;
  const bool ended = image.state != LoggedState::committing;
  const postprocessing::Run* post = turn.tables.postprocessing.runs.find(image.job_id.str());
  const bool ran = post != nullptr && post->attempt > image.attempt;
  if (image.step != ImageStep::inferring || ended) {
    // The pixels are the orchestrator's from the hand-over on; the pipeline took them only with the announced length
    // and digest, or it has failed with data_loss.
    const auto pixels = turn.live.pixels.find(image.job_id);
    const bool whole = ran || image.step >= ImageStep::postprocessing ||
                       (pixels != turn.live.pixels.end() && !pixels->second.image.sha256.empty());
    execution.consistent = whole;
    if (!whole) execution.found = image.reason.empty() ? "the image was not handed over" : image.reason;
  }
  if (ended) {
    const bool done = is.job != nullptr && is.job->stage == processing::JobStage::completed;
    const bool checks_only = is.request != nullptr && is.request->kind == processing::RequestKind::check;
    const bool stored = checks_only || turn.tables.postprocessing.outputs.contains(image.job_id.str());
    completion.consistent = done && stored && !works_on_it(turn, image);
    if (!*completion.consistent) completion.found = image.reason.empty() ? "it has no output" : image.reason;
  }
  out.flow_stages = {std::move(preparation), std::move(execution), std::move(completion)};
  return out;
}

Saga image_saga(const LoggedTransaction& image, bool back) {
  std::size_t done = 1;
  if (image.step >= ImageStep::handed_over) done = 2;
  if (image.step >= ImageStep::storing) done = 3;
  if (image.state == LoggedState::committed) done = 4;
  return saga_of(session_workflow, image.transaction_id, done,
                 back ? SagaStatus::compensating : status_of(image.state));
}

}  // namespace lockstep
