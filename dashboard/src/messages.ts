// The messages of the worker link and the event stream.
// Made by tools/generate_types.py from `lockstep message schema`; not edited by hand.

export type AllocationPriority = "critical" | "high" | "normal" | "low";

export interface DeviceChanges {
  optimization_profile?: string | null;  // open: performance, balanced, efficiency
  power_limit?: number | null;  // watts; 1 or more
  memory_allocation_policy?: string | null;  // open: aggressive, moderate, conservative
}

export interface DeviceConfigUpdate {
  event_type: "device_config_update";
  device_id: string;
  changes: DeviceChanges;
  propagation_priority: AllocationPriority;
  requires_confirmation: boolean;
  temperature_critical?: number | null;  // degrees Celsius; 0 to 200
}

export interface DeviceRoutingUpdate {
  event_type: "device_routing_update";
  routing_table: Record<string, string>;
  effective_immediately: boolean;
}

export interface Deviation {
  metric: string;  // open: temperature, power_draw, step_time:<model>
  value: number;
  usual: number;
  deviations: number;
}

export interface AllocatorStatistics {
  allocated: number;  // bytes
  reserved: number;  // bytes
  inactive_split: number;  // bytes
  retries: number;
  out_of_memory: number;
}

export interface DeviceDiagnostics {
  name?: string | null;
  driver_version?: string | null;
  power_draw?: number | null;  // watts
  power_limit?: number | null;  // watts, as enforced
  // open: power_cap, hardware_slowdown, software_thermal, hardware_thermal, power_brake, processor_hot
  throttle_reasons?: string[] | null;
  memory_errors?: number | null;
  memory_total?: number | null;  // bytes
  memory_used?: number | null;  // bytes
  process_memory?: number | null;  // bytes
  allocator?: AllocatorStatistics | null;
  deviations: Deviation[];
  temperature_critical?: number | null;  // degrees Celsius; 0 to 200
}

export type Timestamp = string;  // RFC 3339

export interface HealthMetrics {
  temperature?: number | null;  // degrees Celsius; -273.15 or more
  utilization: number;  // 0 to 100
  memory_usage: number;  // 0 to 1
  error_count: number;
}

export interface DeviceHealthUpdate {
  event_type: "device_health_update";
  device_id: string;
  health_metrics: HealthMetrics;
  timestamp: Timestamp;
  propagation_urgency: AllocationPriority;
  diagnostics?: DeviceDiagnostics | null;
}

export interface DeviceCapabilityDiscovered {
  event_type: "device_capability_discovered";
  device_id: string;
  // open: fp16_inference, tensor_core_acceleration, nvenc_encoding, bf16_inference, fp8_inference
  new_capabilities: string[];
  capability_scores: Record<string, number>;  // 0 to 10
  device_name?: string | null;
  driver_version?: string | null;
}

export interface SystemMemoryAllocated {
  event_type: "system_memory_allocated";
  allocation_id: string;
  allocated_bytes: number;  // bytes
  allocation_purpose: string;  // open: model_cache, model_loading
  memory_pool: string;  // open: system_ram
  available_after_allocation: number;  // bytes
}

export type SizeText = string;  // 8GB is 8 * 2^30 bytes

export interface MemoryPolicyChanges {
  max_model_cache_size?: SizeText | null;
  vram_reservation_limit?: SizeText | null;
  emergency_cleanup_threshold?: number | null;  // 0 to 1
}

export interface MemoryPolicyUpdate {
  event_type: "memory_policy_update";
  policy_changes: MemoryPolicyChanges;
  applies_to: string[];  // open: all_workers
  effective_immediately: boolean;
}

export type PressureLevel = "low" | "moderate" | "high" | "critical";

export interface VramMetrics {
  total_vram: number;  // bytes
  used_vram: number;  // bytes
  available_vram: number;  // bytes
  fragmentation_level: number;  // 0 to 1
}

export interface VramUsageUpdate {
  event_type: "vram_usage_update";
  device_id: string;
  vram_metrics: VramMetrics;
  pressure_level: PressureLevel;
  cleanup_recommended: boolean;
}

export type DurationText = string;  // a length of time: 30s, 5min

export interface MemoryAllocationRequest {
  event_type: "memory_allocation_request";
  request_id: string;
  requested_bytes: number;  // bytes; 1 or more
  allocation_purpose: string;  // open: model_cache, model_loading
  priority: AllocationPriority;
  estimated_duration: DurationText;
}

export interface ModelLoadRequest {
  event_type: "model_load_request";
  model_id: string;
  load_target: string;  // open: vram
  loading_priority: AllocationPriority;
  ram_cache_status: string;  // open: available
  estimated_vram_usage: number;  // bytes
  component_loading_order: string[];  // open: unet, vae, text_encoder
}

export interface CacheChanges {
  added: string[];
  removed: string[];
  cache_utilization: number;  // 0 to 1
}

export interface ModelCacheUpdate {
  event_type: "model_cache_update";
  cache_changes: CacheChanges;
  cache_optimization_performed: boolean;
  available_models: number;
}

export interface ModelLoadingProgress {
  event_type: "model_loading_progress";
  model_id: string;
  loading_stage: string;  // open: loading_unet, loaded
  progress_percentage: number;  // 0 to 100
  vram_allocated: number;  // bytes
  estimated_completion: Timestamp;
  loading_errors: string[];
}

export interface RuntimeMetrics {
  inference_ready: boolean;
  warmup_completed: boolean;
  optimization_level: string;  // open: none, tensorrt
  average_inference_time: number;  // seconds
}

export interface ModelRuntimeUpdate {
  event_type: "model_runtime_update";
  model_id: string;
  runtime_metrics: RuntimeMetrics;
  memory_footprint: number;  // bytes
}

export interface TimeoutSettings {
  operation_timeout: DurationText;
  session_timeout: DurationText;
}

export interface SessionResources {
  priority: AllocationPriority;
  max_memory: SizeText;
  gpu_allocation: string[];
}

export interface ProcessingSessionCreated {
  event_type: "processing_session_created";
  session_id: string;
  workflow_template: string;  // open: sdxl_generation_pipeline
  resource_allocation: SessionResources;
  expected_operations: number;
  timeout_settings: TimeoutSettings;
}

export type SessionCommand = "pause_operations" | "resume_operations" | "cancel_operations";

export interface SessionControlCommand {
  event_type: "session_control_command";
  session_id: string;
  command: SessionCommand;
  reason: string;  // open: memory_pressure_detected
  resume_condition?: string | null;  // open: memory_usage_below_80_percent
}

export interface SessionUsage {
  memory_used: SizeText;
  gpu_utilization: number;  // 0 to 100
}

export interface SessionProgress {
  operations_completed: number;
  operations_remaining: number;
  estimated_completion: Timestamp;
}

export interface SessionProgressUpdate {
  event_type: "session_progress_update";
  session_id: string;
  progress_metrics: SessionProgress;
  current_operation: string;  // open: inference_execution
  resource_usage: SessionUsage;
}

export interface CoordinationRequest {
  requires_model_loading?: string | null;
  requires_memory_allocation?: SizeText | null;
  coordination_priority: AllocationPriority;
}

export interface CrossDomainCoordination {
  event_type: "cross_domain_coordination";
  session_id: string;
  coordination_request: CoordinationRequest;
  dependent_operations: string[];  // open: inference_refinement, postprocessing
  request_id?: string | null;
}

export type Scheduler = "euler_discrete" | "euler_ancestral_discrete" | "ddim" | "dpm_solver_multistep";

export interface InferenceParameters {
  prompt: string;
  steps: number;  // 1 or more
  guidance_scale: number;
  width: number;  // pixels; 8 or more; divisible by 8
  height: number;  // pixels; 8 or more; divisible by 8
  negative_prompt?: string | null;
  seed?: number | null;
  scheduler?: Scheduler | null;
}

export interface ModelConfiguration {
  base_model: string;
  refiner_model?: string | null;
  lora_models?: string[] | null;
}

export interface InferenceRequest {
  event_type: "inference_request";
  request_id: string;
  inference_type: string;  // open: text_to_image
  model_configuration: ModelConfiguration;
  inference_parameters: InferenceParameters;
  priority: AllocationPriority;
  timeout: DurationText;
  batch_id?: string | null;
}

export interface BatchResources {
  vram_limit: SizeText;
  processing_priority: AllocationPriority;
}

export interface BatchConfiguration {
  batch_size: number;  // 1 or more
  parallel_execution: boolean;
  optimization_strategy: string;  // open: throughput, latency
}

export interface InferenceOrchestration {
  event_type: "inference_orchestration";
  batch_id: string;
  batch_configuration: BatchConfiguration;
  resource_allocation: BatchResources;
}

export interface ResourceUtilization {
  vram_usage: SizeText;
  gpu_utilization: number;  // 0 to 100
}

export interface ExecutionMetrics {
  current_step: number;
  total_steps: number;
  step_time_avg: number;  // seconds
  estimated_completion: Timestamp;
}

export interface InferenceProgress {
  event_type: "inference_progress";
  request_id: string;
  execution_metrics: ExecutionMetrics;
  resource_utilization: ResourceUtilization;
}

export interface ImageBuffer {
  format: string;  // open: rgb8, png, jpeg, webp
  width: number;  // pixels
  height: number;  // pixels
  bytes: number;
  sha256: string;
}

export interface ResultMetadata {
  execution_time: number;  // seconds
  total_steps_executed: number;
  final_vram_usage: SizeText;
  result_quality_score: number;  // 0 to 10
}

export interface InferenceCompleted {
  event_type: "inference_completed";
  request_id: string;
  result_metadata: ResultMetadata;
  result_location: string;
  requires_postprocessing: boolean;
  postprocessing_recommendations: string[];  // open: upscaling, safety_check
  result?: ImageBuffer | null;
}

export interface OutputRequirements {
  format: string;  // open: png, jpeg, webp
  quality: string;  // open: lossless, high, medium, low
  metadata_preservation: boolean;
}

export interface PipelineOperation {
  operation: string;  // open: upscaling, safety_check
  model: string;
  target_resolution?: string | null;  // WIDTHxHEIGHT in pixels
  strictness?: string | null;  // open: moderate
}

export interface PostprocessingRequest {
  event_type: "postprocessing_request";
  request_id: string;
  source_inference_id: string;
  postprocessing_pipeline: PipelineOperation[];
  output_requirements: OutputRequirements;
  source?: ImageBuffer | null;
  parameters?: string | null;
  metadata?: Record<string, unknown> | null;
}

export type EnforcementAction = "reject" | "flag_for_review" | "allow";

export interface EnforcementActions {
  below_safety_threshold: EnforcementAction;
  below_quality_threshold: EnforcementAction;
}

export interface SafetyThresholds {
  content_safety_minimum: number;  // 0 to 1
  quality_minimum: number;  // 0 to 10
  technical_compliance: string;  // open: strict
}

export interface SafetyPolicyUpdate {
  event_type: "safety_policy_update";
  policy_version: string;
  safety_thresholds: SafetyThresholds;
  enforcement_actions: EnforcementActions;
}

export interface QualityMetrics {
  upscaling_quality_score?: number | null;  // 0 to 10
  processing_time?: number | null;  // seconds so far
}

export interface PipelineProgress {
  current_operation: string;
  operations_completed: number;
  total_operations: number;
  current_operation_progress: number;  // 0 to 100
}

export interface PostprocessingProgress {
  event_type: "postprocessing_progress";
  request_id: string;
  pipeline_progress: PipelineProgress;
  quality_metrics: QualityMetrics;
}

export interface OperationUsage {
  operation: string;  // open: upscaling, safety_check
  model: string;
  seconds: number;  // seconds
  peak: number;  // bytes
}

export interface ProcessingMetadata {
  total_processing_time: number;  // seconds
  resource_usage_peak: SizeText;
}

export interface QualityAssessment {
  technical_quality: number;  // 0 to 10
  visual_quality: number;  // 0 to 10
  enhancement_effectiveness: number;  // 0 to 10
}

export interface SafetyAnalysis {
  content_safety_score: number;  // 1 is safe; 0 to 1
  safety_classification: string;  // open: safe, unsafe
  flagged_content: string[];
}

export interface FinalResults {
  safety_analysis?: SafetyAnalysis | null;
  quality_assessment: QualityAssessment;
}

export interface PostprocessingCompleted {
  event_type: "postprocessing_completed";
  request_id: string;
  final_results: FinalResults;
  output_location: string;
  processing_metadata: ProcessingMetadata;
  output?: ImageBuffer | null;
  operations?: string[] | null;
  usage?: OperationUsage[] | null;
}

export type StepDomain = "device" | "memory" | "model" | "processing" | "inference" | "postprocessing" | "both";

export interface RollbackAction {
  domain: StepDomain;
  action: string;  // open: release_device_reservation, deallocate_reserved_memory
  condition: string;  // open: memory_allocation_failed, device_reservation_failed
}

export interface DeviceMemoryParameters {
  device_id: string;
  operation_type?: string | null;
  estimated_duration?: DurationText | null;
  allocation_size?: number | null;  // bytes
  allocation_purpose?: string | null;
}

export type DeviceMemoryOperation = "reserve_device" | "allocate_vram";

export interface DeviceMemoryStep {
  domain: StepDomain;
  operation: DeviceMemoryOperation;
  parameters: DeviceMemoryParameters;
}

export type TransactionPhase = "prepare" | "commit" | "abort";

export type DeviceMemoryType = "atomic_device_memory_allocation";

export interface AtomicDeviceMemory {
  operation_type: DeviceMemoryType;
  transaction_id: string;
  phase: TransactionPhase;
  operations: DeviceMemoryStep[];
  rollback_actions: RollbackAction[];
}

export interface ConsistencyCheck {
  check: string;  // open: device_allocation_matches_memory_allocation, resource_totals_balance
  device_state?: string | null;
  memory_state?: string | null;
  total_device_allocations?: number | null;
  total_memory_allocations?: number | null;
  consistency: boolean;
}

export type DeviceMemoryValidation = "device_memory_consistency";

export interface DeviceMemoryConsistency {
  validation_type: DeviceMemoryValidation;
  validation_checks: ConsistencyCheck[];
  consistency_score: number;  // 0 to 1
  transaction_id?: string | null;
  device_id?: string | null;
}

export interface ModelMemoryRequirements {
  cache_state_sync: boolean;
  memory_state_sync: boolean;
  loading_state_tracking: boolean;
}

export interface ModelMemoryParameters {
  model_id?: string | null;
  cache_location?: string | null;
  required_space?: number | null;  // bytes
  target_device?: string | null;
  reservation_size?: number | null;  // bytes
  reservation_purpose?: string | null;
}

export type ModelMemoryOperation = "prepare_model_cache" | "reserve_vram";

export interface ModelMemoryStep {
  domain: StepDomain;
  operation: ModelMemoryOperation;
  parameters: ModelMemoryParameters;
}

export type ModelMemoryType = "atomic_model_memory_loading";

export interface AtomicModelMemory {
  operation_type: ModelMemoryType;
  transaction_id: string;
  phase: TransactionPhase;
  operations: ModelMemoryStep[];
  dependency_chain: string[];  // open: ram_cache_available, vram_reservation_successful, model_integrity_verified
  consistency_requirements: ModelMemoryRequirements;
}

export type Consistency = "consistent" | "inconsistent";

export interface LoadCheckpoint {
  ram_cache_state: Consistency;
  vram_allocation_state: Consistency;
  cross_domain_sync: Consistency;
}

export interface LoadStateChange {
  model_cache_status?: string | null;  // open: loading_to_vram, loaded
  cache_utilization?: number | null;  // 0 to 1
  loading_progress?: number | null;  // 0 to 1
  vram_allocation_status?: string | null;  // open: reserved, in_use
  allocated_bytes?: number | null;  // bytes
  allocation_progress?: number | null;  // 0 to 1
}

export interface LoadStateUpdate {
  domain: StepDomain;
  state_change: LoadStateChange;
}

export type LoadSynchronization = "model_loading_state_update";

export interface ModelLoadingStateUpdate {
  synchronization_event: LoadSynchronization;
  transaction_id: string;
  state_updates: LoadStateUpdate[];
  consistency_checkpoint: LoadCheckpoint;
}

export interface RollbackParameters {
  reservation_id?: string | null;
  cleanup_partial_allocation?: boolean | null;
  model_id?: string | null;
  cleanup_incomplete_loading?: boolean | null;
  transaction_id?: string | null;
  notify_dependent_services?: boolean | null;
}

export interface RollbackStep {
  step: number;  // 1 or more
  domain: StepDomain;
  action: string;  // open: release_vram_reservation, cleanup_partial_cache, reset_loading_state
  parameters: RollbackParameters;
}

export type LoadRollback = "model_loading_failure";

export interface ModelLoadingFailure {
  rollback_scenario: LoadRollback;
  transaction_id: string;
  rollback_sequence: RollbackStep[];
  reason?: string | null;
}

export interface SessionGuarantees {
  resource_isolation: boolean;
  session_state_coherence: boolean;
  inference_context_validity: boolean;
}

export interface ResourceRequirements {
  memory: SizeText;
  gpu_allocation: string;
  session_priority: AllocationPriority;
}

export interface ProcessingInferenceParameters {
  session_id?: string | null;
  resource_requirements?: ResourceRequirements | null;
  batch_id?: string | null;
  model_requirements?: string[] | null;
  inference_type?: string | null;
}

export type ProcessingInferenceOperation = "reserve_session_resources" | "prepare_inference_context";

export interface ProcessingInferenceStep {
  domain: StepDomain;
  operation: ProcessingInferenceOperation;
  parameters: ProcessingInferenceParameters;
}

export interface SessionContext {
  processing_session_id: string;
  inference_batch_id: string;
  coordination_mode: string;  // open: tightly_coupled
}

export type ProcessingInferenceType = "atomic_processing_inference";

export interface AtomicProcessingInference {
  operation_type: ProcessingInferenceType;
  transaction_id: string;
  session_context: SessionContext;
  atomic_operations: ProcessingInferenceStep[];
  consistency_guarantees: SessionGuarantees;
}

export interface SessionValidation {
  resource_allocation_match: boolean;
  priority_alignment: boolean;
  timing_coordination: boolean;
}

export interface SessionSyncData {
  session_status?: string | null;  // open: active, paused, ended, none
  resource_allocation?: string | null;  // open: confirmed, released
  operation_queue?: number | null;
  priority_level?: AllocationPriority | null;
  inference_readiness?: string | null;  // open: prepared, executing, completed, failed
  model_loading_status?: string | null;  // open: complete, incomplete
  estimated_execution_time?: DurationText | null;
  resource_utilization?: number | null;  // 0 to 1
}

export type SyncDirection = "processing_to_inference" | "inference_to_processing";

export interface SessionSync {
  direction: SyncDirection;
  data: SessionSyncData;
}

export type SessionCoordination = "session_inference_state_sync";

export interface SessionInferenceSync {
  coordination_event: SessionCoordination;
  transaction_id: string;
  coordination_type: string;  // open: bidirectional
  state_synchronization: SessionSync[];
  consistency_validation: SessionValidation;
}

export interface StreamingCoordination {
  buffer_management: string;  // open: shared
  quality_gates: string[];  // open: safety_validation, technical_quality
  error_handling: string;  // open: cascade_rollback, keep_delivered, finish_others
}

export interface PostprocessingNeeds {
  safety_check: boolean;
  upscaling: boolean;
  format_conversion: string;  // open: png, jpeg, webp
}

export interface InferencePostprocessingParameters {
  request_id?: string | null;
  postprocessing_requirements?: PostprocessingNeeds | null;
  pipeline_id?: string | null;
  expected_input_format?: string | null;
  processing_sequence?: string[] | null;
}

export type InferencePostprocessingOperation = "execute_with_postprocessing_preparation" | "prepare_pipeline_for_inference";

export interface InferencePostprocessingStep {
  domain: StepDomain;
  operation: InferencePostprocessingOperation;
  parameters: InferencePostprocessingParameters;
}

export interface PipelineCoordination {
  inference_request_id: string;
  postprocessing_pipeline_id: string;
  coordination_mode: string;  // open: streaming
}

export type InferencePostprocessingType = "atomic_inference_postprocessing";

export interface AtomicInferencePostprocessing {
  operation_type: InferencePostprocessingType;
  transaction_id: string;
  pipeline_coordination: PipelineCoordination;
  atomic_operations: InferencePostprocessingStep[];
  streaming_coordination: StreamingCoordination;
}

export type FlowStageName = "preparation" | "execution" | "completion";

export interface FlowStage {
  stage: FlowStageName;
  actions: string[];
  consistency_check: string;  // open: all_resources_available, streaming_integrity, complete_pipeline_success
  consistent?: boolean | null;
  found?: string | null;
}

export type PipelineFlow = "inference_postprocessing_pipeline";

export interface InferencePostprocessingFlow {
  transaction_flow: PipelineFlow;
  transaction_id: string;
  flow_stages: FlowStage[];
}

export type CoordinatorDecision = "proceed_to_commit" | "abort";

export type Vote = "vote_commit" | "vote_abort";

export interface PrepareVote {
  participant: string;
  prepare_result: Vote;
  resource_locks: string[];
  rollback_capability: string;  // open: confirmed, not_needed
  reason?: string | null;
}

export type PreparePhase = "prepare";

export type Coordinator = "c_sharp_orchestrator";

export interface TransactionVoting {
  transaction_coordinator: Coordinator;
  transaction_id: string;
  phase: PreparePhase;
  participants: PrepareVote[];
  coordinator_decision: CoordinatorDecision;
}

export type CommitResult = "committed" | "aborted" | "pending" | "lost";

export interface ParticipantResponse {
  participant: string;
  commit_result: CommitResult;
  resource_status: string;  // open: allocated, model_loaded, model_loading, released, lost
  timestamp: Timestamp;
}

export type CoordinatorCommand = "commit" | "abort";

export type CommitPhase = "commit" | "abort";

export interface TransactionOutcome {
  transaction_coordinator: Coordinator;
  transaction_id: string;
  phase: CommitPhase;
  coordinator_command: CoordinatorCommand;
  participant_responses: ParticipantResponse[];
  transaction_status: string;  // open: committing, committed_successfully, committed_participant_lost, aborted
}

export type SagaStatus = "running" | "completed" | "compensating" | "compensated" | "parked";

export type SagaStepStatus = "pending" | "running" | "completed" | "failed" | "compensated";

export interface SagaStep {
  step: number;  // 1 or more
  service: string;
  action: string;
  compensation: string;
  status: SagaStepStatus;
}

export interface Saga {
  saga_type: string;  // open: cross_domain_model_loading, session_workflow
  saga_id: string;
  saga_steps: SagaStep[];
  compensation_sequence: string[];
  saga_status: SagaStatus;
}

export interface ReleaseProof {
  ledger: boolean;
  allocator?: boolean | null;
  driver?: boolean | null;
  found?: string | null;
}

export interface RollbackCoordination {
  rollback_order: string;  // open: reverse_allocation_order
  rollback_sequence: string[];
  consistency_validation: string;  // open: verify_all_resources_released
}

export interface AllocatedResource {
  resource: string;  // open: device_reservation, ram_cache_space, vram_allocation
  status: string;  // open: allocated, released
  rollback_required: boolean;
}

export type PartialAllocation = "partial_resource_allocation_failure";

export interface PartialAllocationFailure {
  failure_scenario: PartialAllocation;
  failure_point: string;  // open: vram_allocation_failed, worker_lost, prepare_timeout, overruled, copy_failed
  allocated_resources: AllocatedResource[];
  rollback_coordination: RollbackCoordination;
  transaction_id?: string | null;
  reason?: string | null;
  verified?: ReleaseProof | null;
}

export type Message =
  | DeviceConfigUpdate
  | DeviceRoutingUpdate
  | DeviceHealthUpdate
  | DeviceCapabilityDiscovered
  | SystemMemoryAllocated
  | MemoryPolicyUpdate
  | VramUsageUpdate
  | MemoryAllocationRequest
  | ModelLoadRequest
  | ModelCacheUpdate
  | ModelLoadingProgress
  | ModelRuntimeUpdate
  | ProcessingSessionCreated
  | SessionControlCommand
  | SessionProgressUpdate
  | CrossDomainCoordination
  | InferenceRequest
  | InferenceOrchestration
  | InferenceProgress
  | InferenceCompleted
  | PostprocessingRequest
  | SafetyPolicyUpdate
  | PostprocessingProgress
  | PostprocessingCompleted;
