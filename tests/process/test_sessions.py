"""Sessions, workflows, outputs and the safety policy with real workers (§1.4, §1.6, §2.4, §2.6)."""

import json

import conftest
from conftest import policy_that_rejects, until
from manners import let_go, stuck, with_manners


def cli(server, *arguments, code=0):
    return conftest.cli(server, *arguments, code=code).stdout


def session(server, name):
    return server.get(f"/api/v1/sessions/{name}")


def ended(server, name):
    return until(f"{name} to end", lambda: (v := session(server, name))["session"]["state"]
                 in ("completed", "failed", "cancelled", "expired") and v)


def test_a_session_pauses_resumes_and_is_seen_through_a_restart(server, tmp_path):
    with_manners(server, tmp_path)
    server.start()
    made = json.loads(cli(server, "sessions", "create", "--class", "batch", "--json"))["session"]["session_id"]
    later = json.loads(cli(server, "sessions", "create", "--depends-on", made, "--json"))["session"]
    assert later["state"] == "created", later
    waiting = server.submit(prompt="second", session_id=later["session_id"])
    request = server.submit(prompt="hang: first", session_id=made)
    stuck(server, tmp_path)  # it runs, until it is let go
    assert "paused" in cli(server, "sessions", "pause", made, "--reason", "look")
    with let_go(tmp_path):
        view = until("the running operation to finish",
                     lambda: (v := server.view(request)["jobs"][0])["stage"] == "generated" and v)
        assert "paused" in view["waits_for"], view
        until("its worker to report it", lambda: [each for each in session(server, made)["workers"]
                                                  if each["update"]["progress_metrics"]["operations_completed"] == 1])
        server.stop()

        server.start()
        assert session(server, made)["session"]["state"] == "paused"
        assert server.view(request)["jobs"][0]["worker_id"] == ""
        cli(server, "sessions", "resume", made)
        assert server.finished(request)["state"] == "completed"
        assert server.view(waiting)["jobs"][0]["stage"] == "queued"
        cli(server, "sessions", "complete", made)
        assert ended(server, made)["session"]["state"] == "completed"
        assert server.finished(waiting)["state"] == "completed"
        cli(server, "sessions", "cancel", made, code=1)


def test_at_a_timeout_nothing_of_the_session_is_held_and_the_answer_names_the_limit(server):
    server.start()
    name = json.loads(cli(server, "sessions", "create", "--operation-timeout", "1ms", "--json"))["session"]["session_id"]
    view = server.finished(server.submit(prompt="too slow", steps=400, session_id=name))
    assert view["failure"]["code"] == "deadline_exceeded", view
    assert "operation_timeout of 1ms" in view["failure"]["message"], view
    cli(server, "sessions", "complete", name)
    assert ended(server, name)["session"]["state"] == "failed"
    until("every worker to be free", lambda: all(w["task"] == "" for w in server.workers().values()))
    assert server.finished(server.submit(prompt="another"))["state"] == "completed"


def test_a_workflow_runs_in_order_and_its_output_is_tagged_and_listed(server, tmp_path):
    server.start()
    assert "generate > upscale > safety > save" in cli(server, "workflows", "list")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"name": "bad", "operations": [
        {"name": "g", "operation": "generate", "inputs": []}, {"name": "s", "operation": "save", "inputs": ["g"]}]}))
    cli(server, "workflows", "add", str(bad), code=2)
    shown = tmp_path / "shown.json"  # what is shown can be changed and given back
    shown.write_text(cli(server, "workflows", "show", "sdxl_generation_pipeline", "--json").replace(
        '"sdxl_generation_pipeline"', '"mine"'))
    assert json.loads(cli(server, "workflows", "add", str(shown), "--json"))["workflow"]["name"] == "mine"
    cli(server, "workflows", "run", "mine", "-p", "steps", code=2)
    started = json.loads(cli(server, "workflows", "run", "sdxl_generation_pipeline", "-p", "prompt=a lighthouse", "-p",
                             "size=64x64", "-p", "steps=4", "--json"))
    view = ended(server, started["session_id"])
    assert view["session"]["state"] == "completed" and view["operations_completed"] == 4, view
    job = server.view(started["request_id"])["jobs"][0]
    assert job["operations"] == ["upscaling", "safety_check"], job
    sha256 = job["output"]["sha256"]
    cli(server, "outputs", "tag", sha256, "--add", "keep")
    assert [o["sha256"] for o in server.get("/api/v1/outputs?tag=keep")["outputs"]] == [sha256]
    assert server.get("/api/v1/outputs?tag=other")["outputs"] == []

    cli(server, "policy", "set", policy_that_rejects(tmp_path, "strict-1"))
    blocked = server.finished(server.submit(prompt="a lighthouse"))
    assert blocked["failure"]["code"] == "safety_blocked" and "strict-1" in blocked["failure"]["message"], blocked
