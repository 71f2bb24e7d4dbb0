"""Transactions on real processes (§3.1-3.6, §3.8): what a load and an image did, as the specification's documents, in
`lockstep tx` and in the event stream, and a quality gate that stops the rest of a request."""

import contextlib
import json
import subprocess

from conftest import BINARY, LIMIT, cli, policy_that_rejects, run, until

# One worker, and ten images that take it seconds each: when the first one is stored, the others are still to come.
ONE = '[[worker]]\nname = "one"\n'
MANY = {"prompt": "a lighthouse", "n": 10, "steps": 200, "error_handling": "cascade_rollback"}


def transactions(server, kind):
    listed = json.loads(cli(server, "tx", "list", "--json").stdout)["transactions"]
    return [each for each in listed if each["kind"] == kind]


def documents(server, transaction):
    return json.loads(cli(server, "tx", "show", transaction, "--json").stdout)["documents"]


def checked(document):
    """What `lockstep message check` prints for it: unchanged, or the test fails."""
    text = json.dumps(document["body"], ensure_ascii=False, separators=(",", ":"))
    done = run(BINARY, "message", "check", "-", input=text)
    assert done.returncode == 0 and done.stderr == "", done
    assert json.loads(done.stdout) == document["body"]


@contextlib.contextmanager
def followed(server, file):
    """The event stream; gives a function that returns what has come of it."""
    with open(file, "wb") as out:
        follower = subprocess.Popen([BINARY, "events", "--follow", "--json", "--since", "0", "--url", server.url],
                                    stdout=out)
        try:
            def events():
                return [json.loads(line) for line in file.read_text().split("\n")[:-1]]

            until("the stream to begin", events)  # with what there was: from here on nothing is missed
            yield events
        finally:
            follower.terminate()
            follower.wait(LIMIT)


def with_newest_progress(events):
    """Names and bodies; of the progress of a load, of which the stream tells each report, the newest alone is kept."""
    reports = [event for event in events if event["type"] == "model_loading_state_update"
               and event["body"]["state_updates"][0]["state_change"]["model_cache_status"] == "loading_to_vram"]
    return [(event["type"], event["body"]) for event in events if event not in reports[:-1]]


def test_a_load_and_an_image_leave_the_documents_of_the_specification(server, tmp_path):
    server.start()
    with followed(server, tmp_path / "events") as events:
        assert server.finished(server.submit(prompt="a lighthouse"))["state"] == "completed"
        loads, images = transactions(server, "model_load"), transactions(server, "image")
        assert loads and {each["state"] for each in loads} == {"committed"}
        assert len(images) == 1
        assert until("the image to be over", lambda: transactions(server, "image")[0]["state"] == "committed")
        load = documents(server, loads[0]["transaction_id"])
        names = [each["name"] for each in load]
        assert names[:6] == ["atomic_device_memory_allocation", "atomic_model_memory_loading", "transaction_voting",
                             "transaction_outcome", "device_memory_consistency", "saga"]
        assert names[-4:] == ["model_loading_state_update", "transaction_outcome", "device_memory_consistency", "saga"]
        assert all(check["consistency"] for each in load if each["name"] == "device_memory_consistency"
                   for check in each["body"]["validation_checks"])
        image = documents(server, images[0]["transaction_id"])
        assert all(stage["consistent"] for stage in image[-2]["body"]["flow_stages"]), image[-2]
        assert image[-1]["body"]["saga_status"] == "completed"
        for each in load + image:
            checked(each)

        # The same in the event stream, in the same order, and for people.
        for transaction, written in ((loads[0]["transaction_id"], load), (images[0]["transaction_id"], image)):
            told = until("the documents in the stream", lambda: len(
                t := with_newest_progress([e for e in events() if e["subject"] == transaction])) >= len(written) and t)
            assert told == [(each["name"], each["body"]) for each in written]
        assert "request_completed" in {each["type"] for each in events()}
        text = cli(server, "tx", "show", loads[0]["transaction_id"]).stdout
        assert "committed_successfully" in text and loads[0]["transaction_id"] in text
        assert loads[0]["transaction_id"] in cli(server, "tx", "list").stdout
        assert cli(server, "tx", "list", "--open").stdout == "no transactions\n"

        # Nothing waits for a decision, and an unknown one is told from a known one.
        refused = cli(server, "tx", "resolve", loads[0]["transaction_id"], "--abort", "--reason", "a try", code=1)
        assert "nothing waits for a decision" in refused.stderr
        refused = cli(server, "tx", "resolve", "tx_9_9", "--commit", "--reason", "a try", code=3)
        assert "there is no transaction tx_9_9" in refused.stderr
        refused = cli(server, "tx", "resolve", "tx_9_9", "--reason", "x", code=2)
        assert "one of --commit, --abort, --retry" in refused.stderr
        # Worker and server are of one version: their events cross packed.
        worker = next(iter(server.workers().values()))
        assert worker["event_form"] == "packed"
        assert "packed events" in cli(server, "workers", "show", worker["worker_id"]).stdout


def test_a_gate_that_fails_stops_the_rest_and_takes_back_what_was_delivered(server, tmp_path):
    server.config = ONE
    server.start()
    request = server.submit(**MANY)
    first = until("the first image", lambda: next(
        (job["output"] for job in server.view(request)["jobs"] if job["stage"] == "completed"), None))
    assert server.request("GET", f"/api/v1/outputs/{first['sha256']}", raw=True)[0] == 200
    cli(server, "policy", "set", policy_that_rejects(tmp_path, "none-is-good-enough"))
    ended = server.finished(request)
    assert ended["state"] == "failed" and ended["failure"]["code"] == "safety_blocked", ended
    assert {job["stage"] for job in ended["jobs"]} == {"failed"}, ended["jobs"]
    reasons = [job["failure"]["message"] for job in ended["jobs"]]
    assert sum("failed a gate" in reason for reason in reasons) == MANY["n"] - 1, reasons
    assert server.get("/api/v1/outputs")["outputs"] == []
    assert server.request("GET", f"/api/v1/outputs/{first['sha256']}", raw=True)[0] == 404
    assert not [path for path in (server.folder / "data" / "outputs").rglob("*") if path.is_file()]
    until("every worker to be free", lambda: all(each["task"] == "" for each in server.workers().values()))
    flow = [each for each in transactions(server, "image") if each["state"] == "compensated"]
    assert flow and any("none-is-good-enough" in each["reason"] for each in flow), flow


def test_a_file_that_cannot_be_removed_is_remembered_over_a_restart_until_it_is_gone(server, tmp_path):
    """§3.6: the removal is durable before it is tried, tried again, and never dropped."""
    server.config = ONE
    server.start()
    request = server.submit(**MANY)
    first = until("the first image", lambda: next(
        (job["output"] for job in server.view(request)["jobs"] if job["stage"] == "completed"), None))
    # A folder in its place: what the disk refuses to remove, also for root.
    file = next(path for path in (server.folder / "data" / "outputs").rglob(f"{first['sha256']}*"))
    file.unlink()
    file.mkdir()
    cli(server, "policy", "set", policy_that_rejects(tmp_path, "none-is-good-enough"))
    assert server.finished(request)["failure"]["code"] == "safety_blocked"
    rollback = f"tx_{request}"

    def tried():
        found = server.get(f"/api/v1/transactions/{rollback}")
        return found if (found.get("saga") or {}).get("attempts", 0) > 0 else None

    before = until("an attempt to fail", tried)
    assert before["state"] == "compensating" and before["kind"] == "rollback", before
    assert "Is a directory" in before["saga"]["reason"], before
    assert before["saga"]["due"][0]["target"] == first["sha256"]
    shown = cli(server, "tx", "show", rollback).stdout
    assert "remove_output" in shown and first["sha256"] in shown
    assert "only a parked one waits" in cli(server, "tx", "resolve", rollback, "--retry", "--reason", "x", code=1).stderr

    server.kill()
    server.start()
    assert until("the next life to try", tried)["saga"]["attempts"] >= before["saga"]["attempts"]
    assert server.get("/api/v1/outputs")["outputs"] == []
    file.rmdir()
    until("the rollback to end", lambda: server.get(f"/api/v1/transactions/{rollback}")["state"] == "compensated")
    assert rollback not in cli(server, "tx", "list", "--open").stdout
