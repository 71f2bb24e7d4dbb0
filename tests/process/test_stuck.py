"""A worker that hangs, holds the interpreter, floods or answers twice: the rest does not notice (§3.7, design §1). Real
workers, whose inference handler misbehaves when the prompt says so; while one is stuck, the other's jobs complete."""

import pytest

from conftest import BINARY, resident, talking, until
from manners import let_go, stuck, with_manners


@pytest.fixture
def manners(server, tmp_path):
    """A server whose two workers take their manners from the prompt."""
    with_manners(server, tmp_path)
    server.start()
    # Both have what a job needs, so that nothing but the manners differs from here on.
    assert server.finished(server.submit(prompt="warm", n=2, seed=1))["state"] == "completed"
    return server


def heartbeats(server, worker, count):
    """Waits for so many heartbeats of the worker: its telemetry goes out with each."""
    with talking(BINARY, "events", "--follow", "--json", "--type", "device_health_update", "--url",
                 server.url) as follower:
        seen = 0
        while seen < count:
            line = follower.stdout.readline()
            assert line, "the event stream ended"
            seen += f'"{worker["device_id"]}"' in line


@pytest.mark.parametrize("manner", ["hang", "hold"])
def test_a_stuck_handler_is_not_noticed_by_the_others_and_its_runtime_lives(manner, manners, tmp_path):
    server = manners
    late = server.submit(prompt=f"{manner}: x", seed=3)
    worker = stuck(server, tmp_path)
    others = [server.submit(prompt="other", n=2, steps=2, seed=seed) for seed in (4, 6)]
    for request in others:
        view = server.finished(request)
        assert view["state"] == "completed" and all(job["deaths"] == 0 for job in view["jobs"]), view
    # They came after it and are done, and it is where it was: nobody waited for it.
    assert server.view(late)["state"] == "accepted"
    # Twenty seconds of heartbeats, two seconds apart: the C++ runtime needs no interpreter.
    heartbeats(server, worker, 10)
    now = server.workers()[worker["worker_id"]]
    assert now["pid"] == worker["pid"] and now["state"] == "ready" and now["task"].startswith("inf:"), now
    with let_go(tmp_path, manner):
        view = server.finished(late)
    assert view["state"] == "completed" and view["jobs"][0]["deaths"] == 0, view
    assert server.workers()[worker["worker_id"]]["incarnation"] == worker["incarnation"]


def test_a_handler_that_never_answers_is_ended_and_the_others_go_on(server, tmp_path):
    with_manners(server, tmp_path)
    server.config = server.config.replace('"1h"', '"30s"')  # longer than a load takes here, however busy it is
    server.start()
    poison = server.submit(prompt="hold: for ever", seed=3)
    worker = stuck(server, tmp_path)
    assert server.finished(server.submit(prompt="other", steps=2))["state"] == "completed"
    gone = until("the stuck worker to be ended",
                 lambda: (w := server.workers()[worker["worker_id"]])["incarnation"] > worker["incarnation"] and w)
    assert "no progress for 30 s" in gone["last_end"] and "signal 9" in gone["last_end"], gone
    assert server.view(poison)["jobs"][0]["deaths"] >= 1
    assert server.request("POST", f"/api/v1/requests/{poison}/cancel", b"")[0] == 200
    assert server.finished(server.submit(prompt="after", steps=2))["state"] == "completed"


def test_a_worker_that_floods_its_link_costs_no_memory_and_the_others_are_served(manners, tmp_path):
    server = manners
    before = resident(server.process.pid)
    late = server.submit(prompt="flood: x", seed=3)
    until("the flood to begin", lambda: (tmp_path / "flooding").exists())
    for seed in range(4, 10):
        assert server.finished(server.submit(prompt="other", steps=2, seed=seed))["state"] == "completed"
    assert server.view(late)["state"] == "accepted"
    now = resident(server.process.pid)
    assert now < before + (64 << 20), (before, now)
    (tmp_path / "enough").touch()
    assert server.finished(late)["state"] == "completed"
    assert all(w["incarnation"] == 1 for w in server.workers().values())


def test_an_answer_that_comes_twice_counts_once(manners):
    server = manners
    view = server.finished(server.submit(prompt="twice: x", n=2, seed=3))
    assert view["state"] == "completed", view
    assert [job["attempt"] for job in view["jobs"]] == [2, 2], view  # one inference, one postprocessing each
    after = server.finished(server.submit(prompt="after", seed=3))
    assert after["state"] == "completed" and all(w["incarnation"] == 1 for w in server.workers().values())
