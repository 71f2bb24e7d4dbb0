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
