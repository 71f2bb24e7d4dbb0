"""A GPU as its driver tells of it (§1.1, §2.1, §2.7), by a made-up driver in a real worker."""

import json

import pytest

from conftest import BINARY, talking, until


def device(server):
    found, = server.get("/api/v1/devices")["devices"]
    return found


def test_a_gpu_says_what_it_can_do(gpu):
    gpu.start_with()
    found = until("the driver to answer", lambda: (d := device(gpu))["name"] and d)
    assert found["name"] == "Fake GPU" and found["driver_version"] == "570.10", found
    assert found["capabilities"] == ["fp16_inference", "tensor_core_acceleration", "bf16_inference", "fp8_inference",
                                     "nvenc_encoding"], found
    assert found["capability_scores"] == {"compute": 5, "memory_bandwidth": 2}, found


def test_a_driver_that_tells_nothing_is_no_fault(gpu):
    gpu.start_with("FAKE_NVML=mute")
    found = until("the driver to answer", lambda: (d := device(gpu))["name"] and d)
    assert found["availability"] == "online" and found["capabilities"] == [], found
    assert found["capability_scores"] == {}, found


def test_a_machine_without_a_driver_is_normal(gpu):
    gpu.start_with("FAKE_NVML=broken")
    until("the worker to say it", lambda: "Driver Not Loaded" in gpu.request(
        "GET", "/api/v1/workers/one/logs", raw=True)[1].decode())
    found = device(gpu)
    assert found["availability"] == "online" and found["name"] == "" and found["capabilities"] == [], found


def test_a_worker_places_its_samples_by_the_policy_of_its_device(gpu):
    """§2.7: at 72 degrees nothing is urgent, until a policy calls 70 critical."""
    gpu.start_with("FAKE_NVML=cool")
    name = device(gpu)["device_id"]
    limits = {"temperature_hysteresis": 5, "errors_degraded": 10, "errors_critical": 100, "on_critical": "alert"}

    def samples(critical):
        """The first sample that was taken under this limit: its lane, and the worker's own word."""
        status, answer = gpu.request("PATCH", f"/api/v1/devices/{name}/config", {"health": {
            "temperature_degraded": 50, "temperature_critical": critical, **limits}})
        assert status == 200, answer
        with talking(BINARY, "events", "--follow", "--json", "--type", "device_health_update", "--url",
                     gpu.url) as follower:
            for line in follower.stdout:
                sample = json.loads(line)
                if sample["body"]["diagnostics"].get("temperature_critical") == critical:
                    return sample["urgency"], sample["body"]["propagation_urgency"]
        pytest.fail(f"no sample was taken under {critical} degrees")

    assert samples(95) == ("p3_low", "normal")
    assert samples(70) == ("p0_critical", "critical")
