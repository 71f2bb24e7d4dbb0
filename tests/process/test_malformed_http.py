"""A thousand malformed requests from a fixed seed, ten thousand queued ones, a full disk, folders that cannot be used:
each has a useful sentence and a sane end, and the server still serves."""

import contextlib
import errno
import json
import os
import pathlib
import random
import socket
import struct
import subprocess

import pytest

from conftest import BINARY, LIMIT, Server, resident, until

GENERATE = "/v1/images/generations"


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def exchange(port, data):
    """Sends the bytes, ends its own side, and returns everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it answered and closed before it had everything
        out = b""
        while True:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return out
            if not piece:
                return out
            out += piece


def http(method, target, body=b"", headers=()):
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def generation(**change):
    return http("POST", GENERATE, json.dumps({"prompt": "a", "size": "64x64", "steps": 2, **change}).encode())


def malformed(rng):
    """(what, bytes, may the connection be closed without an answer)."""
    wrong = [None, True, [], {}, "many", -1, 1.5, 10**30, "\u0000", "x" * 500]
    names = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", ".hidden", "a/b", "a%00b", "req_999999_999999",
             "a" * 129, "req_000001_000001/../x", "\xff", "%ff%fe", "CON", "~root", "$(id)", "' or 1=1"]
    kind = rng.randrange(14)
    if kind == 0:
        text = json.dumps({"prompt": "a", "n": 1, "size": "64x64"})
        cut = rng.randrange(len(text))
        return "json cut", http("POST", GENERATE, text[:cut].encode()), False
    if kind == 1:
        text = bytearray(b'{"prompt":"a","n":1}')
        text[rng.choice([0, 1, 9, 13, 17])] = rng.choice([0, 1, 0x80, 0xFF, ord("'")])
        return "json byte", http("POST", GENERATE, bytes(text)), False
    if kind == 2:
        field = rng.choice(["prompt", "n", "steps", "guidance_scale", "seed", "model", "size"])
        value = rng.choice([w for w in wrong if not (w is None and field != "prompt")
                            and not (isinstance(w, str) and w == "x" * 500 and field == "prompt")
                            and not (field == "prompt" and w in ("many", "\u0000"))
                            and not (field == "guidance_scale" and w == 1.5)])
        return f"type of {field}: {value!r:.40}", generation(**{field: value}), False
    if kind == 3:
        side = rng.choice([1, 7, 63, 65, 100, 4099, 10**9])
        return "size", generation(size=f"{side}x{rng.choice([64, side])}"), False
    if kind == 4:
        return "model", generation(model=rng.choice(names + ["none-such", ""])), False
    if kind == 5:
        return "unknown key", generation(**{rng.choice(["colour", "promt", "__proto__", ""]): 1}), False
    if kind == 6:
        place = rng.choice(["/api/v1/requests/{}", "/api/v1/requests/{}/cancel", "/api/v1/outputs/{}.png",
                            "/api/v1/workers/{}", "/api/v1/workers/{}/logs", "/api/v1/workers/{}/restart",
                            "/api/v1/devices/{}/calibrate", "/{}"])
        name = rng.choice(names)
        target = place.format(name).replace(" ", "%20")
        method = "POST" if target.endswith(("cancel", "restart", "calibrate")) else "GET"
        return f"name {target}", http(method, target), False
    if kind == 7:
        method, target = rng.choice([("DELETE", "/api/v1/status"), ("PUT", GENERATE), ("GET", GENERATE), ("BREW", "/livez"),
                                     ("POST", "/api/v1/events"), ("PATCH", "/metrics"), ("GET", "/api/v1/checks")])
        return f"method {method} {target}", http(method, target), False
    if kind == 8:
        size = rng.choice([(1 << 20) + 1, 3 << 20])
        return "huge body", http("POST", GENERATE, b"{" + b" " * size), False
    if kind == 9:
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (b'{"prompt"', b':"a"}'))
        cut = rng.randrange(1, len(pieces))
        head = f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return "chunked body cut", head + pieces[:cut], True
    if kind == 10:
        flood = "".join(f"X-{i}: {'y' * rng.randrange(50)}\r\n" for i in range(rng.randrange(900, 2000)))
        return "header flood", f"GET /livez HTTP/1.1\r\n{flood}\r\n".encode(), False
    if kind == 11:
        garbage = rng.randbytes(rng.randrange(1, 3000))
        return "garbage", garbage, True
    if kind == 12:
        return "garbage in the pipeline", http("GET", "/nothing").replace(b"close", b"keep-alive") + rng.randbytes(200), True
    header = rng.choice(["Content-Length: -1", "Content-Length: x", "Transfer-Encoding: gzip, chunked\r\nContent-Length: 3",
                         "Bad Header: 1", ": nothing", "Content-Length: 99999999999999999999"])
    return f"header {header}", f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\nabc".encode(), True


def test_a_thousand_malformed_requests(server):
    server.start()
    port = int(server.url.rsplit(":", 1)[1])
    pid = server.process.pid
    assert server.finished(server.submit(prompt="warm"))["state"] == "completed"
    rng = random.Random(20261124)
    for _ in range(100):  # what the first ones allocate for good
        exchange(port, malformed(rng)[1])
    fds, memory = descriptors(pid), resident(pid)
    answers = {}
    for number in range(1000):
        what, data, may_close = malformed(rng)
        out = exchange(port, data)
        if not out and may_close:
            answers["closed"] = answers.get("closed", 0) + 1
            continue
        head, _, body = out.partition(b"\r\n\r\n")
        assert head, (number, what, out)
        status = int(head.split(b" ", 2)[1])
        assert 400 <= status < 500, (number, what, out[:500])
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        error = json.loads(body[:length])["error"]
        assert len(error["message"]) > 10 and error["code"], (number, what, error)
        if what.startswith("type of ") and "prompt" not in what:
            field = what.split()[2].rstrip(":")
            assert error["param"] in (field, "width", "height"), (what, error)
        answers[status] = answers.get(status, 0) + 1
    assert sum(answers.values()) == 1000 and {400, 404, 405, 413, 431} <= set(answers), answers
    until("its connections to be closed", lambda: descriptors(pid) <= fds)
    assert resident(pid) < memory + (64 << 20), (memory, resident(pid))
    assert server.get("/api/v1/status")["queue"]["open"] == 0  # none of them was taken for a request
    assert server.request("GET", "/readyz")[0] == 200
    assert server.finished(server.submit(prompt="after"))["state"] == "completed"


def bare_server(tmp_path, models, config="", workers=()):
    text = f"{config}\n" + "".join(f'[[worker]]\nname = "{name}"\n' for name in workers)
    return Server(tmp_path, models, text)


def test_ten_thousand_queued_requests_are_kept_and_the_next_is_told_to_wait(tmp_path, models):
    limit = 10_000
    # A worker that never becomes ready: everything waits.
    server = bare_server(tmp_path, models,
                         f"[limits]\nopen_jobs = {limit}\n[workers]\ncommand = [\"/bin/sleep\", \"600\"]\n"
                         "[timing]\nstart = \"2h\"", ["sleeper"])
    server.start(wait_ready=False)
    try:
        until("the models to be read",
              lambda: server.request("GET", "/readyz")[1]["reason"] == "no worker is ready yet")
        memory = resident(server.process.pid)
        port = int(server.url.rsplit(":", 1)[1])
        body = json.dumps({"prompt": "p", "size": "64x64", "n": 10}).encode()
        one = (f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Length: {len(body)}\r\n\r\n"
               .encode() + body)
        accepted = set()
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
            stream = connection.makefile("rb")

            def answer():
                status = int(stream.readline().split()[1])
                headers = dict(line.decode().rstrip().split(": ", 1)
                               for line in iter(stream.readline, b"\r\n"))
                return status, headers, json.loads(stream.read(int(headers["Content-Length"])))
            for _ in range(limit // 10):
                connection.sendall(one)
                status, _, answered = answer()
                assert status == 202, answered
                accepted.add(answered["request_id"])
            connection.sendall(one)
            status, headers, answered = answer()
        assert len(accepted) == limit // 10
        assert status == 429 and headers["Retry-After"] == "1", answered
        assert f"the queue holds {limit} images; the limit is {limit}" in answered["error"]["message"], answered
        assert server.request("GET", "/livez")[0] == 200
        assert server.get("/api/v1/status")["queue"] == {"open": limit, "queued": limit, "running": 0}
        assert resident(server.process.pid) < memory + (256 << 20)
        server.kill()
        server.start(wait_ready=False)
        assert server.get("/api/v1/status")["queue"]["open"] == limit
        for request in accepted:
            assert server.view(request)["state"] == "accepted"
    finally:
        if server.process.poll() is None:
            server.stop()  # and its worker, which would sleep on


@contextlib.contextmanager
def mounted(folder, size):
    """A file system of this size; the test is skipped where none may be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True,
                          text=True)
    if made.returncode != 0:
        pytest.skip(f"mounting is not possible here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path, left=0):
    """Takes all that is free but `left` bytes, at once: what a server makes room for meanwhile stays the server's."""
    with open(path, "wb") as file:
        while True:
            disk = os.statvfs(path.parent)
            free = disk.f_bavail * disk.f_frsize - left
            if free <= 0:
                return
            try:
                return os.posix_fallocate(file.fileno(), 0, free)
            except OSError as error:  # somebody wrote in between
                if error.errno != errno.ENOSPC:
                    raise


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", "3m") as folder:
        yield folder


def test_a_full_disk_ends_the_server_and_space_brings_everything_back(tmp_path, models, small_disk):
    more = '[storage]\nlow_water = "0B"\n[workers]\ncommand = ["/bin/sleep", "600"]'  # it is to be filled to the end
    server = bare_server(small_disk, models, more, ["sleeper"])
    server.start(wait_ready=False)
    try:
        until("the models to be read",
              lambda: server.request("GET", "/readyz")[1]["reason"] == "no worker is ready yet")
        accepted = [server.submit(prompt="kept")]
        filler = small_disk / "filler"
        fill(filler)
        lost = 0
        while server.process.poll() is None and lost < 1000:
            try:
                accepted.append(server.submit(prompt="x" * 2000))
            except (OSError, AssertionError):
                lost += 1
        assert server.process.wait(LIMIT) == 70
        filler.unlink()
        server.start(wait_ready=False)
        for request in accepted:  # what was acknowledged is there
            assert server.view(request)["state"] == "accepted"
        assert server.get("/api/v1/status")["queue"]["open"] >= len(accepted)
    finally:
        if server.process.poll() is None:
            server.stop()  # and its worker, whose log keeps the file system busy


def test_below_the_low_water_nothing_new_is_accepted(tmp_path, models):
    server = bare_server(tmp_path, models, '[storage]\nlow_water = "4000TB"', ["only"])
    server.start()
    try:
        assert server.get("/api/v1/status")["disk_free"]
        status, answer = server.request("POST", "/v1/images/generations", {"prompt": "x"})
        assert status == 503, answer
        assert "the disk of the data directory has" in answer["error"]["message"], answer
        assert "below 4000TB nothing new is accepted" in answer["error"]["message"], answer
    finally:
        server.stop()


@pytest.fixture
def disk_of_a_reserve(tmp_path):
    with mounted(tmp_path / "disk", "64m") as folder:
        yield folder


def test_a_reserve_lets_a_server_go_on_and_start_on_a_full_disk(tmp_path, models, disk_of_a_reserve):
    """Filled while it runs, the reserve makes room for what was accepted; filled while it is down, for its start."""
    server = bare_server(disk_of_a_reserve, models, '[storage]\nlow_water = "20MB"\nreserve = "24MB"', ["only"])
    server.start()
    reserve = disk_of_a_reserve / "data" / "reserve"
    filler = disk_of_a_reserve / "filler"
    try:
        until("a reserve", reserve.exists)
        assert reserve.stat().st_blocks * 512 >= 24 << 20
        before = server.submit(prompt="kept")
        fill(filler)
        until("the reserve to be given up", lambda: "is given up for " in server.log.read_text())
        assert server.finished(before)["state"] == "completed"
        assert server.process.poll() is None
        filler.unlink()
        until("a reserve again", reserve.exists)
        server.stop()
        fill(filler)
        server.start()
        assert "given up to start" in server.log.read_text()
        assert server.finished(before)["state"] == "completed"
        filler.unlink()
        until("a reserve again", reserve.exists)
        assert server.finished(server.submit(prompt="one more"))["state"] == "completed"
    finally:
        if server.process.poll() is None:
            server.stop()


def test_an_image_that_fills_the_disk_between_two_looks_at_it_gets_the_reserve(tmp_path, models, disk_of_a_reserve):
    """What is left is more than gives the reserve up, and less than the image needs."""
    server = bare_server(disk_of_a_reserve, models, '[storage]\nlow_water = "1MB"\nreserve = "24MB"', ["only"])
    server.start()
    reserve = disk_of_a_reserve / "data" / "reserve"
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 64, 64) + b"\x08\x02\0\0\0"
    filler = disk_of_a_reserve / "filler"
    try:
        for number in range(1, 256):
            until("a reserve", reserve.exists)
            fill(filler, left=18 << 20)
            png = header + bytes([number]) * (22 << 20)  # never one that is there already
            status, answer = server.request("POST", "/api/v1/checks", png, {"Prefer": "respond-async"})
            assert status == 202, answer
            assert not reserve.exists()
            log = server.log.read_text()
            if "is given up for an output" in log:
                break
            # The server looked at its disk while the image was written, and was first: once more.
            assert log.count("is given up for what was accepted") == number
            filler.unlink()
        else:
            pytest.fail(log)
    finally:
        server.stop()


def without_rights(command, cwd):
    """Runs it as a user whom permissions bind."""
    def drop():
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, preexec_fn=drop, cwd=cwd)


@pytest.mark.parametrize("which", ["data", "journal", "outputs"])
def test_a_folder_without_permission_is_named(which, tmp_path, models):
    for folder in reversed([tmp_path, *tmp_path.parents]):  # the way there is open, the folder is not
        if os.stat(folder).st_uid == os.getuid() and str(folder).count("/") > 1:
            folder.chmod(folder.stat().st_mode | 0o011)
    binary = tmp_path / "lockstep"
    binary.write_bytes(pathlib.Path(BINARY).read_bytes())
    binary.chmod(0o755)
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    if which == "data":
        data.chmod(0o555)
    elif which == "journal":
        (data / "journal.db").write_bytes(b"")
        (data / "journal.db").chmod(0)
    else:
        (data / "outputs").mkdir(mode=0o555)
        for name in ("workers", "logs"):
            (data / name).mkdir()
            (data / name).chmod(0o777)
    run = without_rights([str(binary), "serve", "--data-dir", str(data), "--models-dir", str(models), "--port", "0",
                          "--workers", "0"], tmp_path)
    assert run.returncode == 1, run
    assert "ermission denied" in run.stderr or "unable to open" in run.stderr, run.stderr
    assert str(data) in run.stderr, run.stderr


def test_a_models_folder_that_cannot_be_read_is_named_and_the_server_serves(tmp_path):
    (tmp_path / "models").write_text("a file where the folder should be")
    server = bare_server(tmp_path, tmp_path / "models")
    server.config += "[limits]\n"
    server.start(wait_ready=False)
    try:
        until("the scan to be told", lambda: "cannot be read" in server.log.read_text())
        status, answer = server.request("POST", GENERATE, {"prompt": "x", "size": "64x64"})
        assert status == 404 and "no image model" in answer["error"]["message"], answer
        assert server.request("GET", "/livez")[0] == 200
    finally:
        server.stop()
