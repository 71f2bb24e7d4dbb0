"""What a worker was told of what others decide (§2.1 to 2.6): Worker.state(), typed."""

import dataclasses
import types
import typing
from typing import Optional

from lockstep.messages import (
    DeviceChanges,
    DeviceHealthUpdate,
    MemoryPolicyChanges,
    SafetyPolicyUpdate,
    SystemMemoryAllocated,
    VramUsageUpdate,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """Another device, as this worker was told of it; None where it was never told."""

    health: Optional[DeviceHealthUpdate] = None
    memory: Optional[VramUsageUpdate] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCache:
    """Which models are whole in the cache in RAM, how full it is (0 to 1), and how many models there are at all."""

    models: list[str]
    cache_utilization: float
    available_models: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """One moment. What is None, or empty, was not told: the defaults hold.

    device_id      this worker's own; empty before its first welcome
    settings       of the device, as it has them: a power limit that the driver refused is not there
    routing_table  which work goes to which device
    system_memory  the cache in RAM: what it holds, and what is left of its limit
    peers          other devices, by their ids
    """

    device_id: str
    settings: DeviceChanges
    memory_policy: MemoryPolicyChanges
    routing_table: dict[str, str]
    system_memory: Optional[SystemMemoryAllocated] = None
    model_cache: Optional[ModelCache] = None
    safety_policy: Optional[SafetyPolicyUpdate] = None
    peers: dict[str, Peer]


def _read(kind, value):
    """`value`, as JSON has it, as a `kind` of the annotations above."""
    if value is None:
        return None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.name in value]
        return kind(**{name: _read(hints[name], value[name]) for name in names})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read(next(each for each in inner if each is not type(None)), value)
    if origin is list:
        return [_read(inner[0], each) for each in value]
    if origin is dict:
        return {name: _read(inner[1], each) for name, each in value.items()}
    return value


def read_state(value: dict) -> State:
    """The state that the native runtime tells as JSON."""
    return _read(State, value)
