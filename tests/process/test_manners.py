"""Start and stop: clear sentences and exit codes, never a hang."""

import os
import shutil
import signal
import socket
import time

from conftest import BINARY, LIMIT, Server, alive, run, until
from manners import let_go, stuck, with_manners


def refused(server):
    status = server.start(expect_failure=True).process.wait(LIMIT)
    return status, server.log.read_text()


def test_sigterm_finishes_what_runs_and_says_what_is_left(server, tmp_path):
    with_manners(server, tmp_path)
    server.config = server.config.replace("[timing]", '[timing]\ndrain = "1h"')
    server.start()
    running = [server.submit(prompt="hang: r", seed=i) for i in range(2)]
    until("both workers to work on it", lambda: all(w["task"].startswith("inf:") for w in server.workers().values()))
    queued = server.submit(prompt="q", n=2, seed=7)
    pids = [w["pid"] for w in server.workers().values()]
    server.send(signal.SIGTERM)
    until("the drain to begin", lambda: server.request("GET", "/readyz")[0] == 503)
    assert server.request("POST", "/v1/images/generations", {"prompt": "late", "size": "64x64"})[0] == 503
    with let_go(tmp_path):
        assert server.process.wait(LIMIT) == 9
    assert "2 accepted images are left and go on at the next start" in server.log.read_text()
    assert not any(alive(pid) for pid in pids)

    server.start(wait_ready=False)
    assert all(server.view(request)["state"] == "completed" for request in running)  # done before the end
    assert server.finished(queued)["state"] == "completed"
    assert server.stop(signal.SIGINT) == 0


def test_the_drain_has_a_limit(server, tmp_path):
    with_manners(server, tmp_path)
    server.config = server.config.replace("[timing]", '[timing]\ndrain = "1s"')
    server.start()
    server.submit(prompt="hang: long")
    stuck(server, tmp_path)
    assert server.stop() == 9
    assert "the drain limit has passed" in server.log.read_text()
    assert "1 accepted images are left" in server.log.read_text()


def test_a_port_in_use(server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server.config = f"[http]\nport = {taken.getsockname()[1]}\n"
        server.folder.joinpath("lockstep.toml").write_text(server.config)
        done = run(BINARY, "serve", "--config", server.folder / "lockstep.toml", "--data-dir", server.folder / "data",
                   "--models-dir", server.models)
    assert done.returncode == 1 and "in use" in done.stderr, done.stderr


def test_a_second_server_on_the_same_data(server, models):

    server.start(wait_ready=False)
    second = Server(server.folder, models)
    second.runs = 10
    status, text = refused(second)
    assert status == 1 and "another lockstep is using the data directory" in text, text
    assert server.request("GET", "/livez")[0] == 200


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    status, text = refused(server)
    assert status == 1 and "cannot create the data directory" in text and str(tmp_path) in text, text


def test_a_bad_configuration_names_file_line_and_key(server):
    server.config = '[limits]\nsteps = "many"\n'
    status, text = refused(server)
    assert status == 2 and "lockstep.toml:2: limits.steps: expected a whole number" in text, text
    server.config = '[http]\nprot = 1\n'
    status, text = refused(server)
    assert status == 2 and "lockstep.toml:2: unknown key http.prot" in text, text


def test_a_model_cut_short_fails_its_requests_and_nothing_else(server, models, tmp_path):
    broken = tmp_path / "models"
    shutil.copytree(models, broken)
    shutil.copytree(broken / "tiny-sdxl", broken / "cut-early")
    weights = broken / "cut-early/unet/diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    (broken / "pickled").mkdir()
    (broken / "pickled/model.pt").write_bytes(b"not opened")
    shutil.copytree(broken / "tiny-sdxl", broken / "changed-late")
    server.models = broken
    server.start()
    listed = {m["model"]["model_id"]: m["model"] for m in server.get("/api/v1/models")["models"]}
    assert listed["cut-early"]["availability"] == "broken" and "cut short" in listed["cut-early"]["reason"]
    assert listed["pickled"]["availability"] == "broken" and "pickle" in listed["pickled"]["reason"]
    status, answer = server.request("POST", "/v1/images/generations", {"prompt": "x", "model": "cut-early"})
    assert status == 500 and "cut short" in answer["error"]["message"], answer

    # Cut after it was registered: the load finds out while it fills the cache, before anything is granted.
    weights = broken / "changed-late/unet/diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    # The watch on the folder leaves a broken file alone that was written to a moment ago, however slow this machine is.
    os.utime(weights, (time.time() + 3600,) * 2)
    view = server.finished(server.submit(prompt="x", model="changed-late"))
    assert view["state"] == "failed" and view["failure"]["code"] == "data_loss", view
    assert "changed since it was registered" in view["failure"]["message"], view
    assert all(d["memory_allocated"] == 0 for d in server.get("/api/v1/devices")["devices"])
    assert server.finished(server.submit(prompt="x", model="tiny-sdxl"))["state"] == "completed"


def test_a_cancelled_request_stops_and_its_late_result_is_nobody_s(server, tmp_path):
    with_manners(server, tmp_path)
    server.start()
    request = server.submit(prompt="hang: long", steps=500)
    worker = stuck(server, tmp_path)
    status, answer = server.request("POST", f"/api/v1/requests/{request}/cancel", b"")
    assert status == 200, answer
    assert server.view(request)["failure"]["code"] == "cancelled"
    with let_go(tmp_path):
        until("the worker to be free", lambda: server.workers()[worker["worker_id"]]["task"] == "")
    assert server.workers()[worker["worker_id"]]["pid"] == worker["pid"]  # it stopped; it was not killed
    assert server.finished(server.submit(prompt="next"))["state"] == "completed"
    assert server.request("POST", f"/api/v1/requests/{request}/cancel", b"")[0] == 409
