"""Real processes: the real binary, real workers with the tiny models, real signals. No sleeps: everything waits for
the thing itself, with a limit that only a hang can reach."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LOCKSTEP_BINARY", str(ROOT / "build/lockstep"))
LIMIT = 120  # seconds; a wait this long is a failure


def until(what, check, limit=LIMIT):
    """Calls check() until it returns something true, which it returns."""
    end = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {limit} s for {what}")
        threading.Event().wait(0.02)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def resident(pid):
    """The bytes of RAM that the process holds."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def run(*command, text=True, **options):
    """A command that ends by itself, with all it said; how it ended is the caller's to judge."""
    return subprocess.run([str(each) for each in command], capture_output=True, text=text, timeout=LIMIT, **options)


def lockstep(server, *arguments):
    """The command line as a client of this server."""
    return run(BINARY, *arguments, "--url", server.url)


def cli(server, *arguments, code=0):
    """The same, which has to end with this code."""
    done = lockstep(server, *arguments)
    assert done.returncode == code, done
    return done


@contextlib.contextmanager
def within(limit, process):
    """Whoever waits here for what the process says waits no longer than this: then it is killed, and a read ends."""
    watch = threading.Timer(limit, process.kill)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


@contextlib.contextmanager
def talking(*command, of="stdout"):
    """A process whose lines are read one by one."""
    process = subprocess.Popen([str(each) for each in command], text=True, **{of: subprocess.PIPE})
    try:
        with within(LIMIT, process):
            yield process
    finally:
        process.terminate()
        process.wait(LIMIT)
        getattr(process, of).close()


@contextlib.contextmanager
def held_port(host="127.0.0.1"):
    """A port that stays the test's own between two servers: it is bound here, so nobody else gets it, and only a server
    that is told it listens there."""
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
        yield str(holder.getsockname()[1])


def policy_that_rejects(folder, version):
    """The file of a safety policy that no image is good enough for."""
    file = folder / f"{version}.json"
    file.write_text(json.dumps({
        "event_type": "safety_policy_update", "policy_version": version,
        "safety_thresholds": {"content_safety_minimum": 0, "quality_minimum": 10, "technical_compliance": "strict"},
        "enforcement_actions": {"below_safety_threshold": "reject", "below_quality_threshold": "reject"}}))
    return str(file)


class Server:
    """One `lockstep serve` in a folder that outlives it, so that it can be killed and started again."""

    def __init__(self, folder, models, config=""):
        self.folder = pathlib.Path(folder)
        self.models = models
        self.config = config
        self.process = None
        self.runs = 0
        self.options = []  # more of the command line
        self.port = "0"  # any that is free; one of held_port() for a restart on the same

    def start(self, wait_ready=True, expect_failure=False):
        self.runs += 1
        self.log = self.folder / f"server-{self.runs}.log"
        config = self.folder / "lockstep.toml"
        config.write_text(self.config)
        command = [BINARY, "serve", "--config", str(config), "--data-dir", str(self.folder / "data"),
                   "--models-dir", str(self.models), "--port", self.port, *self.options]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        if expect_failure:
            return self
        found = until("the server to listen",
                      lambda: re.search(r"listening on (http://\S+)", self.log.read_text())
                      or (self.process.poll() is not None and pytest.fail(self.log.read_text())))
        self.url = found.group(1)
        if wait_ready:
            until("the workers to be ready",
                  lambda: all(w["state"] == "ready" for w in self.get("/api/v1/status")["workers"]))
        return self

    def request(self, method, path, body=None, headers=None, raw=False):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                content = answer.read()
                return answer.status, content if raw else json.loads(content)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, body
        return body

    def submit(self, **body):
        """Accepts a generation without waiting for it; returns the request id."""
        body = {"size": "64x64", "steps": 4, **body}

        def accepted():
            status, answer = self.request("POST", "/v1/images/generations", body, {"Prefer": "respond-async"})
            if status == 503 and "try again shortly" in answer["error"]["message"]:
                return None  # a worker can be back before the models are read
            assert status == 202, answer
            return answer["request_id"]

        return until("the models to be read", accepted)

    def view(self, request):
        return self.get(f"/api/v1/requests/{request}")

    def finished(self, request):
        return until(f"{request} to end", lambda: (v := self.view(request))["state"] != "accepted" and v)

    def workers(self):
        return {w["worker_id"]: w for w in self.get("/api/v1/status")["workers"]}

    def running(self, request, stage="inferring"):
        """Waits until a worker reports progress on the request's first image; returns that worker's view."""

        def look():
            job = self.view(request)["jobs"][0]
            assert job["stage"] not in ("completed", "failed", "set_aside"), job
            return job["stage"] == stage and job["doing"] and job["worker_id"]

        return self.workers()[until(f"{request} to be {stage}", look)]

    def output(self, sha256):
        return self.request("GET", f"/api/v1/outputs/{sha256}.png", raw=True)[1]

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.send(number)
        return self.process.wait(LIMIT)

    def kill(self):
        self.process.kill()
        self.process.wait(LIMIT)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    pytest.importorskip("torch", reason="the image stack is not installed (LOCKSTEP_TORCH=skip)")
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([BINARY, "models", "make-tiny", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def server(tmp_path, models):
    instance = Server(tmp_path, models)
    yield instance
    if instance.process and instance.process.poll() is None:
        instance.stop()  # and its workers with it, which would look for it for a while if it were killed


# A worker of a GPU without a framework: what its driver says needs none.
BARE = "from lockstep import Worker; worker = Worker.from_environment(); worker.ready(); worker.run()"


@pytest.fixture
def gpu(tmp_path):
    """A server whose one worker has a GPU by a made-up driver (tests/fake/nvml.cc): 72 degrees, compute capability 8.9.
    start_with() takes more of its environment."""
    (tmp_path / "models").mkdir()
    drivers = tmp_path / "drivers"
    drivers.mkdir()
    driver = pathlib.Path(os.environ["LOCKSTEP_BUILD_DIR"]).resolve() / "libfake_nvml.so"
    (drivers / "libnvidia-ml.so.1").symlink_to(driver)
    instance = Server(tmp_path, tmp_path / "models")

    def start(*more):
        environment = [f"LD_LIBRARY_PATH={drivers}", *more]
        instance.config = (f"[workers]\ncommand = {json.dumps([sys.executable, '-c', BARE])}\n"
                           f"environment = {json.dumps(environment)}\n"
                           '[[worker]]\nname = "one"\nkind = "cuda"\n')
        return instance.start()

    instance.start_with = start
    yield instance
    if instance.process and instance.process.poll() is None:
        instance.stop()
