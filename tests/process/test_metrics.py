"""/metrics: the text form by a strict reader, and counts that follow what happened."""

import math
import os
import re
import signal

from conftest import Server, until
from frames import HEARTBEAT, guest

HEARTBEAT_ACK, URGENT = 5, 1  # its type, and its lane: P1
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')


def parse(text):
    """{name: (type, {labels: value})}; anything that the format does not allow is an error."""
    families, current = {}, None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert NAME.match(name) and words.endswith(".") and name not in families, line
            current = name
            families[name] = (None, {})
            continue
        if line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and families[name][0] is None and not families[name][1], line
            assert kind in ("counter", "gauge", "histogram"), line
            assert (kind == "counter") == name.endswith("_total"), line
            families[name] = (kind, {})
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        kind, samples = families[current]
        allowed = [current] if kind != "histogram" else [current + s for s in ("_bucket", "_sum", "_count")]
        assert name in allowed, line
        found, rest = [], labels or ""
        while rest:
            label = LABEL.match(rest)
            assert label, line
            found.append(label.groups())
            rest = rest[label.end():]
        assert len({k for k, _ in found}) == len(found), line
        key = (name, tuple(sorted(found)))
        assert key not in samples, line  # a sample appears once
        number = float(value.replace("+Inf", "inf"))
        assert not math.isnan(number) and (kind == "gauge" or number >= 0), line
        samples[key] = number
    for name, (kind, samples) in families.items():
        assert kind, name
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    groups = {}
    for (sample, labels), value in samples.items():
        rest = tuple(label for label in labels if label[0] != "le")
        group = groups.setdefault(rest, {"buckets": []})
        if sample.endswith("_bucket"):
            group["buckets"].append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
        else:
            group[sample.removeprefix(name)] = value
    for group in groups.values():
        bounds = [b for b, _ in group["buckets"]]
        counts = [c for _, c in group["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, name
        assert counts == sorted(counts) and counts[-1] == group["_count"], name
        assert "_sum" in group, name


class Metrics:
    def __init__(self, server):
        self.text = server.request("GET", "/metrics", raw=True)[1].decode()
        self.families = parse(self.text)

    def get(self, sample, **labels):
        for _, samples in self.families.values():
            for (name, found), value in samples.items():
                if name == sample and labels.items() <= dict(found).items():
                    return value
        return 0


def test_counts_follow_a_job_and_a_death(server):
    server.start()
    before = Metrics(server)
    assert before.get("lockstep_worker_state", worker="worker_0", state="ready") == 1
    assert before.get("lockstep_jobs_ended_total", stage="completed") == 0
    assert server.finished(server.submit(prompt="x", n=2))["state"] == "completed"
    assert server.request("POST", "/v1/images/generations", {"prompt": "x", "size": "65x64"})[0] == 400
    after = Metrics(server)
    assert after.get("lockstep_requests_accepted_total", kind="generation") == 1
    assert after.get("lockstep_requests_ended_total", outcome="completed") == 1
    assert after.get("lockstep_requests_refused_total", code="invalid_argument") == 1
    assert after.get("lockstep_jobs_ended_total", stage="completed") == 2
    assert after.get("lockstep_jobs", stage="completed") == 2 and after.get("lockstep_jobs", stage="queued") == 0
    assert after.get("lockstep_queue_length") == 0
    for stage in ("queued", "inferring", "generated", "postprocessing", "storing"):
        assert after.get("lockstep_job_stage_seconds_count", stage=stage) == 2, stage
    assert after.get("lockstep_job_seconds_count") == 2 and after.get("lockstep_job_seconds_sum") > 0
    loads = after.get("lockstep_model_load_seconds_count")
    assert loads >= 3 and after.get("lockstep_transactions_total", outcome="committed") == loads
    assert after.get("lockstep_transactions_total", outcome="aborted") == 0
    assert after.get("lockstep_cache_misses_total") == after.get("lockstep_cache_segments", state="ready") > 0
    assert after.get("lockstep_cache_bytes", state="ready") == server.get("/api/v1/status")["cache_used"]
    granted = sum(after.get("lockstep_device_memory_granted_bytes", device=d["device_id"])
                  for d in server.get("/api/v1/devices")["devices"])
    assert granted == sum(d["memory_allocated"] for d in server.get("/api/v1/devices")["devices"]) > 0
    until("each commit to be on the disk", lambda: (m := Metrics(server)).get("lockstep_journal_commits_total")
          == m.get("lockstep_rev") > before.get("lockstep_rev"))
    assert 0 < after.get("lockstep_journal_sync_seconds_count") <= after.get("lockstep_rev")
    assert after.get("lockstep_http_answers_total", route="generate", status="202") == 1
    assert after.get("lockstep_http_answers_total", route="generate", status="400") == 1
    assert after.get("process_resident_memory_bytes") > 1 << 20 and after.get("process_open_fds") > 5

    worker = server.workers()["worker_0"]
    os.kill(worker["pid"], signal.SIGKILL)
    until("the worker to be back", lambda: (w := server.workers()["worker_0"])["state"] == "ready"
          and w["incarnation"] == worker["incarnation"] + 1)
    dead = Metrics(server)
    causes = {cause: dead.get("lockstep_worker_deaths_total", worker="worker_0", cause=cause)
              for cause in ("signal", "exit", "ended", "not_started", "requested", "other")}
    assert causes == {"signal": 1, "exit": 0, "ended": 0, "not_started": 0, "requested": 0, "other": 0}
    assert dead.get("lockstep_worker_deaths_total", worker="worker_1", cause="signal") == 0
    assert dead.get("lockstep_worker_starts_total", worker="worker_0") == 2
    assert dead.get("lockstep_worker_incarnation", worker="worker_0") == worker["incarnation"] + 1

    # No id of a request, job or transaction is ever a label.
    assert "req_" not in dead.text and "tx_" not in dead.text


def test_what_waits_for_a_worker_that_does_not_read_is_counted_and_all_of_it_leaves(tmp_path):
    """§2.7: the lanes above a link, by a worker that asks much and reads nothing, and then everything."""
    (tmp_path / "models").mkdir()
    server = Server(tmp_path, tmp_path / "models")
    server.options = ["--workers", "0"]
    server.start(wait_ready=False)

    def lanes(metrics, sample):
        return [metrics.get(f"lockstep_lane_{sample}", lane=f"P{lane}") for lane in range(4)]

    try:
        with guest(server) as link:
            until("the worker to be ready", lambda: server.workers()["guest"]["state"] == "ready")
            before = Metrics(server)
            beats = 2000
            for _ in range(beats):
                link.say(HEARTBEAT, {"handler_progress": 0, "tasks_running": 0})
            until("answers to wait", lambda: sum(lanes(Metrics(server), "queued")) > 0)
            answers = 0
            while answers < beats:
                answers += link.receive()[0] == HEARTBEAT_ACK
            after = until("nothing to wait", lambda: sum(lanes(m := Metrics(server), "queued")) == 0 and m)
            grown = [new - old for new, old in zip(lanes(after, "sent_total"), lanes(before, "sent_total"))]
            assert max(grown) == grown[URGENT] >= beats, grown
            assert lanes(after, "wait_seconds_count") == lanes(after, "sent_total")
            assert lanes(after, "wait_seconds_sum")[URGENT] > lanes(before, "wait_seconds_sum")[URGENT]
            # An answer is no sample: none took the place of another.
            assert lanes(after, "conflated_total") == [0, 0, 0, 0]
    finally:
        server.stop()
