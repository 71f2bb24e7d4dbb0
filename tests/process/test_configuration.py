"""§1.3 "Model component caching (tokenizers, configs, metadata)": after the cache has been filled once, no load reads
the model's folder again: not on another worker, not over TLS, not for a single file that borrows the configuration."""

import io
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import BINARY, LIMIT, ROOT, Server, lockstep, run, until
from PIL import Image

WORKERS = "".join(f'[[worker]]\nname = "w{i}"\ndevice = "cpu_{i}"\nmemory = "1GB"\n' for i in range(2))

# What `python -m lockstep.diffusers` does, for a process that dials: the real handlers over TLS.
FAR_WORKER = """
import sys
from lockstep import Worker
worker = Worker.dial(sys.argv[1], "far", memory=1 << 30, **dict(each.split("=", 1) for each in sys.argv[2:]))
from lockstep.diffusers.handlers import Handlers
handlers = Handlers("cpu")
for kind in ("load", "release", "inference", "postprocess"):
    worker.on(kind, getattr(handlers, kind))
worker.ready()
worker.run()
"""


def spoil(folder):
    """Other bytes in every file but weights, of the same size and time: a scan sees nothing, a reader nonsense."""
    for path in folder.rglob("*"):
        if path.suffix not in (".json", ".txt") or path.name == "model_index.json":  # a scan reads that one
            continue
        facts = path.stat()
        path.write_bytes(b"#" * facts.st_size)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def image(server, worker, **more):
    view = server.finished(server.submit(prompt="a fox", seed=5, steps=2, **more))
    assert view["state"] == "completed", view
    assert view["jobs"][0]["inference_worker"] == worker, view
    return Image.open(io.BytesIO(server.output(view["jobs"][0]["output"]["sha256"]))).tobytes()


def states(server, name="tiny-sdxl"):
    return {each["component"]: each["state"] for each in server.get(f"/api/v1/models/{name}")["cached"]}


def left_behind():
    places = {pathlib.Path("/dev/shm"), pathlib.Path("/tmp")}
    return [entry for place in places for entry in place.glob("lockstep-configuration-*")]


@pytest.fixture
def own(tmp_path, models):
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(models / "tiny-sdxl", folder / "tiny-sdxl")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    run(sys.executable, "-m", "lockstep.diffusers.tiny_single_file", folder / "tiny-sdxl", folder / "one.safetensors",
        check=True, env=environment)
    instance = Server(tmp_path, folder, WORKERS)
    yield instance
    if instance.process and instance.process.poll() is None:
        instance.stop()


def test_the_cache_alone_serves_later_loads_and_a_refill_of_other_bytes_is_data_loss(own):
    own.start()
    done = lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w0")
    assert done.returncode == 0, done.stderr
    before = image(own, "w0", model="tiny-sdxl")
    assert states(own)["configuration"] == "ready"
    shown = lockstep(own, "models", "show", "tiny-sdxl").stdout
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("configuration")]
    assert row[1:3] == ["14", "0"] and "ready" in row, shown

    spoil(own.models / "tiny-sdxl")
    assert lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w1").returncode == 0  # another worker
    assert lockstep(own, "models", "unload", "tiny-sdxl", "--worker", "w0").returncode == 0
    assert image(own, "w1", model="tiny-sdxl") == before
    assert lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w0").returncode == 0  # the same once more
    assert lockstep(own, "models", "unload", "tiny-sdxl", "--worker", "w1").returncode == 0
    assert image(own, "w0", model="tiny-sdxl") == before
    assert lockstep(own, "models", "load", "one", "--worker", "w0").returncode == 0  # a single file, which borrows it
    assert image(own, "w0", model="one")
    held = sum(m["model"]["bytes"] for m in own.get("/api/v1/models")["models"] for _ in m["residencies"])
    assert sum(d["memory_allocated"] for d in own.get("/api/v1/devices")["devices"]) == held
    assert left_behind() == []

    own.stop()
    own.start()
    refused = lockstep(own, "models", "load", "tiny-sdxl")
    assert refused.returncode == 1 and "component configuration of tiny-sdxl has digest" in refused.stderr
    assert own.get("/api/v1/models/tiny-sdxl")["model"]["availability"] == "broken"


def test_a_restarted_orchestrator_takes_the_configuration_back_from_its_workers(own):
    own.start()
    assert lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w0").returncode == 0
    before = image(own, "w0", model="tiny-sdxl")
    own.kill()
    spoil(own.models / "tiny-sdxl")
    own.start()
    until("the worker's segments", lambda: states(own).get("configuration") == "ready")
    assert lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w1").returncode == 0
    assert lockstep(own, "models", "unload", "tiny-sdxl", "--worker", "w0").returncode == 0
    assert image(own, "w1", model="tiny-sdxl") == before


def test_a_worker_over_tls_needs_no_folder_of_the_model(own, tmp_path):
    tls = tmp_path / "tls"
    run(BINARY, "certificates", "make", tls, "--worker", "far", check=True)
    own.config = (f'[workers]\nlisten = "localhost:0"\ncertificate = "{tls}/server.pem"\nkey = "{tls}/server.key"\n'
                  f'client_authority = "{tls}/authority.pem"\n[[worker]]\nname = "w0"\nmemory = "1GB"\n')
    own.start()
    assert lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w0").returncode == 0
    before = image(own, "w0", model="tiny-sdxl")
    spoil(own.models / "tiny-sdxl")
    address = until("the address", lambda: [line for line in own.log.read_text().split() if line.startswith("tls://")])
    log = tmp_path / "far.log"
    with open(log, "w") as out:
        guest = subprocess.Popen([sys.executable, "-c", FAR_WORKER, address[0], f"certificate={tls}/far.pem",
                                  f"key={tls}/far.key", f"authority={tls}/authority.pem"], stdout=out, stderr=out)
    try:
        until("the far worker", lambda: own.workers().get("far", {}).get("state") == "ready")
        done = lockstep(own, "models", "load", "tiny-sdxl", "--worker", "far")
        assert done.returncode == 0, done.stderr + log.read_text()
        assert lockstep(own, "models", "unload", "tiny-sdxl", "--worker", "w0").returncode == 0
        assert image(own, "far", model="tiny-sdxl") == before
    finally:
        guest.kill()
        guest.wait(LIMIT)


def test_a_folder_that_holds_too_much_is_broken_with_the_limit(own):
    for number in range(130):
        (own.models / "tiny-sdxl" / "tokenizer" / f"{number}.txt").write_text("x")
    own.start(wait_ready=False)
    view = until("the scan", lambda: next((m for m in own.get("/api/v1/models")["models"]
                                           if m["model"]["model_id"] == "tiny-sdxl"), None))
    reason = view["model"]["reason"]
    assert "its configuration has 144 files" in reason and "the limit is 128" in reason
