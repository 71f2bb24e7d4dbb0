"""What workers shall know reaches them (§2.1, §2.8): told, told again when no answer comes, confirmed; and a worker that
tells of what is not its own changes nothing (§1)."""

import json
import re
import sys

from conftest import cli, until
from frames import HEARTBEAT, beating, guest

HEARTBEAT_ACK, STATE_CHANGES, STATE_APPLIED, DEVICE_CONFIG_UPDATE = 5, 16, 17, 42
DEVICE_HEALTH_UPDATE, VRAM_USAGE_UPDATE = 32, 33


def metric(server, name, **labels):
    text = server.request("GET", "/metrics", raw=True)[1].decode()
    found = 0.0
    for line in text.splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? ([0-9.e+]+)", line)
        if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
            found += float(match[2])
    return found


def told(link, kind=STATE_CHANGES):
    while True:
        frame = link.receive()
        assert frame is not None, "the link ended"
        if frame[0] == kind:
            return frame[1]


def deliveries(server, worker):
    return json.loads(cli(server, "propagation", worker, "--json").stdout)["deliveries"]


def test_a_change_is_told_until_it_is_confirmed(server):
    server.start()
    with guest(server) as link, beating(link):
        cli(server, "routing", "set", "inference_primary=guest_device")
        first = told(link)
        assert [e["type"] for e in first["events"]] == ["device_routing_update"] and first["snapshot"]
        assert first["events"][0]["body"]["routing_table"] == {"inference_primary": "guest_device"}
        rows = deliveries(server, "guest")
        assert rows[0]["outcome"] == "not_yet" and rows[0]["confirmed_rev"] == 0 < rows[0]["intended_rev"], rows
        assert "pending" in cli(server, "propagation").stdout

        # §2.8: the policy is the second stage and waits for the routes; nobody else waits for this worker.
        cli(server, "memory", "policy", "set", "vram_reservation_limit=8GB")
        own = next(name for name in server.workers() if name != "guest")
        until("the other worker to confirm both", lambda: [
            r["outcome"] for r in deliveries(server, own)
            if r["type"] in ("device_routing_update", "memory_policy_update")] == ["applied", "applied"])

        # No answer came: the routes come again, and then the policy, which is held up no longer.
        types = set()
        while types != {"device_routing_update", "memory_policy_update"}:
            again = told(link)
            types |= {e["type"] for e in again["events"]}
        assert metric(server, "lockstep_lane_redelivered_total", lane="P1") >= 1
        for event in first["events"] + [e for e in again["events"] if e["type"] == "memory_policy_update"]:
            link.say(STATE_APPLIED, {"rev": event["rev"], "results": [
                {"type": event["type"], "subject": event["subject"], "rev": event["rev"], "outcome": "applied",
                 "reason": ""}]})
        until("both to be confirmed", lambda: [
            r["outcome"] for r in deliveries(server, "guest")
            if r["type"] != "system_memory_allocated" and r["type"] != "model_cache_update"] == ["applied", "applied"])
        events = cli(server, "events", "--json", "--type", "state_confirmed", "--last", "50").stdout
        assert any(json.loads(line)["subject"] == "guest" for line in events.splitlines()), events


def test_a_worker_that_tells_of_what_is_not_its_own_changes_nothing_and_lives(server):
    server.start()
    with guest(server) as link:
        until("the worker to be ready", lambda: server.workers()["guest"]["state"] == "ready")
        link.say(DEVICE_CONFIG_UPDATE, {"event_type": "device_config_update", "device_id": "guest_device",
                                        "changes": {"power_limit": 1}, "propagation_priority": "high",
                                        "requires_confirmation": True})
        until("the write to be refused", lambda: metric(
            server, "lockstep_worker_writes_refused_total", worker="guest", fact="device_policies") == 1)
        # Not the rev: what the server commits by itself may come between.
        assert server.get("/api/v1/devices/guest_device/config")["revision"] == 0
        assert cli(server, "events", "--json", "--type", "device_config").stdout == ""
        link.say(HEARTBEAT, {"handler_progress": 0, "tasks_running": 0})
        told(link, HEARTBEAT_ACK)  # the worker is wrong, but not broken


# A worker whose handlers look at what they were told: each state that differs from the one before is written down.
TOLD = """
import dataclasses, json, os, sys, threading
from lockstep import Worker

worker = Worker.from_environment()
worker.on("load", lambda task: ([os.close(fd) for fd in task.fds], ({"bytes": 0, "seconds": 0.0}, []))[1])
worker.ready()

def look():
    before = None
    while True:
        now = worker.state()
        if now != before:
            with open(sys.argv[1] + ".new", "w") as file:
                json.dump(dataclasses.asdict(now), file)
            os.replace(sys.argv[1] + ".new", sys.argv[1])
        before = now
        threading.Event().wait(0.01)

threading.Thread(target=look, daemon=True).start()
worker.run()
"""


def test_handlers_see_each_thing_that_their_worker_was_told(server):
    """§2.1 to 2.3, §2.6, §2.7: routes, the cache in RAM and its models, the safety policy, other devices and policies."""
    program, file = server.folder / "told.py", server.folder / "state.json"
    program.write_text(TOLD)
    server.config = (f"[workers]\ncommand = {json.dumps([sys.executable, str(program), str(file)])}\n"
                     '[[worker]]\nname = "one"\n')
    server.start()
    own = server.get("/api/v1/devices")["devices"][0]["device_id"]

    def seen(what, member, check=bool):
        return until(what, lambda: file.exists() and (v := json.loads(file.read_text())[member]) and check(v) and v)

    first = until("the first state", lambda: file.exists() and json.loads(file.read_text()))
    assert set(first) == {"device_id", "routing_table", "peers", "system_memory", "model_cache", "safety_policy", "settings",
                          "memory_policy"}
    seen("its own device", "device_id", own.__eq__)

    with guest(server) as link, beating(link):
        routes = {"inference_primary": own, "inference_secondary": "guest_device"}
        cli(server, "routing", "set", *(f"{role}={device}" for role, device in routes.items()))
        seen("the routes", "routing_table", routes.__eq__)

        cli(server, "memory", "policy", "set", "emergency_cleanup_threshold=0.5")
        seen("the memory policy", "memory_policy", lambda policy: policy["emergency_cleanup_threshold"] == 0.5)

        policy = {"policy_version": "v2.1", "safety_thresholds": {
            "content_safety_minimum": 0.9, "quality_minimum": 7.0, "technical_compliance": "strict"},
            "enforcement_actions": {"below_safety_threshold": "reject", "below_quality_threshold": "flag_for_review"}}
        status, answer = server.request("POST", "/api/v1/policies/safety", {"event_type": "safety_policy_update", **policy})
        assert status == 200, answer
        seen("the safety policy", "safety_policy", policy.__eq__)

        cli(server, "models", "load", "tiny-safety", "--worker", "one")
        cache = seen("a model in the cache", "model_cache", lambda told: told["models"] == ["tiny-safety"])
        assert cache["available_models"] == 3 and 0 < cache["cache_utilization"] < 1, cache
        ram = seen("what the cache takes", "system_memory")
        assert ram["allocation_id"] == "model_cache" and ram["allocated_bytes"] > 0, ram

        hot = {"device_id": "guest_device", "timestamp": "2025-07-12T10:30:45Z", "propagation_urgency": "critical",
               "health_metrics": {"temperature": 97.0, "utilization": 85.2, "memory_usage": 0.96, "error_count": 0}}
        link.say(DEVICE_HEALTH_UPDATE, {"event_type": "device_health_update", **hot})
        link.say(VRAM_USAGE_UPDATE, {
            "event_type": "vram_usage_update", "device_id": "guest_device", "pressure_level": "critical",
            "vram_metrics": {"total_vram": 1000, "used_vram": 960, "available_vram": 40, "fragmentation_level": 0.23},
            "cleanup_recommended": True})
        peer = seen("both of the other device", "peers", lambda peers: (p := peers.get("guest_device")) and all(p.values()))
        assert peer["guest_device"]["health"] == {**hot, "diagnostics": None}, peer
        assert peer["guest_device"]["memory"]["pressure_level"] == "critical"
        assert peer["guest_device"]["memory"]["vram_metrics"]["used_vram"] == 960
