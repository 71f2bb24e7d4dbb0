"""The friendly layer: tasks as dicts, and a batch for a worker that was written for single images."""

import dataclasses
import json

import pytest

from lockstep.messages import DeviceHealthUpdate, HealthMetrics, SafetyPolicyUpdate
from lockstep.worker import Worker


class Native:
    """A task of the runtime, which remembers what it was told."""

    def __init__(self, kind: str, body: dict):
        self.kind = kind
        self.body = json.dumps(body)
        self.cancelled = False
        self.told = []

    def take_fds(self):
        return []

    def progress(self, report):
        self.told.append(("progress", json.loads(report)))

    def part(self, request_id, report, fds):
        self.told.append(("part", request_id, json.loads(report), fds))

    def done(self, report, fds):
        self.told.append(("done", json.loads(report), fds))

    def failed(self, code, message):
        self.told.append(("failed", code, message))


BATCH = {"batch_id": "b1", "images": [{"request_id": "r1", "seed": 7}, {"request_id": "r2", "seed": 8}]}


def test_a_batch_is_made_image_by_image_where_no_handler_takes_it_whole():
    worker = Worker(None)

    @worker.on("inference")
    def inference(task):
        task.progress({"step": task.body["seed"]})
        return {"sha256": task.body["request_id"]}, [task.body["seed"] * 10]

    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [
        ("progress", {"step": 7}),
        ("part", "r1", {"sha256": "r1"}, [70]),
        ("progress", {"step": 8}),
        ("part", "r2", {"sha256": "r2"}, [80]),
        ("done", {}, []),
    ]


def test_an_image_that_fails_ends_the_batch_and_keeps_what_was_handed_over():
    worker = Worker(None)

    class Exhausted(Exception):
        code, message = "resource_exhausted", "no memory"

    @worker.on("inference")
    def inference(task):
        if task.body["seed"] == 8:
            raise Exhausted
        return {}, []

    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [("part", "r1", {}, []), ("failed", "resource_exhausted", "no memory")]


def test_a_handler_of_batches_gets_them_whole():
    worker = Worker(None)
    worker.on("inference", lambda task: None)
    worker.on("inference_batch", lambda task: ({"images": len(task.body["images"])}, []))
    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [("done", {"images": 2}, [])]


def test_a_worker_without_either_says_so(capsys):
    native = Native("inference_batch", BATCH)
    Worker(None)._handle(native)
    assert native.told[0][:2] == ("failed", "internal") and "no handler for inference tasks" in native.told[0][2]
    capsys.readouterr()


TOLD = {
    "device_id": "gpu_0", "settings": {"power_limit": 350}, "memory_policy": {}, "routing_table": {"inference": "gpu_0"},
    "safety_policy": {
        "event_type": "safety_policy_update", "policy_version": "v2.1",
        "safety_thresholds": {
            "content_safety_minimum": 0.95, "quality_minimum": 7.0, "technical_compliance": "strict"},
        "enforcement_actions": {"below_safety_threshold": "reject", "below_quality_threshold": "flag_for_review"}},
    "model_cache": {"models": ["sdxl"], "cache_utilization": 0.67, "available_models": 47},
    "peers": {"gpu_1": {"health": {
        "event_type": "device_health_update", "device_id": "gpu_1", "timestamp": "2025-07-12T10:30:45Z",
        "propagation_urgency": "critical",
        "health_metrics": {"utilization": 85.2, "memory_usage": 0.78, "error_count": 0}}}},
}


# §2.1 to 2.6: a handler reads what its worker was told as the messages' own types, and cannot change it.
def test_the_state_has_the_types_of_the_messages():
    class Runtime:
        def state(self):
            return json.dumps(TOLD)

    state = Worker(Runtime()).state()
    assert (state.device_id, state.routing_table, state.settings.power_limit) == ("gpu_0", {"inference": "gpu_0"}, 350)
    assert isinstance(state.safety_policy, SafetyPolicyUpdate)
    assert state.safety_policy.safety_thresholds.content_safety_minimum == 0.95
    assert (state.model_cache.models, state.model_cache.available_models) == (["sdxl"], 47)
    health = state.peers["gpu_1"].health
    assert isinstance(health, DeviceHealthUpdate) and isinstance(health.health_metrics, HealthMetrics)
    assert health.health_metrics.temperature is None and health.health_metrics.utilization == 85.2
    assert state.system_memory is None and state.peers["gpu_1"].memory is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.routing_table = {}


# §2.2, §2.4: one id may name a request of each type; the answer is that of the type that is asked for.
def test_answers_are_asked_for_by_type_and_id():
    class Runtime:
        def request_answer(self, request_type, request_id):
            answers = {("memory_allocation_request", "x"): '{"outcome": "granted"}',
                       ("cross_domain_coordination", "x"): '{"outcome": "denied"}'}
            return answers.get((request_type, request_id))

    worker = Worker(Runtime())
    assert (worker.memory_answer("x"), worker.memory_answer("y")) == ({"outcome": "granted"}, None)
    assert (worker.coordination_answer("x"), worker.coordination_answer("y")) == ({"outcome": "denied"}, None)
