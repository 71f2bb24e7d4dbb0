#pragma once

// The documents of transactions, sagas and their validation, §3.1-3.6 and §3.8, in the specification's letter. They are
// what the system says of its transactions (operations/transaction_documents.h makes them from live state) and what
// `lockstep message check` reads. A list of steps has parameters of several shapes: each shape's members are optional
// here, and a document's check() says which of them a step needs. document_name is what message_types.h calls it.
// Optional members at an end are additions.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "events/described.h"
#include "events/link_messages.h"
#include "events/words.h"

namespace lockstep {

/// Whose step it is. both: of all domains that take part.
enum class StepDomain { device, memory, model, processing, inference, postprocessing, both };
BOOST_DESCRIBE_ENUM(StepDomain, device, memory, model, processing, inference, postprocessing, both)

enum class TransactionPhase { prepare, commit, abort };
BOOST_DESCRIBE_ENUM(TransactionPhase, prepare, commit, abort)

enum class Consistency { consistent, inconsistent };
BOOST_DESCRIBE_ENUM(Consistency, consistent, inconsistent)

// ---- §3.1 device and memory ---------------------------------------------------------------------------------------

enum class DeviceMemoryType { atomic_device_memory_allocation };
BOOST_DESCRIBE_ENUM(DeviceMemoryType, atomic_device_memory_allocation)

enum class DeviceMemoryOperation { reserve_device, allocate_vram };
BOOST_DESCRIBE_ENUM(DeviceMemoryOperation, reserve_device, allocate_vram)

/// reserve_device: operation_type, estimated_duration. allocate_vram: allocation_size, allocation_purpose.
struct DeviceMemoryParameters {
  DeviceId device_id;
  std::optional<std::string> operation_type;
  std::optional<DurationText> estimated_duration;
  std::optional<Bytes> allocation_size;
  std::optional<std::string> allocation_purpose;
};
BOOST_DESCRIBE_STRUCT(DeviceMemoryParameters, (),
                      (device_id, operation_type, estimated_duration, allocation_size, allocation_purpose))

struct DeviceMemoryStep {
  StepDomain domain = StepDomain::device;
  DeviceMemoryOperation operation = DeviceMemoryOperation::reserve_device;
  DeviceMemoryParameters parameters;
};
BOOST_DESCRIBE_STRUCT(DeviceMemoryStep, (), (domain, operation, parameters))

struct RollbackAction {
  StepDomain domain = StepDomain::device;
  std::string action;
  std::string condition;
  static constexpr json::Rule rules[] = {
      {.member = "action", .words = "release_device_reservation, deallocate_reserved_memory"},
      {.member = "condition", .words = "memory_allocation_failed, device_reservation_failed"}};
};
BOOST_DESCRIBE_STRUCT(RollbackAction, (), (domain, action, condition))

struct AtomicDeviceMemory {
  static constexpr std::string_view document_name = "atomic_device_memory_allocation";
  DeviceMemoryType operation_type{};
  TransactionId transaction_id;
  TransactionPhase phase = TransactionPhase::prepare;
  std::vector<DeviceMemoryStep> operations;
  std::vector<RollbackAction> rollback_actions;
  Status check() const;
};
BOOST_DESCRIBE_STRUCT(AtomicDeviceMemory, (), (operation_type, transaction_id, phase, operations, rollback_actions))

enum class DeviceMemoryValidation { device_memory_consistency };
BOOST_DESCRIBE_ENUM(DeviceMemoryValidation, device_memory_consistency)

/// device_allocation_matches_memory_allocation: the two states. resource_totals_balance: the two totals.
struct ConsistencyCheck {
  std::string check;
  std::optional<std::string> device_state;
  std::optional<std::string> memory_state;
  std::optional<std::uint32_t> total_device_allocations;
  std::optional<std::uint32_t> total_memory_allocations;
  bool consistency = false;
  static constexpr json::Rule rules[] = {
      {.member = "check", .words = "device_allocation_matches_memory_allocation, resource_totals_balance"}};
};
BOOST_DESCRIBE_STRUCT(ConsistencyCheck, (),
                      (check, device_state, memory_state, total_device_allocations, total_memory_allocations,
                       consistency))

/// consistency_score: of the checks, those that hold. transaction_id and device_id: what was checked.
struct DeviceMemoryConsistency {
  static constexpr std::string_view document_name = "device_memory_consistency";
  DeviceMemoryValidation validation_type{};
  std::vector<ConsistencyCheck> validation_checks;
  Ratio consistency_score;
  std::optional<TransactionId> transaction_id;
  std::optional<DeviceId> device_id;
};
BOOST_DESCRIBE_STRUCT(DeviceMemoryConsistency, (),
                      (validation_type, validation_checks, consistency_score, transaction_id, device_id))

// ---- §3.2 model and memory ----------------------------------------------------------------------------------------

enum class ModelMemoryType { atomic_model_memory_loading };
BOOST_DESCRIBE_ENUM(ModelMemoryType, atomic_model_memory_loading)

enum class ModelMemoryOperation { prepare_model_cache, reserve_vram };
BOOST_DESCRIBE_ENUM(ModelMemoryOperation, prepare_model_cache, reserve_vram)

/// prepare_model_cache: model_id, cache_location, required_space. reserve_vram: the other three.
struct ModelMemoryParameters {
  std::optional<ModelId> model_id;
  std::optional<std::string> cache_location;
  std::optional<Bytes> required_space;
  std::optional<DeviceId> target_device;
  std::optional<Bytes> reservation_size;
  std::optional<std::string> reservation_purpose;
};
BOOST_DESCRIBE_STRUCT(ModelMemoryParameters, (),
                      (model_id, cache_location, required_space, target_device, reservation_size, reservation_purpose))

struct ModelMemoryStep {
  StepDomain domain = StepDomain::model;
  ModelMemoryOperation operation = ModelMemoryOperation::prepare_model_cache;
  ModelMemoryParameters parameters;
};
BOOST_DESCRIBE_STRUCT(ModelMemoryStep, (), (domain, operation, parameters))

struct ModelMemoryRequirements {
  bool cache_state_sync = false;
  bool memory_state_sync = false;
  bool loading_state_tracking = false;
};
BOOST_DESCRIBE_STRUCT(ModelMemoryRequirements, (), (cache_state_sync, memory_state_sync, loading_state_tracking))

/// dependency_chain: what must hold, in this order, before the load may be decided.
struct AtomicModelMemory {
  static constexpr std::string_view document_name = "atomic_model_memory_loading";
  ModelMemoryType operation_type{};
  TransactionId transaction_id;
  TransactionPhase phase = TransactionPhase::prepare;
  std::vector<ModelMemoryStep> operations;
  std::vector<std::string> dependency_chain;
  ModelMemoryRequirements consistency_requirements;
  Status check() const;
  static constexpr json::Rule rules[] = {
      {.member = "dependency_chain",
       .words = "ram_cache_available, vram_reservation_successful, model_integrity_verified"}};
};
BOOST_DESCRIBE_STRUCT(AtomicModelMemory, (),
                      (operation_type, transaction_id, phase, operations, dependency_chain, consistency_requirements))

enum class LoadSynchronization { model_loading_state_update };
BOOST_DESCRIBE_ENUM(LoadSynchronization, model_loading_state_update)

/// model: the first three. memory: the others.
struct LoadStateChange {
  std::optional<std::string> model_cache_status;
  std::optional<Ratio> cache_utilization;
  std::optional<Ratio> loading_progress;
  std::optional<std::string> vram_allocation_status;
  std::optional<Bytes> allocated_bytes;
  std::optional<Ratio> allocation_progress;
  static constexpr json::Rule rules[] = {{.member = "model_cache_status", .words = "loading_to_vram, loaded"},
                                         {.member = "vram_allocation_status", .words = "reserved, in_use"}};
};
BOOST_DESCRIBE_STRUCT(LoadStateChange, (),
                      (model_cache_status, cache_utilization, loading_progress, vram_allocation_status, allocated_bytes,
                       allocation_progress))

struct LoadStateUpdate {
  StepDomain domain = StepDomain::model;
  LoadStateChange state_change;
};
BOOST_DESCRIBE_STRUCT(LoadStateUpdate, (), (domain, state_change))

struct LoadCheckpoint {
  Consistency ram_cache_state = Consistency::inconsistent;
  Consistency vram_allocation_state = Consistency::inconsistent;
  Consistency cross_domain_sync = Consistency::inconsistent;
};
BOOST_DESCRIBE_STRUCT(LoadCheckpoint, (), (ram_cache_state, vram_allocation_state, cross_domain_sync))

struct ModelLoadingStateUpdate {
  static constexpr std::string_view document_name = "model_loading_state_update";
  LoadSynchronization synchronization_event{};
  TransactionId transaction_id;
  std::vector<LoadStateUpdate> state_updates;
  LoadCheckpoint consistency_checkpoint;
};
BOOST_DESCRIBE_STRUCT(ModelLoadingStateUpdate, (),
                      (synchronization_event, transaction_id, state_updates, consistency_checkpoint))

enum class LoadRollback { model_loading_failure };
BOOST_DESCRIBE_ENUM(LoadRollback, model_loading_failure)

struct RollbackParameters {
  std::optional<AllocationId> reservation_id;
  std::optional<bool> cleanup_partial_allocation;
  std::optional<ModelId> model_id;
  std::optional<bool> cleanup_incomplete_loading;
  std::optional<TransactionId> transaction_id;
  std::optional<bool> notify_dependent_services;
};
BOOST_DESCRIBE_STRUCT(RollbackParameters, (),
                      (reservation_id, cleanup_partial_allocation, model_id, cleanup_incomplete_loading, transaction_id,
                       notify_dependent_services))

struct RollbackStep {
  std::uint32_t step = 0;
  StepDomain domain = StepDomain::both;
  std::string action;
  RollbackParameters parameters;
  static constexpr json::Rule rules[] = {
      {.member = "step", .min = 1},
      {.member = "action", .words = "release_vram_reservation, cleanup_partial_cache, reset_loading_state"}};
};
BOOST_DESCRIBE_STRUCT(RollbackStep, (), (step, domain, action, parameters))

/// reason: why the copy was taken back.
struct ModelLoadingFailure {
  static constexpr std::string_view document_name = "model_loading_failure";
  LoadRollback rollback_scenario{};
  TransactionId transaction_id;
  std::vector<RollbackStep> rollback_sequence;
  std::optional<std::string> reason;
};
BOOST_DESCRIBE_STRUCT(ModelLoadingFailure, (), (rollback_scenario, transaction_id, rollback_sequence, reason))

// ---- §3.3 processing and inference --------------------------------------------------------------------------------

enum class ProcessingInferenceType { atomic_processing_inference };
BOOST_DESCRIBE_ENUM(ProcessingInferenceType, atomic_processing_inference)

struct SessionContext {
  std::string processing_session_id;
  std::string inference_batch_id;
  std::string coordination_mode;
  static constexpr json::Rule rules[] = {{.member = "coordination_mode", .words = "tightly_coupled"}};
};
BOOST_DESCRIBE_STRUCT(SessionContext, (), (processing_session_id, inference_batch_id, coordination_mode))

struct ResourceRequirements {
  SizeText memory;
  DeviceId gpu_allocation;
  AllocationPriority session_priority = AllocationPriority::normal;
};
BOOST_DESCRIBE_STRUCT(ResourceRequirements, (), (memory, gpu_allocation, session_priority))

enum class ProcessingInferenceOperation { reserve_session_resources, prepare_inference_context };
BOOST_DESCRIBE_ENUM(ProcessingInferenceOperation, reserve_session_resources, prepare_inference_context)

/// reserve_session_resources: the first two. prepare_inference_context: the others.
struct ProcessingInferenceParameters {
  std::optional<std::string> session_id;
  std::optional<ResourceRequirements> resource_requirements;
  std::optional<std::string> batch_id;
  std::optional<std::vector<ModelId>> model_requirements;
  std::optional<std::string> inference_type;
};
BOOST_DESCRIBE_STRUCT(ProcessingInferenceParameters, (),
                      (session_id, resource_requirements, batch_id, model_requirements, inference_type))

struct ProcessingInferenceStep {
  StepDomain domain = StepDomain::processing;
  ProcessingInferenceOperation operation = ProcessingInferenceOperation::reserve_session_resources;
  ProcessingInferenceParameters parameters;
};
BOOST_DESCRIBE_STRUCT(ProcessingInferenceStep, (), (domain, operation, parameters))

struct SessionGuarantees {
  bool resource_isolation = false;
  bool session_state_coherence = false;
  bool inference_context_validity = false;
};
BOOST_DESCRIBE_STRUCT(SessionGuarantees, (), (resource_isolation, session_state_coherence, inference_context_validity))

struct AtomicProcessingInference {
  static constexpr std::string_view document_name = "atomic_processing_inference";
  ProcessingInferenceType operation_type{};
  TransactionId transaction_id;
  SessionContext session_context;
  std::vector<ProcessingInferenceStep> atomic_operations;
  SessionGuarantees consistency_guarantees;
  Status check() const;
};
BOOST_DESCRIBE_STRUCT(AtomicProcessingInference, (),
                      (operation_type, transaction_id, session_context, atomic_operations, consistency_guarantees))

enum class SessionCoordination { session_inference_state_sync };
BOOST_DESCRIBE_ENUM(SessionCoordination, session_inference_state_sync)

enum class SyncDirection { processing_to_inference, inference_to_processing };
BOOST_DESCRIBE_ENUM(SyncDirection, processing_to_inference, inference_to_processing)

/// processing_to_inference: the first four. inference_to_processing: the others.
struct SessionSyncData {
  std::optional<std::string> session_status;
  std::optional<std::string> resource_allocation;
  std::optional<std::uint32_t> operation_queue;
  std::optional<AllocationPriority> priority_level;
  std::optional<std::string> inference_readiness;
  std::optional<std::string> model_loading_status;
  std::optional<DurationText> estimated_execution_time;
  std::optional<Ratio> resource_utilization;
  static constexpr json::Rule rules[] = {
      {.member = "session_status", .words = "active, paused, ended, none"},
      {.member = "resource_allocation", .words = "confirmed, released"},
      {.member = "inference_readiness", .words = "prepared, executing, completed, failed"},
      {.member = "model_loading_status", .words = "complete, incomplete"}};
};
BOOST_DESCRIBE_STRUCT(SessionSyncData, (),
                      (session_status, resource_allocation, operation_queue, priority_level, inference_readiness,
                       model_loading_status, estimated_execution_time, resource_utilization))

struct SessionSync {
  SyncDirection direction = SyncDirection::processing_to_inference;
  SessionSyncData data;
};
BOOST_DESCRIBE_STRUCT(SessionSync, (), (direction, data))

struct SessionValidation {
  bool resource_allocation_match = false;
  bool priority_alignment = false;
  bool timing_coordination = false;
};
BOOST_DESCRIBE_STRUCT(SessionValidation, (), (resource_allocation_match, priority_alignment, timing_coordination))

struct SessionInferenceSync {
  static constexpr std::string_view document_name = "session_inference_state_sync";
  SessionCoordination coordination_event{};
  TransactionId transaction_id;
  std::string coordination_type;
  std::vector<SessionSync> state_synchronization;
  SessionValidation consistency_validation;
  static constexpr json::Rule rules[] = {{.member = "coordination_type", .words = "bidirectional"}};
};
BOOST_DESCRIBE_STRUCT(SessionInferenceSync, (),
                      (coordination_event, transaction_id, coordination_type, state_synchronization,
                       consistency_validation))

// ---- §3.4 inference and postprocessing ----------------------------------------------------------------------------

enum class InferencePostprocessingType { atomic_inference_postprocessing };
BOOST_DESCRIBE_ENUM(InferencePostprocessingType, atomic_inference_postprocessing)

struct PipelineCoordination {
  std::string inference_request_id;
  std::string postprocessing_pipeline_id;
  std::string coordination_mode;
  static constexpr json::Rule rules[] = {{.member = "coordination_mode", .words = "streaming"}};
};
BOOST_DESCRIBE_STRUCT(PipelineCoordination, (), (inference_request_id, postprocessing_pipeline_id, coordination_mode))

struct PostprocessingNeeds {
  bool safety_check = false;
  bool upscaling = false;
  std::string format_conversion;
  static constexpr json::Rule rules[] = {{.member = "format_conversion", .words = "png, jpeg, webp"}};
};
BOOST_DESCRIBE_STRUCT(PostprocessingNeeds, (), (safety_check, upscaling, format_conversion))

enum class InferencePostprocessingOperation { execute_with_postprocessing_preparation, prepare_pipeline_for_inference };
BOOST_DESCRIBE_ENUM(InferencePostprocessingOperation, execute_with_postprocessing_preparation,
                    prepare_pipeline_for_inference)

/// execute_with_postprocessing_preparation: the first two. prepare_pipeline_for_inference: the others.
struct InferencePostprocessingParameters {
  std::optional<std::string> request_id;
  std::optional<PostprocessingNeeds> postprocessing_requirements;
  std::optional<std::string> pipeline_id;
  std::optional<std::string> expected_input_format;
  std::optional<std::vector<std::string>> processing_sequence;
};
BOOST_DESCRIBE_STRUCT(InferencePostprocessingParameters, (),
                      (request_id, postprocessing_requirements, pipeline_id, expected_input_format,
                       processing_sequence))

struct InferencePostprocessingStep {
  StepDomain domain = StepDomain::inference;
  InferencePostprocessingOperation operation =
      InferencePostprocessingOperation::execute_with_postprocessing_preparation;
  InferencePostprocessingParameters parameters;
};
BOOST_DESCRIBE_STRUCT(InferencePostprocessingStep, (), (domain, operation, parameters))

struct StreamingCoordination {
  std::string buffer_management;
  std::vector<std::string> quality_gates;
  std::string error_handling;
  static constexpr json::Rule rules[] = {
      {.member = "buffer_management", .words = "shared"},
      {.member = "quality_gates", .words = "safety_validation, technical_quality"},
      {.member = "error_handling", .words = "cascade_rollback, keep_delivered, finish_others"}};
};
BOOST_DESCRIBE_STRUCT(StreamingCoordination, (), (buffer_management, quality_gates, error_handling))

struct AtomicInferencePostprocessing {
  static constexpr std::string_view document_name = "atomic_inference_postprocessing";
  InferencePostprocessingType operation_type{};
  TransactionId transaction_id;
  PipelineCoordination pipeline_coordination;
  std::vector<InferencePostprocessingStep> atomic_operations;
  StreamingCoordination streaming_coordination;
  Status check() const;
};
BOOST_DESCRIBE_STRUCT(AtomicInferencePostprocessing, (),
                      (operation_type, transaction_id, pipeline_coordination, atomic_operations,
                       streaming_coordination))

enum class PipelineFlow { inference_postprocessing_pipeline };
BOOST_DESCRIBE_ENUM(PipelineFlow, inference_postprocessing_pipeline)

enum class FlowStageName { preparation, execution, completion };
BOOST_DESCRIBE_ENUM(FlowStageName, preparation, execution, completion)

/// consistent: what its check came to; absent for a stage that was not reached.
struct FlowStage {
  FlowStageName stage = FlowStageName::preparation;
  std::vector<std::string> actions;
  std::string consistency_check;
  std::optional<bool> consistent;
  std::optional<std::string> found;  // what was inconsistent
  static constexpr json::Rule rules[] = {
      {.member = "consistency_check",
       .words = "all_resources_available, streaming_integrity, complete_pipeline_success"}};
};
BOOST_DESCRIBE_STRUCT(FlowStage, (), (stage, actions, consistency_check, consistent, found))

struct InferencePostprocessingFlow {
  static constexpr std::string_view document_name = "inference_postprocessing_pipeline";
  PipelineFlow transaction_flow{};
  TransactionId transaction_id;
  std::vector<FlowStage> flow_stages;
};
BOOST_DESCRIBE_STRUCT(InferencePostprocessingFlow, (), (transaction_flow, transaction_id, flow_stages))

// ---- §3.5 two-phase commit ----------------------------------------------------------------------------------------

enum class Coordinator { c_sharp_orchestrator };
BOOST_DESCRIBE_ENUM(Coordinator, c_sharp_orchestrator)

enum class CoordinatorDecision { proceed_to_commit, abort };
BOOST_DESCRIBE_ENUM(CoordinatorDecision, proceed_to_commit, abort)

/// reason: why it voted against it, or that it did not vote.
struct PrepareVote {
  std::string participant;
  Vote prepare_result = Vote::vote_abort;
  std::vector<std::string> resource_locks;
  std::string rollback_capability;
  std::optional<std::string> reason;
  static constexpr json::Rule rules[] = {{.member = "rollback_capability", .words = "confirmed, not_needed"}};
};
BOOST_DESCRIBE_STRUCT(PrepareVote, (), (participant, prepare_result, resource_locks, rollback_capability, reason))

enum class PreparePhase { prepare };
BOOST_DESCRIBE_ENUM(PreparePhase, prepare)

struct TransactionVoting {
  static constexpr std::string_view document_name = "transaction_voting";
  Coordinator transaction_coordinator{};
  TransactionId transaction_id;
  PreparePhase phase{};
  std::vector<PrepareVote> participants;
  CoordinatorDecision coordinator_decision = CoordinatorDecision::abort;
};
BOOST_DESCRIBE_STRUCT(TransactionVoting, (),
                      (transaction_coordinator, transaction_id, phase, participants, coordinator_decision))

enum class CoordinatorCommand { commit, abort };
BOOST_DESCRIBE_ENUM(CoordinatorCommand, commit, abort)

enum class CommitPhase { commit, abort };
BOOST_DESCRIBE_ENUM(CommitPhase, commit, abort)

/// pending: the participant was told and has not answered. lost: its incarnation is gone; the decision stays.
enum class CommitResult { committed, aborted, pending, lost };
BOOST_DESCRIBE_ENUM(CommitResult, committed, aborted, pending, lost)

struct ParticipantResponse {
  std::string participant;
  CommitResult commit_result = CommitResult::pending;
  std::string resource_status;
  Timestamp timestamp;
  static constexpr json::Rule rules[] = {
      {.member = "resource_status", .words = "allocated, model_loaded, model_loading, released, lost"}};
};
BOOST_DESCRIBE_STRUCT(ParticipantResponse, (), (participant, commit_result, resource_status, timestamp))

struct TransactionOutcome {
  static constexpr std::string_view document_name = "transaction_outcome";
  Coordinator transaction_coordinator{};
  TransactionId transaction_id;
  CommitPhase phase = CommitPhase::commit;
  CoordinatorCommand coordinator_command = CoordinatorCommand::commit;
  std::vector<ParticipantResponse> participant_responses;
  std::string transaction_status;
  static constexpr json::Rule rules[] = {
      {.member = "transaction_status",
       .words = "committing, committed_successfully, committed_participant_lost, aborted"}};
};
BOOST_DESCRIBE_STRUCT(TransactionOutcome, (),
                      (transaction_coordinator, transaction_id, phase, coordinator_command, participant_responses,
                       transaction_status))

// ---- §3.6 saga ----------------------------------------------------------------------------------------------------

enum class SagaStepStatus { pending, running, completed, failed, compensated };
BOOST_DESCRIBE_ENUM(SagaStepStatus, pending, running, completed, failed, compensated)

struct SagaStep {
  std::uint32_t step = 0;
  std::string service;
  std::string action;
  std::string compensation;
  SagaStepStatus status = SagaStepStatus::pending;
  static constexpr json::Rule rules[] = {{.member = "step", .min = 1}};
};
BOOST_DESCRIBE_STRUCT(SagaStep, (), (step, service, action, compensation, status))

/// compensation_sequence: what is or was undone, in this order; empty while the saga goes forward.
struct Saga {
  static constexpr std::string_view document_name = "saga";
  std::string saga_type;
  std::string saga_id;
  std::vector<SagaStep> saga_steps;
  std::vector<std::string> compensation_sequence;
  SagaStatus saga_status = SagaStatus::running;
  Status check() const;
  static constexpr json::Rule rules[] = {
      {.member = "saga_type", .words = "cross_domain_model_loading, session_workflow"}};
};
BOOST_DESCRIBE_STRUCT(Saga, (), (saga_type, saga_id, saga_steps, compensation_sequence, saga_status))

// ---- §3.8 partial allocation --------------------------------------------------------------------------------------

enum class PartialAllocation { partial_resource_allocation_failure };
BOOST_DESCRIBE_ENUM(PartialAllocation, partial_resource_allocation_failure)

struct AllocatedResource {
  std::string resource;
  std::string status;
  bool rollback_required = false;
  static constexpr json::Rule rules[] = {
      {.member = "resource", .words = "device_reservation, ram_cache_space, vram_allocation"},
      {.member = "status", .words = "allocated, released"}};
};
BOOST_DESCRIBE_STRUCT(AllocatedResource, (), (resource, status, rollback_required))

struct RollbackCoordination {
  std::string rollback_order;
  std::vector<std::string> rollback_sequence;
  std::string consistency_validation;
  static constexpr json::Rule rules[] = {
      {.member = "rollback_order", .words = "reverse_allocation_order"},
      {.member = "consistency_validation", .words = "verify_all_resources_released"}};
};
BOOST_DESCRIBE_STRUCT(RollbackCoordination, (), (rollback_order, rollback_sequence, consistency_validation))

/// What verify_all_resources_released came to. ledger: no row is the transaction's. allocator: what the worker's own
/// allocator counts, of a processor the kernel's map, leaves no room for what the load had. driver: what the driver
/// counts for its process beyond that has not grown since the load began. Absent: nothing was measured yet, or it does
/// not tell.
struct ReleaseProof {
  bool ledger = false;
  std::optional<bool> allocator;
  std::optional<bool> driver;
  std::optional<std::string> found;
};
BOOST_DESCRIBE_STRUCT(ReleaseProof, (), (ledger, allocator, driver, found))

struct PartialAllocationFailure {
  static constexpr std::string_view document_name = "partial_resource_allocation_failure";
  PartialAllocation failure_scenario{};
  std::string failure_point;
  std::vector<AllocatedResource> allocated_resources;
  RollbackCoordination rollback_coordination;
  std::optional<TransactionId> transaction_id;
  std::optional<std::string> reason;
  std::optional<ReleaseProof> verified;
  Status check() const;
  static constexpr json::Rule rules[] = {
      {.member = "failure_point",
       .words = "vram_allocation_failed, worker_lost, prepare_timeout, overruled, copy_failed"}};
};
BOOST_DESCRIBE_STRUCT(PartialAllocationFailure, (),
                      (failure_scenario, failure_point, allocated_resources, rollback_coordination, transaction_id,
                       reason, verified))

}  // namespace lockstep
