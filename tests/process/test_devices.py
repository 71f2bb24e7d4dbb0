"""Devices that people govern (§1.1, §2.1): settings with two values, and routes that work obeys, with real workers."""

import json
import os
import signal

from conftest import cli, until
from manners import let_go, stuck, with_manners

TWO = '[[worker]]\nname = "one"\n[[worker]]\nname = "two"\n'


def devices(server):
    return {d["worker_id"]: d for d in server.get("/api/v1/devices")["devices"]}


def inference_worker(server, **body):
    done = server.finished(server.submit(prompt="a lighthouse", **body))
    assert done["state"] == "completed", done
    return done["jobs"][0]["inference_worker"]


def test_settings_are_confirmed_by_the_worker_and_kept(server):
    server.config = '[[worker]]\nname = "one"\n'
    server.start()
    found = devices(server)["one"]
    assert found["health_level"] == "ok" and found["driver_version"].startswith("Linux "), found
    assert 0 < found["capability_scores"]["memory_bandwidth"] <= 10, found
    device = found["device_id"]
    path = f"/api/v1/devices/{device}/config"

    cli(server, "devices", "set", device, "optimization_profile=performance", "power_limit=350")
    config = until("the worker to confirm", lambda: (c := server.get(path))["confirmed_revision"] == 1 and c)
    assert config["confirmed"] == {"optimization_profile": "performance"}, config
    assert config["intended"]["power_limit"] == 350
    assert config["rejected"][0]["setting"] == "power_limit" and "no power limit" in config["rejected"][0]["reason"]

    for body, word in (({"optimization_profile": "turbo"}, "balanced"), ({"power": 1}, "unknown"),
                       ({"power_limit": 0}, "power_limit")):
        status, answer = server.request("PATCH", path, body)
        assert status == 400 and word in json.dumps(answer), answer
    assert server.request("PUT", "/api/v1/devices/none/config", {})[0] == 404
    assert server.request("POST", path, {})[0] == 405
    assert "performance" in cli(server, "devices", "show", device).stdout
    assert device in cli(server, "devices", "list").stdout
    cli(server, "devices", "show", "none", code=3)

    server.stop()
    server.start()
    again = until("the next incarnation to confirm", lambda: (c := server.get(path))["confirmed_revision"] == 1 and c)
    assert again["intended"] == config["intended"]


def test_work_follows_the_routes_and_a_killed_primary_is_replaced(server, tmp_path):
    with_manners(server, tmp_path, TWO)
    server.start()
    found = devices(server)
    one, two = found["one"]["device_id"], found["two"]["device_id"]

    for primary, worker in ((two, "two"), (one, "one")):
        cli(server, "routing", "set", "--whole", f"inference_primary={primary}")
        assert inference_worker(server) == worker
    # Both have the model now, so neither would start later than the other.
    cli(server, "routing", "set", f"inference_secondary={two}")
    routing = until("both workers to take the routes in",
                    lambda: (r := json.loads(cli(server, "routing", "show", "--json").stdout))
                    and set(r["confirmed_by"].values()) == {3} and len(r["confirmed_by"]) == 2 and r)
    assert routing["routing_table"] == {"inference_primary": one, "inference_secondary": two}

    # The primary dies while it works: its image is finished by the secondary.
    request = server.submit(prompt="hang: a lighthouse")
    victim = stuck(server, tmp_path)
    assert victim["worker_id"] == "one", victim
    os.kill(victim["pid"], signal.SIGKILL)
    until("the death to be counted", lambda: server.view(request)["jobs"][0]["deaths"] == 1)
    with let_go(tmp_path):
        done = server.finished(request)
    assert done["state"] == "completed" and done["jobs"][0]["inference_worker"] == "two", done

    # Without inference on any device the images wait, and say why.
    for device in (one, two):
        status, answer = server.request("PATCH", f"/api/v1/devices/{device}/config",
                                        {"access": {"work": ["postprocessing"], "session_classes": []}})
        assert status == 200, answer
    request = server.submit(prompt="a lighthouse")
    until("the image to say what it waits for",
          lambda: "does no inference" in server.view(request)["jobs"][0]["waits_for"])
    status, answer = server.request("PATCH", f"/api/v1/devices/{two}/config",
                                    {"access": {"work": [], "session_classes": []}})
    assert status == 200, answer
    assert server.finished(request)["jobs"][0]["inference_worker"] == "two"
