"""A thousand malformed frames from a fixed seed over the workers' socket, from strangers and from workers that were let
in: each ends in a refusal with a sentence or a closed link; the server serves on, and nothing leaks."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from conftest import BINARY, LIMIT, Server, until
from frames import HELLO, READY, HEARTBEAT, REFUSED, Link, dialling, envelope, frame, header, hello, let_in
from test_malformed_http import descriptors, resident

NAMES = ["../../etc/passwd", "..", ".hidden", "a/b", "a\u0000b", "", "x" * 65, "ü", "con fig", "$(id)", "' or 1=1",
         "worker_0/../guest", "\n", "a\tb"]
HELLO_WITHIN = 5  # seconds, from connecting on (docs/formats/wire.md)
WRONG = [None, True, [], {}, "many", -1, 1.5, 10**30, "x" * 5000]


def memory_file(text=b"not sealed"):
    fd = os.memfd_create("test")
    os.write(fd, text)
    return fd


def bad_text(rng, good):
    """(what, bytes): a body that is no envelope."""
    text = json.dumps(good)
    kind = rng.randrange(9)
    if kind == 0:
        cut = rng.randrange(len(text))
        return f"JSON cut at {cut}", text[:cut].encode()
    if kind == 1:
        depth = rng.randrange(33, 400)
        return f"depth {depth}", text.replace('"correlation": {}', '"correlation": ' + '{"a":' * depth + "1" + "}" * depth
                                              ).encode()
    if kind == 2:
        return "not a number", text.replace('"attempt": 0', f'"attempt": {rng.choice(["NaN", "Infinity", "-nan", "0x1"])}'
                                            ).encode()
    if kind == 3:
        key = rng.choice(["id", "type", "epoch", "sequence", "body", "source"])
        return f"{key} twice", text.replace("{", '{"' + key + '": ' + json.dumps(good[key]) + ", ", 1).encode()
    if kind == 4:
        return "bytes that are no UTF-8", text.replace('"op_id": ""', '"op_id": "\udcff"').encode("utf-8", "surrogateescape")
    if kind == 5:
        return "noise", rng.randbytes(rng.randrange(1, 2000))
    if kind == 6:
        return "something behind it", (text + rng.choice(["x", "{}", ",", "]"])).encode()
    if kind == 7:
        key = rng.choice(["id", "type", "source", "epoch", "sequence", "time", "urgency", "op_id", "attempt", "body"])
        wrong = rng.choice([w for w in WRONG if type(w) is not type(good[key])])
        return f"type of {key}: {wrong!r:.30}", json.dumps({**good, key: wrong}).encode()
    key = rng.choice(["id", "type", "source", "epoch", "sequence", "time", "urgency", "body"])
    return f"without {key}", json.dumps({k: v for k, v in good.items() if k != key}).encode()


def from_stranger(rng, secret):
    """(what, bytes, descriptors made for it, whether the sentence of a refusal must come)."""
    good = envelope(HELLO, hello(secret))
    kind = rng.randrange(12)
    if kind < 4:
        what, text = bad_text(rng, good)
        return what, frame(HELLO, text), (), True
    if kind == 4:
        name = rng.choice(NAMES)
        return f"name {name!r}", frame(HELLO, envelope(HELLO, hello(secret, name), name=name)), (), True
    if kind == 5:
        key = rng.choice(["worker_id", "runtime_version", "pid", "device"])
        wrong = rng.choice([[], 1.5, True, {"kind": "abacus", "memory_budget": -1}, {"kind": "cpu"}])
        return f"hello's {key}: {wrong}", frame(HELLO, envelope(HELLO, hello(secret, **{key: wrong}))), (), True
    if kind == 6:
        wrong = rng.choice([None, "", "guess", secret[:-1], secret + "0", secret.upper()])
        return "a wrong secret", frame(HELLO, envelope(HELLO, hello(wrong))), (), True
    if kind == 7:  # somebody else's life
        name = rng.choice(["good", "guest", "worker_0"])
        life = {"incarnation": rng.choice([1, 2, 7, 2**63])}
        rejoin = {"cluster_id": rng.choice(["x", "", "../"]), "token": "guess", "last_epoch": rng.choice([0, 1, 2**62]),
                  "holdings": [], "tasks": [], "segments": [{"model_id": "../m", "component": "..", "sha256": "a" * 64}]}
        text = envelope(HELLO, hello(secret, name, rejoin=rejoin), name=name, **life)
        fds = [memory_file() for _ in range(rng.randrange(4))]
        return "a forged return", frame(HELLO, text, descriptors=len(fds), **life), fds, True
    if kind == 8:  # the header says something else than the body, or what no hello says
        field = rng.choice(["epoch", "incarnation", "sequence"])
        value = rng.choice([2, 7, 2**40, 2**64 - 1])
        return f"header's {field} {value}", frame(HELLO, good, **{field: value}), (), True
    if kind == 9:
        other = rng.choice([0, READY, HEARTBEAT, 2, 6, 15, 16, 31, 38, 56, 255, 65535])
        return f"first frame of type {other}", frame(other, good), (), True
    if kind == 10:  # a header that cannot be: the link ends
        which = rng.randrange(4)
        data = [header(2**20 + rng.randrange(1, 2**31), HELLO), header(4, HELLO, urgency=rng.randrange(4, 256)),
                header(4, HELLO, descriptors=rng.randrange(65, 256)), header(len(b"{}"), HELLO, descriptors=3)][which]
        return f"impossible header {which}", data + b"{}" * 2, (), False
    fds = [memory_file() for _ in range(rng.randrange(1, 20))]
    return "descriptors of nobody", frame(HELLO, good) if rng.random() < 0.5 else header(500, HELLO) + b"{", fds, False


def from_worker(rng):
    """(what, function of a link that was let in): the next thing such a worker says, which ends it."""
    life = rng.choice(["epoch", "incarnation", "sequence"])
    jump = rng.choice([-1, 1, 2, 1000])
    kinds = [
        ("an old life: " + life, lambda link: wrong_life(link, life, jump)),
        ("a second hello", lambda link: link.say(HELLO, hello("x"))),
        ("an unknown type", lambda link: link.say(rng.choice([0, 16, 56, 9999]), {})),
        ("a heartbeat of nothing", lambda link: link.say(HEARTBEAT, {})),
        ("a heartbeat of text", lambda link: link.say(HEARTBEAT, {"handler_progress": "x", "tasks_running": 0})),
        ("a progress out of range", lambda link: link.say(37, {"event_type": "inference_progress"})),
        ("a forged source", lambda link: link.say(READY, {}, incarnation=2**40)),
        ("an image of nobody, broken", lambda link: link.say(38, {"request_id": "../x"}, [memory_file()])),
        ("health of another shape", lambda link: link.say(32, {"device_id": "guest_device", "health_metrics": {"temperature": []}})),
    ]
    return kinds[rng.randrange(len(kinds))]


def wrong_life(link, field, jump):
    link.sequence += 1
    fields = {"epoch": link.epoch, "incarnation": link.incarnation, "sequence": link.sequence}
    fields[field] += jump
    link.send(frame(HEARTBEAT, envelope(HEARTBEAT, {"handler_progress": 1, "tasks_running": 0}, **fields), **fields))


def good_worker(path, secret):
    link = let_in(path, secret, "good")
    link.say(READY, {})
    while True:
        link.say(HEARTBEAT, {"handler_progress": 0, "tasks_running": 0})
        if not link.receive():
            raise ConnectionError("the link of the good worker ended")
        time.sleep(1)


def bad_worker(path, secret, seed):
    link = let_in(path, secret)
    from_worker(random.Random(seed))[1](link)
    while link.receive():
        pass
    time.sleep(LIMIT)  # its link ended; its process is next


def test_a_thousand_malformed_frames(tmp_path):
    (tmp_path / "models").mkdir()
    server = Server(tmp_path, tmp_path / "models", '[workers]\ncommand = ["/bin/sleep", "600"]\n[timing]\nstart = "2h"\n'
                    '[[worker]]\nname = "worker_0"\n')
    server.start(wait_ready=False)
    pid = server.process.pid
    path = str(server.folder / "data/workers.sock")
    secret = (server.folder / "data/worker.secret").read_text().strip()
    rng = random.Random(20261126)
    words = tmp_path / "dialling.log"
    words.touch()
    steady = dialling(words, good_worker, path, secret)
    try:
        def good_is_ready():
            if steady.exitcode is not None:
                pytest.fail(f"the good worker ended ({steady.exitcode}): {words.read_text()}{server.log.read_text()}")
            return server.workers().get("good", {}).get("state") == "ready"
        until("the good worker to be ready", good_is_ready)
        count = {"refused": 0, "closed": 0, "ended": 0}

        def one(number):
            if rng.random() < 0.2:
                seed = rng.randrange(1 << 32)
                what = from_worker(random.Random(seed))[0]
                worker = dialling(words, bad_worker, path, secret, seed)
                worker.join(LIMIT)
                assert worker.exitcode == -signal.SIGKILL, (what, worker.exitcode, words.read_text())
                view = until("its end to be told",
                             lambda: (w := server.workers()["guest"])["state"] in ("gone", "broken") and w)
                assert "it sent" in view["last_end"] and len(view["last_end"]) > 20, (what, view)
                count["ended"] += 1
                return
            what, data, fds, must_answer = from_stranger(rng, secret)
            began = time.monotonic()
            link = Link(path)
            link.send(data, fds)
            for fd in fds:
                os.close(fd)
            answer = link.receive()
            if answer is None and time.monotonic() - began > HELLO_WITHIN:
                link.close()
                return one(number)  # this machine stood still: it was cut off as one that says nothing
            if answer is None:
                assert not must_answer, (number, what)
                count["closed"] += 1
            else:
                assert answer[0] == REFUSED, (number, what, answer)
                reason = answer[1]["reason"]
                assert len(reason) > 15 and "\n" not in reason, (number, what, reason)
                count["refused"] += 1
            link.close()

        for number in range(60):  # what the first ones allocate for good
            one(-number)
        fds, memory = descriptors(pid), resident(pid)
        count = {"refused": 0, "closed": 0, "ended": 0}
        for number in range(1000):
            one(number)
        assert sum(count.values()) == 1000 and min(count.values()) > 30, count
        until("the connections to be closed", lambda: descriptors(pid) <= fds)
        assert resident(pid) < memory + (32 << 20), (memory, resident(pid))

        # The others noticed nothing, and the journal tells the same state.
        workers = server.workers()
        assert workers["good"]["state"] == "ready" and workers["good"]["incarnation"] == 1, workers["good"]
        assert workers["worker_0"]["incarnation"] == 1 and workers["worker_0"]["pid"] > 0
        assert server.request("GET", "/livez")[0] == 200
        assert server.stop() == 0
        log = server.log.read_text()  # whatever was quoted in it is text
        assert "descriptors that no frame announced" in log and "the limit is 1048576" in log
        verified = json.loads(subprocess.check_output([BINARY, "journal", "verify", "--json", "--data-dir",
                                                       str(server.folder / "data")]))
        assert f"digest {verified['digest']}" in log
    finally:
        steady.kill()
        steady.join()
        if server.process.poll() is None:
            server.kill()
