"""Death of either side, by SIGKILL, while work runs (design §1: all or nothing, nothing accepted is lost)."""

import os
import signal

from conftest import LIMIT, alive, until, within
from manners import let_go, stuck, with_manners


def outputs_on_disk(server):
    return sorted(p.name for p in (server.folder / "data/outputs").rglob("*.png"))


def test_a_killed_worker_s_job_is_done_by_its_next_incarnation(server, tmp_path):
    with_manners(server, tmp_path)
    server.start()
    request = server.submit(prompt="hang: a", seed=1)
    worker = stuck(server, tmp_path)
    os.kill(worker["pid"], signal.SIGKILL)
    until("the death to be counted", lambda: server.view(request)["jobs"][0]["deaths"] == 1)
    with let_go(tmp_path):
        view = server.finished(request)
    job = view["jobs"][0]
    assert view["state"] == "completed" and job["deaths"] == 1, view
    assert len(outputs_on_disk(server)) == 1  # one image came out
    again = until("the worker to be back",
                  lambda: (w := server.workers()[worker["worker_id"]])["state"] == "ready" and w)
    assert again["incarnation"] == worker["incarnation"] + 1 and again["pid"] != worker["pid"]
    assert "signal 9" in again["last_end"]
    status = server.get("/api/v1/status")
    for device in status["devices"]:  # the ledger holds what is loaded and nothing of the dead
        held = sum(m["model"]["bytes"] for m in status["models"]
                   for r in m["residencies"] if r["device_id"] == device["device_id"])
        assert device["memory_allocated"] == held


def test_the_third_death_on_one_job_sets_it_aside_and_the_others_go_on(server, tmp_path):
    with_manners(server, tmp_path)
    server.start()
    poison = server.submit(prompt="hang: poison", seed=1)
    for death in range(3):
        worker = stuck(server, tmp_path)
        (tmp_path / "stuck").unlink()  # the next one writes it anew
        other = server.submit(prompt="harmless", steps=2, seed=death)
        os.kill(worker["pid"], signal.SIGKILL)
        until("the death to be counted", lambda: server.view(poison)["jobs"][0]["deaths"] == death + 1)
        assert server.finished(other)["state"] == "completed"
    view = server.finished(poison)
    assert view["state"] == "failed" and view["jobs"][0]["stage"] == "set_aside", view
    assert view["failure"]["code"] == "poisonous" and "signal 9" in view["failure"]["message"], view
    assert server.finished(server.submit(prompt="after", seed=9))["state"] == "completed"


def test_workers_outlive_a_killed_orchestrator_with_what_they_hold(server, tmp_path):
    with_manners(server, tmp_path)
    server.start()
    first = server.submit(prompt="done before", seed=5)
    assert server.finished(first)["state"] == "completed"
    request = server.submit(prompt="hang: running", n=2, seed=1)
    until("both workers to work on it", lambda: all(w["task"].startswith("inf:") for w in server.workers().values()))
    before = server.workers()

    def resident():
        return {(m["model"]["model_id"], r["worker_id"]) for m in server.get("/api/v1/models")["models"]
                for r in m["residencies"] if r["state"] == "loaded"}

    loaded = resident()
    server.kill()
    assert all(alive(w["pid"]) for w in before.values())

    server.start()
    # Until a worker is back its row says what it said before: ready.
    until("both workers to be back", lambda: all(
        f"{worker} is back, incarnation 1" in server.log.read_text() for worker in before))
    after = server.workers()
    assert {w: v["pid"] for w, v in after.items()} == {w: v["pid"] for w, v in before.items()}
    assert all(v["incarnation"] == before[w]["incarnation"] for w, v in after.items())
    assert loaded and loaded <= resident()
    with let_go(tmp_path):
        view = server.finished(request)
    assert view["state"] == "completed", view
    # The image that ran went on: one inference and one postprocessing, no second try.
    assert [job["attempt"] for job in view["jobs"]] == [2, 2], view
    log = server.log.read_text()
    assert log.count("working on inf:") == 2, log
    assert server.stop() == 0
    until("the workers to end with their orchestrator", lambda: not any(alive(w["pid"]) for w in after.values()))


def test_a_killed_orchestrator_loses_nothing_and_does_nothing_twice(server, tmp_path):
    with_manners(server, tmp_path)
    server.config = server.config.replace("[workers]", '[workers]\nreconnect = "0s"')  # they end with their orchestrator
    server.start()
    first = server.submit(prompt="done before", seed=5)
    assert server.finished(first)["state"] == "completed"
    requests = [server.submit(prompt=f"hang: p{i}", n=2, seed=i) for i in range(3)]
    stuck(server, tmp_path)
    pids = [w["pid"] for w in server.workers().values()]
    epoch = server.get("/api/v1/status")["epoch"]
    server.kill()
    until("its workers to end", lambda: not any(alive(pid) for pid in pids))

    server.start(wait_ready=False)
    assert server.get("/api/v1/status")["epoch"] == epoch + 1
    with let_go(tmp_path):
        views = [server.finished(request) for request in requests]
    assert all(v["state"] == "completed" for v in views), views
    shas = [job["output"]["sha256"] for v in views for job in v["jobs"]]
    assert len(shas) == 6
    # The earlier one was not done again, and the log shows each old worker proven gone before the new one started.
    assert server.view(first)["jobs"][0]["attempt"] == 2  # one inference, one postprocessing: as before the crash
    log = server.log.read_text()
    for worker in ("worker_0", "worker_1"):
        assert log.index(f"{worker} is gone: it ended with the earlier orchestrator") < log.index(f"{worker} started as")
    assert server.stop() == 0


def test_a_worker_ends_itself_when_its_link_ends(tmp_path):
    import fcntl
    import socket
    import subprocess

    from conftest import ROOT

    # The descriptors a worker inherits: 3 its link, 4 its lock, 5 and 6 its life lines (docs/worker_sdk.md).
    ours, theirs = socket.socketpair()
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    lines = [os.pipe(), os.pipe()]
    inherited = [theirs.fileno(), lock, lines[0][1], lines[1][1]]

    def arrange():
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in inherited]
        for target, fd in enumerate(high, start=3):
            os.dup2(fd, target)
    # The handler's thread holds the interpreter lock for ever: only the runtime's own thread can end the process.
    script = ("import lockstep\n"
              "worker = lockstep.Worker.from_environment()\n"
              "import ctypes\n"
              "print('stuck', flush=True)\n"
              "ctypes.PyDLL(None).pause()\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "LOCKSTEP_LINK_FD": "3",
                   "LOCKSTEP_WORKER": "w", "LOCKSTEP_INCARNATION": "1"}
    process = subprocess.Popen([str(ROOT / ".venv/bin/python"), "-c", script], env=environment,
                               close_fds=False, preexec_fn=arrange, stdout=subprocess.PIPE)
    theirs.close()
    with within(LIMIT, process):
        assert process.stdout.readline() == b"stuck\n"
        assert len(ours.recv(32, socket.MSG_WAITALL)) == 32  # its hello
    ours.close()
    assert process.wait(LIMIT) == 0
