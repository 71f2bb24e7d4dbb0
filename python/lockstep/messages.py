"""The messages of the worker link and the event stream.

Made by tools/generate_types.py from `lockstep message schema`; not edited by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional


AllocationPriority = Literal["critical", "high", "normal", "low"]


@dataclass(kw_only=True)
class DeviceChanges:
    optimization_profile: Optional[str] = None  # open: performance, balanced, efficiency
    power_limit: Optional[int] = None  # watts; 1 or more
    memory_allocation_policy: Optional[str] = None  # open: aggressive, moderate, conservative


@dataclass(kw_only=True)
class DeviceConfigUpdate:
    event_type: ClassVar[str] = "device_config_update"
    device_id: str
    changes: DeviceChanges
    propagation_priority: AllocationPriority
    requires_confirmation: bool
    temperature_critical: Optional[float] = None  # degrees Celsius; 0 to 200


@dataclass(kw_only=True)
class DeviceRoutingUpdate:
    event_type: ClassVar[str] = "device_routing_update"
    routing_table: dict[str, str]
    effective_immediately: bool


@dataclass(kw_only=True)
class Deviation:
    metric: str  # open: temperature, power_draw, step_time:<model>
    value: float
    usual: float
    deviations: float


@dataclass(kw_only=True)
class AllocatorStatistics:
    allocated: int  # bytes
    reserved: int  # bytes
    inactive_split: int  # bytes
    retries: int
    out_of_memory: int


@dataclass(kw_only=True)
class DeviceDiagnostics:
    name: Optional[str] = None
    driver_version: Optional[str] = None
    power_draw: Optional[float] = None  # watts
    power_limit: Optional[float] = None  # watts, as enforced
    # open: power_cap, hardware_slowdown, software_thermal, hardware_thermal, power_brake, processor_hot
    throttle_reasons: Optional[list[str]] = None
    memory_errors: Optional[int] = None
    memory_total: Optional[int] = None  # bytes
    memory_used: Optional[int] = None  # bytes
    process_memory: Optional[int] = None  # bytes
    allocator: Optional[AllocatorStatistics] = None
    deviations: list[Deviation]
    temperature_critical: Optional[float] = None  # degrees Celsius; 0 to 200


Timestamp = str  # RFC 3339


@dataclass(kw_only=True)
class HealthMetrics:
    temperature: Optional[float] = None  # degrees Celsius; -273.15 or more
    utilization: float  # 0 to 100
    memory_usage: float  # 0 to 1
    error_count: int


@dataclass(kw_only=True)
class DeviceHealthUpdate:
    event_type: ClassVar[str] = "device_health_update"
    device_id: str
    health_metrics: HealthMetrics
    timestamp: Timestamp
    propagation_urgency: AllocationPriority
    diagnostics: Optional[DeviceDiagnostics] = None


@dataclass(kw_only=True)
class DeviceCapabilityDiscovered:
    event_type: ClassVar[str] = "device_capability_discovered"
    device_id: str
    # open: fp16_inference, tensor_core_acceleration, nvenc_encoding, bf16_inference, fp8_inference
    new_capabilities: list[str]
    capability_scores: dict[str, float]  # 0 to 10
    device_name: Optional[str] = None
    driver_version: Optional[str] = None


@dataclass(kw_only=True)
class SystemMemoryAllocated:
    event_type: ClassVar[str] = "system_memory_allocated"
    allocation_id: str
    allocated_bytes: int  # bytes
    allocation_purpose: str  # open: model_cache, model_loading
    memory_pool: str  # open: system_ram
    available_after_allocation: int  # bytes


SizeText = str  # 8GB is 8 * 2^30 bytes


@dataclass(kw_only=True)
class MemoryPolicyChanges:
    max_model_cache_size: Optional[SizeText] = None
    vram_reservation_limit: Optional[SizeText] = None
    emergency_cleanup_threshold: Optional[float] = None  # 0 to 1


@dataclass(kw_only=True)
class MemoryPolicyUpdate:
    event_type: ClassVar[str] = "memory_policy_update"
    policy_changes: MemoryPolicyChanges
    applies_to: list[str]  # open: all_workers
    effective_immediately: bool


PressureLevel = Literal["low", "moderate", "high", "critical"]


@dataclass(kw_only=True)
class VramMetrics:
    total_vram: int  # bytes
    used_vram: int  # bytes
    available_vram: int  # bytes
    fragmentation_level: float  # 0 to 1


@dataclass(kw_only=True)
class VramUsageUpdate:
    event_type: ClassVar[str] = "vram_usage_update"
    device_id: str
    vram_metrics: VramMetrics
    pressure_level: PressureLevel
    cleanup_recommended: bool


DurationText = str  # a length of time: 30s, 5min


@dataclass(kw_only=True)
class MemoryAllocationRequest:
    event_type: ClassVar[str] = "memory_allocation_request"
    request_id: str
    requested_bytes: int  # bytes; 1 or more
    allocation_purpose: str  # open: model_cache, model_loading
    priority: AllocationPriority
    estimated_duration: DurationText


@dataclass(kw_only=True)
class ModelLoadRequest:
    event_type: ClassVar[str] = "model_load_request"
    model_id: str
    load_target: str  # open: vram
    loading_priority: AllocationPriority
    ram_cache_status: str  # open: available
    estimated_vram_usage: int  # bytes
    component_loading_order: list[str]  # open: unet, vae, text_encoder


@dataclass(kw_only=True)
class CacheChanges:
    added: list[str]
    removed: list[str]
    cache_utilization: float  # 0 to 1


@dataclass(kw_only=True)
class ModelCacheUpdate:
    event_type: ClassVar[str] = "model_cache_update"
    cache_changes: CacheChanges
    cache_optimization_performed: bool
    available_models: int


@dataclass(kw_only=True)
class ModelLoadingProgress:
    event_type: ClassVar[str] = "model_loading_progress"
    model_id: str
    loading_stage: str  # open: loading_unet, loaded
    progress_percentage: float  # 0 to 100
    vram_allocated: int  # bytes
    estimated_completion: Timestamp
    loading_errors: list[str]


@dataclass(kw_only=True)
class RuntimeMetrics:
    inference_ready: bool
    warmup_completed: bool
    optimization_level: str  # open: none, tensorrt
    average_inference_time: float  # seconds


@dataclass(kw_only=True)
class ModelRuntimeUpdate:
    event_type: ClassVar[str] = "model_runtime_update"
    model_id: str
    runtime_metrics: RuntimeMetrics
    memory_footprint: int  # bytes


@dataclass(kw_only=True)
class TimeoutSettings:
    operation_timeout: DurationText
    session_timeout: DurationText


@dataclass(kw_only=True)
class SessionResources:
    priority: AllocationPriority
    max_memory: SizeText
    gpu_allocation: list[str]


@dataclass(kw_only=True)
class ProcessingSessionCreated:
    event_type: ClassVar[str] = "processing_session_created"
    session_id: str
    workflow_template: str  # open: sdxl_generation_pipeline
    resource_allocation: SessionResources
    expected_operations: int
    timeout_settings: TimeoutSettings


SessionCommand = Literal["pause_operations", "resume_operations", "cancel_operations"]


@dataclass(kw_only=True)
class SessionControlCommand:
    event_type: ClassVar[str] = "session_control_command"
    session_id: str
    command: SessionCommand
    reason: str  # open: memory_pressure_detected
    resume_condition: Optional[str] = None  # open: memory_usage_below_80_percent


@dataclass(kw_only=True)
class SessionUsage:
    memory_used: SizeText
    gpu_utilization: float  # 0 to 100


@dataclass(kw_only=True)
class SessionProgress:
    operations_completed: int
    operations_remaining: int
    estimated_completion: Timestamp


@dataclass(kw_only=True)
class SessionProgressUpdate:
    event_type: ClassVar[str] = "session_progress_update"
    session_id: str
    progress_metrics: SessionProgress
    current_operation: str  # open: inference_execution
    resource_usage: SessionUsage


@dataclass(kw_only=True)
class CoordinationRequest:
    requires_model_loading: Optional[str] = None
    requires_memory_allocation: Optional[SizeText] = None
    coordination_priority: AllocationPriority


@dataclass(kw_only=True)
class CrossDomainCoordination:
    event_type: ClassVar[str] = "cross_domain_coordination"
    session_id: str
    coordination_request: CoordinationRequest
    dependent_operations: list[str]  # open: inference_refinement, postprocessing
    request_id: Optional[str] = None


Scheduler = Literal["euler_discrete", "euler_ancestral_discrete", "ddim", "dpm_solver_multistep"]


@dataclass(kw_only=True)
class InferenceParameters:
    prompt: str
    steps: int  # 1 or more
    guidance_scale: float
    width: int  # pixels; 8 or more; divisible by 8
    height: int  # pixels; 8 or more; divisible by 8
    negative_prompt: Optional[str] = None
    seed: Optional[int] = None
    scheduler: Optional[Scheduler] = None


@dataclass(kw_only=True)
class ModelConfiguration:
    base_model: str
    refiner_model: Optional[str] = None
    lora_models: Optional[list[str]] = None


@dataclass(kw_only=True)
class InferenceRequest:
    event_type: ClassVar[str] = "inference_request"
    request_id: str
    inference_type: str  # open: text_to_image
    model_configuration: ModelConfiguration
    inference_parameters: InferenceParameters
    priority: AllocationPriority
    timeout: DurationText
    batch_id: Optional[str] = None


@dataclass(kw_only=True)
class BatchResources:
    vram_limit: SizeText
    processing_priority: AllocationPriority


@dataclass(kw_only=True)
class BatchConfiguration:
    batch_size: int  # 1 or more
    parallel_execution: bool
    optimization_strategy: str  # open: throughput, latency


@dataclass(kw_only=True)
class InferenceOrchestration:
    event_type: ClassVar[str] = "inference_orchestration"
    batch_id: str
    batch_configuration: BatchConfiguration
    resource_allocation: BatchResources


@dataclass(kw_only=True)
class ResourceUtilization:
    vram_usage: SizeText
    gpu_utilization: float  # 0 to 100


@dataclass(kw_only=True)
class ExecutionMetrics:
    current_step: int
    total_steps: int
    step_time_avg: float  # seconds
    estimated_completion: Timestamp


@dataclass(kw_only=True)
class InferenceProgress:
    event_type: ClassVar[str] = "inference_progress"
    request_id: str
    execution_metrics: ExecutionMetrics
    resource_utilization: ResourceUtilization


@dataclass(kw_only=True)
class ImageBuffer:
    format: str  # open: rgb8, png, jpeg, webp
    width: int  # pixels
    height: int  # pixels
    bytes: int
    sha256: str


@dataclass(kw_only=True)
class ResultMetadata:
    execution_time: float  # seconds
    total_steps_executed: int
    final_vram_usage: SizeText
    result_quality_score: float  # 0 to 10


@dataclass(kw_only=True)
class InferenceCompleted:
    event_type: ClassVar[str] = "inference_completed"
    request_id: str
    result_metadata: ResultMetadata
    result_location: str
    requires_postprocessing: bool
    postprocessing_recommendations: list[str]  # open: upscaling, safety_check
    result: Optional[ImageBuffer] = None


@dataclass(kw_only=True)
class OutputRequirements:
    format: str  # open: png, jpeg, webp
    quality: str  # open: lossless, high, medium, low
    metadata_preservation: bool


@dataclass(kw_only=True)
class PipelineOperation:
    operation: str  # open: upscaling, safety_check
    model: str
    target_resolution: Optional[str] = None  # WIDTHxHEIGHT in pixels
    strictness: Optional[str] = None  # open: moderate


@dataclass(kw_only=True)
class PostprocessingRequest:
    event_type: ClassVar[str] = "postprocessing_request"
    request_id: str
    source_inference_id: str
    postprocessing_pipeline: list[PipelineOperation]
    output_requirements: OutputRequirements
    source: Optional[ImageBuffer] = None
    parameters: Optional[str] = None
    metadata: Optional[dict[str, Any]] = None


EnforcementAction = Literal["reject", "flag_for_review", "allow"]


@dataclass(kw_only=True)
class EnforcementActions:
    below_safety_threshold: EnforcementAction
    below_quality_threshold: EnforcementAction


@dataclass(kw_only=True)
class SafetyThresholds:
    content_safety_minimum: float  # 0 to 1
    quality_minimum: float  # 0 to 10
    technical_compliance: str  # open: strict


@dataclass(kw_only=True)
class SafetyPolicyUpdate:
    event_type: ClassVar[str] = "safety_policy_update"
    policy_version: str
    safety_thresholds: SafetyThresholds
    enforcement_actions: EnforcementActions


@dataclass(kw_only=True)
class QualityMetrics:
    upscaling_quality_score: Optional[float] = None  # 0 to 10
    processing_time: Optional[float] = None  # seconds so far


@dataclass(kw_only=True)
class PipelineProgress:
    current_operation: str
    operations_completed: int
    total_operations: int
    current_operation_progress: float  # 0 to 100


@dataclass(kw_only=True)
class PostprocessingProgress:
    event_type: ClassVar[str] = "postprocessing_progress"
    request_id: str
    pipeline_progress: PipelineProgress
    quality_metrics: QualityMetrics


@dataclass(kw_only=True)
class OperationUsage:
    operation: str  # open: upscaling, safety_check
    model: str
    seconds: float  # seconds
    peak: int  # bytes


@dataclass(kw_only=True)
class ProcessingMetadata:
    total_processing_time: float  # seconds
    resource_usage_peak: SizeText


@dataclass(kw_only=True)
class QualityAssessment:
    technical_quality: float  # 0 to 10
    visual_quality: float  # 0 to 10
    enhancement_effectiveness: float  # 0 to 10


@dataclass(kw_only=True)
class SafetyAnalysis:
    content_safety_score: float  # 1 is safe; 0 to 1
    safety_classification: str  # open: safe, unsafe
    flagged_content: list[str]


@dataclass(kw_only=True)
class FinalResults:
    safety_analysis: Optional[SafetyAnalysis] = None
    quality_assessment: QualityAssessment


@dataclass(kw_only=True)
class PostprocessingCompleted:
    event_type: ClassVar[str] = "postprocessing_completed"
    request_id: str
    final_results: FinalResults
    output_location: str
    processing_metadata: ProcessingMetadata
    output: Optional[ImageBuffer] = None
    operations: Optional[list[str]] = None
    usage: Optional[list[OperationUsage]] = None


StepDomain = Literal["device", "memory", "model", "processing", "inference", "postprocessing", "both"]


@dataclass(kw_only=True)
class RollbackAction:
    domain: StepDomain
    action: str  # open: release_device_reservation, deallocate_reserved_memory
    condition: str  # open: memory_allocation_failed, device_reservation_failed


@dataclass(kw_only=True)
class DeviceMemoryParameters:
    device_id: str
    operation_type: Optional[str] = None
    estimated_duration: Optional[DurationText] = None
    allocation_size: Optional[int] = None  # bytes
    allocation_purpose: Optional[str] = None


DeviceMemoryOperation = Literal["reserve_device", "allocate_vram"]


@dataclass(kw_only=True)
class DeviceMemoryStep:
    domain: StepDomain
    operation: DeviceMemoryOperation
    parameters: DeviceMemoryParameters


TransactionPhase = Literal["prepare", "commit", "abort"]


DeviceMemoryType = Literal["atomic_device_memory_allocation"]


@dataclass(kw_only=True)
class AtomicDeviceMemory:
    operation_type: DeviceMemoryType
    transaction_id: str
    phase: TransactionPhase
    operations: list[DeviceMemoryStep]
    rollback_actions: list[RollbackAction]


@dataclass(kw_only=True)
class ConsistencyCheck:
    check: str  # open: device_allocation_matches_memory_allocation, resource_totals_balance
    device_state: Optional[str] = None
    memory_state: Optional[str] = None
    total_device_allocations: Optional[int] = None
    total_memory_allocations: Optional[int] = None
    consistency: bool


DeviceMemoryValidation = Literal["device_memory_consistency"]


@dataclass(kw_only=True)
class DeviceMemoryConsistency:
    validation_type: DeviceMemoryValidation
    validation_checks: list[ConsistencyCheck]
    consistency_score: float  # 0 to 1
    transaction_id: Optional[str] = None
    device_id: Optional[str] = None


@dataclass(kw_only=True)
class ModelMemoryRequirements:
    cache_state_sync: bool
    memory_state_sync: bool
    loading_state_tracking: bool


@dataclass(kw_only=True)
class ModelMemoryParameters:
    model_id: Optional[str] = None
    cache_location: Optional[str] = None
    required_space: Optional[int] = None  # bytes
    target_device: Optional[str] = None
    reservation_size: Optional[int] = None  # bytes
    reservation_purpose: Optional[str] = None


ModelMemoryOperation = Literal["prepare_model_cache", "reserve_vram"]


@dataclass(kw_only=True)
class ModelMemoryStep:
    domain: StepDomain
    operation: ModelMemoryOperation
    parameters: ModelMemoryParameters


ModelMemoryType = Literal["atomic_model_memory_loading"]


@dataclass(kw_only=True)
class AtomicModelMemory:
    operation_type: ModelMemoryType
    transaction_id: str
    phase: TransactionPhase
    operations: list[ModelMemoryStep]
    dependency_chain: list[str]  # open: ram_cache_available, vram_reservation_successful, model_integrity_verified
    consistency_requirements: ModelMemoryRequirements


Consistency = Literal["consistent", "inconsistent"]


@dataclass(kw_only=True)
class LoadCheckpoint:
    ram_cache_state: Consistency
    vram_allocation_state: Consistency
    cross_domain_sync: Consistency


@dataclass(kw_only=True)
class LoadStateChange:
    model_cache_status: Optional[str] = None  # open: loading_to_vram, loaded
    cache_utilization: Optional[float] = None  # 0 to 1
    loading_progress: Optional[float] = None  # 0 to 1
    vram_allocation_status: Optional[str] = None  # open: reserved, in_use
    allocated_bytes: Optional[int] = None  # bytes
    allocation_progress: Optional[float] = None  # 0 to 1


@dataclass(kw_only=True)
class LoadStateUpdate:
    domain: StepDomain
    state_change: LoadStateChange


LoadSynchronization = Literal["model_loading_state_update"]


@dataclass(kw_only=True)
class ModelLoadingStateUpdate:
    synchronization_event: LoadSynchronization
    transaction_id: str
    state_updates: list[LoadStateUpdate]
    consistency_checkpoint: LoadCheckpoint


@dataclass(kw_only=True)
class RollbackParameters:
    reservation_id: Optional[str] = None
    cleanup_partial_allocation: Optional[bool] = None
    model_id: Optional[str] = None
    cleanup_incomplete_loading: Optional[bool] = None
    transaction_id: Optional[str] = None
    notify_dependent_services: Optional[bool] = None


@dataclass(kw_only=True)
class RollbackStep:
    step: int  # 1 or more
    domain: StepDomain
    action: str  # open: release_vram_reservation, cleanup_partial_cache, reset_loading_state
    parameters: RollbackParameters


LoadRollback = Literal["model_loading_failure"]


@dataclass(kw_only=True)
class ModelLoadingFailure:
    rollback_scenario: LoadRollback
    transaction_id: str
    rollback_sequence: list[RollbackStep]
    reason: Optional[str] = None


@dataclass(kw_only=True)
class SessionGuarantees:
    resource_isolation: bool
    session_state_coherence: bool
    inference_context_validity: bool


@dataclass(kw_only=True)
class ResourceRequirements:
    memory: SizeText
    gpu_allocation: str
    session_priority: AllocationPriority


@dataclass(kw_only=True)
class ProcessingInferenceParameters:
    session_id: Optional[str] = None
    resource_requirements: Optional[ResourceRequirements] = None
    batch_id: Optional[str] = None
    model_requirements: Optional[list[str]] = None
    inference_type: Optional[str] = None


ProcessingInferenceOperation = Literal["reserve_session_resources", "prepare_inference_context"]


@dataclass(kw_only=True)
class ProcessingInferenceStep:
    domain: StepDomain
    operation: ProcessingInferenceOperation
    parameters: ProcessingInferenceParameters


@dataclass(kw_only=True)
class SessionContext:
    processing_session_id: str
    inference_batch_id: str
    coordination_mode: str  # open: tightly_coupled


ProcessingInferenceType = Literal["atomic_processing_inference"]


@dataclass(kw_only=True)
class AtomicProcessingInference:
    operation_type: ProcessingInferenceType
    transaction_id: str
    session_context: SessionContext
    atomic_operations: list[ProcessingInferenceStep]
    consistency_guarantees: SessionGuarantees


@dataclass(kw_only=True)
class SessionValidation:
    resource_allocation_match: bool
    priority_alignment: bool
    timing_coordination: bool


@dataclass(kw_only=True)
class SessionSyncData:
    session_status: Optional[str] = None  # open: active, paused, ended, none
    resource_allocation: Optional[str] = None  # open: confirmed, released
    operation_queue: Optional[int] = None
    priority_level: Optional[AllocationPriority] = None
    inference_readiness: Optional[str] = None  # open: prepared, executing, completed, failed
    model_loading_status: Optional[str] = None  # open: complete, incomplete
    estimated_execution_time: Optional[DurationText] = None
    resource_utilization: Optional[float] = None  # 0 to 1


SyncDirection = Literal["processing_to_inference", "inference_to_processing"]


@dataclass(kw_only=True)
class SessionSync:
    direction: SyncDirection
    data: SessionSyncData


SessionCoordination = Literal["session_inference_state_sync"]


@dataclass(kw_only=True)
class SessionInferenceSync:
    coordination_event: SessionCoordination
    transaction_id: str
    coordination_type: str  # open: bidirectional
    state_synchronization: list[SessionSync]
    consistency_validation: SessionValidation


@dataclass(kw_only=True)
class StreamingCoordination:
    buffer_management: str  # open: shared
    quality_gates: list[str]  # open: safety_validation, technical_quality
    error_handling: str  # open: cascade_rollback, keep_delivered, finish_others


@dataclass(kw_only=True)
class PostprocessingNeeds:
    safety_check: bool
    upscaling: bool
    format_conversion: str  # open: png, jpeg, webp


@dataclass(kw_only=True)
class InferencePostprocessingParameters:
    request_id: Optional[str] = None
    postprocessing_requirements: Optional[PostprocessingNeeds] = None
    pipeline_id: Optional[str] = None
    expected_input_format: Optional[str] = None
    processing_sequence: Optional[list[str]] = None


InferencePostprocessingOperation = Literal["execute_with_postprocessing_preparation", "prepare_pipeline_for_inference"]


@dataclass(kw_only=True)
class InferencePostprocessingStep:
    domain: StepDomain
    operation: InferencePostprocessingOperation
    parameters: InferencePostprocessingParameters


@dataclass(kw_only=True)
class PipelineCoordination:
    inference_request_id: str
    postprocessing_pipeline_id: str
    coordination_mode: str  # open: streaming


InferencePostprocessingType = Literal["atomic_inference_postprocessing"]


@dataclass(kw_only=True)
class AtomicInferencePostprocessing:
    operation_type: InferencePostprocessingType
    transaction_id: str
    pipeline_coordination: PipelineCoordination
    atomic_operations: list[InferencePostprocessingStep]
    streaming_coordination: StreamingCoordination


FlowStageName = Literal["preparation", "execution", "completion"]


@dataclass(kw_only=True)
class FlowStage:
    stage: FlowStageName
    actions: list[str]
    consistency_check: str  # open: all_resources_available, streaming_integrity, complete_pipeline_success
    consistent: Optional[bool] = None
    found: Optional[str] = None


PipelineFlow = Literal["inference_postprocessing_pipeline"]


@dataclass(kw_only=True)
class InferencePostprocessingFlow:
    transaction_flow: PipelineFlow
    transaction_id: str
    flow_stages: list[FlowStage]


CoordinatorDecision = Literal["proceed_to_commit", "abort"]


Vote = Literal["vote_commit", "vote_abort"]


@dataclass(kw_only=True)
class PrepareVote:
    participant: str
    prepare_result: Vote
    resource_locks: list[str]
    rollback_capability: str  # open: confirmed, not_needed
    reason: Optional[str] = None


PreparePhase = Literal["prepare"]


Coordinator = Literal["c_sharp_orchestrator"]


@dataclass(kw_only=True)
class TransactionVoting:
    transaction_coordinator: Coordinator
    transaction_id: str
    phase: PreparePhase
    participants: list[PrepareVote]
    coordinator_decision: CoordinatorDecision


CommitResult = Literal["committed", "aborted", "pending", "lost"]


@dataclass(kw_only=True)
class ParticipantResponse:
    participant: str
    commit_result: CommitResult
    resource_status: str  # open: allocated, model_loaded, model_loading, released, lost
    timestamp: Timestamp


CoordinatorCommand = Literal["commit", "abort"]


CommitPhase = Literal["commit", "abort"]


@dataclass(kw_only=True)
class TransactionOutcome:
    transaction_coordinator: Coordinator
    transaction_id: str
    phase: CommitPhase
    coordinator_command: CoordinatorCommand
    participant_responses: list[ParticipantResponse]
    transaction_status: str  # open: committing, committed_successfully, committed_participant_lost, aborted


SagaStatus = Literal["running", "completed", "compensating", "compensated", "parked"]


SagaStepStatus = Literal["pending", "running", "completed", "failed", "compensated"]


@dataclass(kw_only=True)
class SagaStep:
    step: int  # 1 or more
    service: str
    action: str
    compensation: str
    status: SagaStepStatus


@dataclass(kw_only=True)
class Saga:
    saga_type: str  # open: cross_domain_model_loading, session_workflow
    saga_id: str
    saga_steps: list[SagaStep]
    compensation_sequence: list[str]
    saga_status: SagaStatus


@dataclass(kw_only=True)
class ReleaseProof:
    ledger: bool
    allocator: Optional[bool] = None
    driver: Optional[bool] = None
    found: Optional[str] = None


@dataclass(kw_only=True)
class RollbackCoordination:
    rollback_order: str  # open: reverse_allocation_order
    rollback_sequence: list[str]
    consistency_validation: str  # open: verify_all_resources_released


@dataclass(kw_only=True)
class AllocatedResource:
    resource: str  # open: device_reservation, ram_cache_space, vram_allocation
    status: str  # open: allocated, released
    rollback_required: bool


PartialAllocation = Literal["partial_resource_allocation_failure"]


@dataclass(kw_only=True)
class PartialAllocationFailure:
    failure_scenario: PartialAllocation
    failure_point: str  # open: vram_allocation_failed, worker_lost, prepare_timeout, overruled, copy_failed
    allocated_resources: list[AllocatedResource]
    rollback_coordination: RollbackCoordination
    transaction_id: Optional[str] = None
    reason: Optional[str] = None
    verified: Optional[ReleaseProof] = None


# The class of every event_type.
MESSAGES: dict[str, type] = {
    "device_config_update": DeviceConfigUpdate,
    "device_routing_update": DeviceRoutingUpdate,
    "device_health_update": DeviceHealthUpdate,
    "device_capability_discovered": DeviceCapabilityDiscovered,
    "system_memory_allocated": SystemMemoryAllocated,
    "memory_policy_update": MemoryPolicyUpdate,
    "vram_usage_update": VramUsageUpdate,
    "memory_allocation_request": MemoryAllocationRequest,
    "model_load_request": ModelLoadRequest,
    "model_cache_update": ModelCacheUpdate,
    "model_loading_progress": ModelLoadingProgress,
    "model_runtime_update": ModelRuntimeUpdate,
    "processing_session_created": ProcessingSessionCreated,
    "session_control_command": SessionControlCommand,
    "session_progress_update": SessionProgressUpdate,
    "cross_domain_coordination": CrossDomainCoordination,
    "inference_request": InferenceRequest,
    "inference_orchestration": InferenceOrchestration,
    "inference_progress": InferenceProgress,
    "inference_completed": InferenceCompleted,
    "postprocessing_request": PostprocessingRequest,
    "safety_policy_update": SafetyPolicyUpdate,
    "postprocessing_progress": PostprocessingProgress,
    "postprocessing_completed": PostprocessingCompleted,
}
