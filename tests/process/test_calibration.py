"""A device is measured again when a person asks (§1.1), with real workers."""

import json
import os
import threading

from conftest import LIMIT, cli, until
from manners import let_go, stuck, with_manners

ONE = '[[worker]]\nname = "one"\n'
LATER = {"Prefer": "respond-async"}


def device(server):
    return server.get("/api/v1/devices/" + server.get("/api/v1/devices")["devices"][0]["device_id"])


def events(server, name):
    return [json.loads(line) for line in cli(server, "events", "--json", "--type", name).stdout.splitlines()]


def test_a_device_is_measured_again_and_keeps_when(server):
    server.config = ONE
    server.start()
    before = device(server)
    name = before["device_id"]
    assert "calibrated_at" not in before and "calibration" not in before, before

    said = json.loads(cli(server, "devices", "calibrate", name, "--json").stdout)
    assert said["scores_before"] == before["capability_scores"], said
    after = device(server)
    assert said["scores_after"] == after["capability_scores"] and said["calibrated_at"] == after["calibrated_at"], after
    assert 0 < said["scores_after"]["memory_bandwidth"] <= 10 and "calibration" not in after
    assert [e["body"] for e in events(server, "device_calibrated")] == [said]
    shown = json.loads(cli(server, "devices", "show", name, "--json").stdout)
    assert shown["revision"] == 0 and shown["device"]["calibrated_at"] == said["calibrated_at"], shown
    assert said["calibrated_at"] in cli(server, "devices", "show", name).stdout
    assert "memory_bandwidth: " in cli(server, "devices", "calibrate", name).stdout

    assert server.request("GET", f"/api/v1/devices/{name}/calibrate")[0] == 405
    assert server.request("POST", "/api/v1/devices/none/calibrate")[0] == 404
    assert server.request("GET", "/api/v1/devices/none")[0] == 404
    cli(server, "devices", "calibrate", "none", code=3)
    cli(server, "devices", "calibrate", "no/ne", code=3)

    last = device(server)["calibrated_at"]
    server.stop()
    server.start()
    assert device(server)["calibrated_at"] == last


def test_one_that_is_asked_for_beside_a_running_image_waits_and_is_lost_with_its_worker(server, tmp_path):
    with_manners(server, tmp_path, ONE)
    server.start()
    name = device(server)["device_id"]
    path = f"/api/v1/devices/{name}/calibrate"
    request = server.submit(prompt="hang: a lighthouse")
    stuck(server, tmp_path)
    status, answer = server.request("POST", path, headers=LATER)
    assert status == 202 and answer == {"device_id": name, "state": "accepted"}, answer
    assert device(server)["calibration"].startswith("waiting: one works on inf:"), device(server)

    # Another who waits for it hears why nothing comes of it.
    heard = []
    waits = threading.Thread(target=lambda: heard.append(server.request("POST", path)))
    waits.start()
    until("both to be taken in", lambda: server.log.read_text().count("asked for a calibration of") == 2)
    os.kill(server.workers()["one"]["pid"], 9)
    waits.join(LIMIT)
    status, answer = heard[0]
    assert status == 503 and "its worker one is gone" in answer["error"]["message"], answer
    assert "calibrated_at" not in device(server)

    # And with a worker that lives, it comes before the next task.
    until("the next worker to work on it", lambda: server.workers()["one"]["task"].startswith("inf:"))
    status, answer = server.request("POST", path, headers=LATER)
    assert status == 202, answer
    with let_go(tmp_path):
        assert server.finished(request)["state"] == "completed"
    assert device(server)["calibrated_at"], device(server)
    worker, = [w for w in server.workers().values()]
    assert worker["task"] == "" and worker["deaths_in_a_row"] == 0, worker


def test_a_gpus_driver_is_asked_again_and_one_that_is_not_there_is_told(gpu):
    gpu.start_with()
    found = until("the driver to answer", lambda: (d := device(gpu))["name"] and d)
    said = json.loads(cli(gpu, "devices", "calibrate", found["device_id"], "--json").stdout)
    assert said["scores_after"] == {"compute": 5, "memory_bandwidth": 2} and said["capabilities_lost"] == [], said
    gpu.stop()

    gpu.start_with("FAKE_NVML=broken")
    last = device(gpu)["calibrated_at"]
    run = cli(gpu, "devices", "calibrate", found["device_id"], code=6)
    assert "Driver Not Loaded" in run.stderr, run
    after = device(gpu)
    assert after["availability"] == "online" and after["calibrated_at"] == last == said["calibrated_at"], after
    assert gpu.workers()["one"]["task"] == ""
