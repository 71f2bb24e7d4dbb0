"""What workers shall know reaches them (§2.1, §2.8): told, told again when no answer comes, confirmed; and a worker that
tells of what is not its own changes nothing (§1)."""

import json
import re
import subprocess

from conftest import BINARY, LIMIT, until
from frames import HEARTBEAT, READY, Link

STATE_CHANGES, STATE_APPLIED, DEVICE_CONFIG_UPDATE = 16, 17, 42


def cli(server, *arguments):
    run = subprocess.run([BINARY, *arguments, "--url", server.url], capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run
    return run.stdout


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


def guest(server):
    link = Link(str(server.folder / "data" / "workers.sock"))
    assert link.join((server.folder / "data" / "worker.secret").read_text().strip()) is None
    link.say(READY, {})
    return link


def test_a_change_is_told_until_it_is_confirmed(server):
    server.start()
    link = guest(server)
    cli(server, "routing", "set", "inference_primary=guest_device")
    first = told(link)
    assert [e["type"] for e in first["events"]] == ["device_routing_update"] and first["snapshot"]
    assert first["events"][0]["body"]["routing_table"] == {"inference_primary": "guest_device"}
    rows = json.loads(cli(server, "propagation", "guest", "--json"))["deliveries"]
    assert rows[0]["outcome"] == "not_yet" and rows[0]["confirmed_rev"] == 0 < rows[0]["intended_rev"], rows
    assert "pending" in cli(server, "propagation")

    # §2.8: the policy is the second stage and waits for the routes; nobody else waits for this worker.
    cli(server, "memory", "policy", "set", "vram_reservation_limit=8GB")
    own = next(name for name in server.workers() if name != "guest")
    until("the other worker to confirm both", lambda: [
        r["outcome"] for r in json.loads(cli(server, "propagation", own, "--json"))["deliveries"]
        if r["type"] in ("device_routing_update", "memory_policy_update")] == ["applied", "applied"])

    # No answer came: the routes come again, and then the policy, which is held up no longer.
    types = set()
    while types != {"device_routing_update", "memory_policy_update"}:
        again = told(link)
        types |= {e["type"] for e in again["events"]}
    assert metric(server, "lockstep_lane_redelivered_total", lane="P1") >= 1
    for event in first["events"] + [e for e in again["events"] if e["type"] == "memory_policy_update"]:
        link.say(STATE_APPLIED, {"rev": event["rev"], "results": [
            {"type": event["type"], "subject": event["subject"], "rev": event["rev"], "outcome": "applied", "reason": ""}]})
    until("both to be confirmed", lambda: [
        r["outcome"] for r in json.loads(cli(server, "propagation", "guest", "--json"))["deliveries"]
        if r["type"] != "system_memory_allocated" and r["type"] != "model_cache_update"] == ["applied", "applied"])
    events = cli(server, "events", "--json", "--type", "state_confirmed", "--last", "50")
    assert any(json.loads(line)["subject"] == "guest" for line in events.splitlines()), events
    link.close()


def test_a_worker_that_tells_of_what_is_not_its_own_changes_nothing_and_lives(server):
    server.start()
    link = guest(server)
    rev = until("the worker to be ready", lambda: server.workers()["guest"]["state"] == "ready") and server.get("/api/v1/status")["rev"]
    link.say(DEVICE_CONFIG_UPDATE, {"event_type": "device_config_update", "device_id": "guest_device",
                                    "changes": {"power_limit": 1}, "propagation_priority": "high",
                                    "requires_confirmation": True})
    until("the write to be refused", lambda: metric(
        server, "lockstep_worker_writes_refused_total", worker="guest", fact="device_policies") == 1)
    assert server.get("/api/v1/status")["rev"] == rev
    assert server.get("/api/v1/devices/guest_device/config")["revision"] == 0
    link.say(HEARTBEAT, {"handler_progress": 0, "tasks_running": 0})
    told(link, 5)  # it is answered: the worker is wrong, but not broken
    link.close()
