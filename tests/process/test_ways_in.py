"""Ways in (design §4): workers that nobody spawned, over the path and over TLS; the examples are such workers."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from conftest import BINARY, LIMIT, Server, held_port, run, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON_WORKER = ROOT / "examples" / "worker.py"


def code_lines(path):
    return len(path.read_text().splitlines())


@pytest.fixture
def base_model(models, tmp_path):
    """Only the image model: pipelines end with the encoding, which the examples can do."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "tiny-sdxl").symlink_to(models / "tiny-sdxl")
    return folder


class Alone(Server):
    """A server that spawns nobody."""

    def start(self, **options):
        self.options = ["--workers", "0"]
        return super().start(wait_ready=False, **options)


@pytest.fixture
def alone(tmp_path, base_model):
    server = Alone(tmp_path, base_model, "")
    yield server
    if server.process and server.process.poll() is None:
        server.stop()


@pytest.fixture
def guests(tmp_path):
    """Starts workers as somebody else would; all have ended when the test has."""
    running = []

    def start(*command):
        log = open(tmp_path / f"guest-{len(running)}.log", "w")
        running.append(subprocess.Popen([str(each) for each in command], stdout=log, stderr=log))
        running[-1].log = log.name
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait(LIMIT)


def joined(server, name, state="ready"):
    return until(f"{name} to be {state}",
                 lambda: (w := server.workers().get(name)) is not None and w["state"] == state and w)


def secret(server):
    return (server.folder / "data" / "worker.secret").read_text().strip()


def make_image(server, **more):
    view = server.finished(server.submit(prompt="a flat one", size="64x64", steps=1, **more))
    assert view["state"] == "completed", view
    return view["jobs"][0]


@pytest.mark.parametrize("which", ["python", "c++"])
def test_an_example_joins_does_a_job_and_leaves(which, alone, guests):
    program = ROOT / "examples" / ("worker.py" if which == "python" else "worker.cc")
    assert code_lines(program) < (30 if which == "python" else 60)
    alone.start()
    path = alone.folder / "data" / "workers.sock"
    if which == "python":
        guest = guests(sys.executable, PYTHON_WORKER, path, "example", f"secret={secret(alone)}")
    else:
        guest = guests(pathlib.Path(os.environ["LOCKSTEP_BUILD_DIR"]) / "example_worker", path, "example", secret(alone))
    joined(alone, "example")
    job = make_image(alone)
    assert job["inference_worker"] == "example"
    assert alone.output(job["output"]["sha256"]).startswith(b"\x89PNG")
    both = alone.finished(alone.submit(prompt="two flat ones", size="64x64", steps=1, n=2, batch_size=2))
    assert both["state"] == "completed" and len(both["jobs"]) == 2, both
    guest.kill()
    joined(alone, "example", "gone")
    assert alone.get("/api/v1/devices")["devices"] == []


def test_a_wrong_secret_is_told_and_changes_nothing(alone, guests):
    alone.start()
    guest = guests(sys.executable, PYTHON_WORKER, alone.folder / "data" / "workers.sock", "stranger", "secret=guessed")
    assert guest.wait(LIMIT) != 0
    assert "the secret is missing or wrong" in pathlib.Path(guest.log).read_text()
    assert "stranger" not in alone.workers()


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "tls"
    run(BINARY, "certificates", "make", folder, "--worker", "far", "--worker", "other", check=True)
    return folder


def tls_config(folder, port=0):
    return (f'[workers]\nlisten = "localhost:{port}"\ncertificate = "{folder}/server.pem"\nkey = "{folder}/server.key"\n'
            f'client_authority = "{folder}/authority.pem"\n')


def address(server):
    return re.search(r"workers may dial (tls://\S+)", server.log.read_text()).group(1)


def far_worker(guests, server, folder, name="far", certificate=None):
    stem = folder / (certificate or name)
    return guests(sys.executable, PYTHON_WORKER, address(server), name, f"certificate={stem}.pem", f"key={stem}.key",
                  f"authority={folder}/authority.pem")


@pytest.fixture
def port():
    with held_port("localhost") as held:
        yield held


def open_files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_a_worker_over_tls_does_jobs_without_descriptors_and_nothing_stays_open(alone, guests, certificates):
    alone.config = tls_config(certificates)
    alone.start()
    far_worker(guests, alone, certificates)
    joined(alone, "far")
    first = make_image(alone)
    image = alone.output(first["output"]["sha256"])
    assert image.startswith(b"\x89PNG")
    before = open_files(alone)
    for _ in range(5):
        make_image(alone)
    until("the descriptors of the jobs to be closed", lambda: open_files(alone) <= before + 1)
    view = alone.workers()["far"]
    assert view["pid"] == 0, "what a peer says of its pid is not taken for true"


def test_a_worker_over_tls_comes_back_to_the_next_orchestrator_with_its_model(alone, guests, certificates, port):
    alone.config = tls_config(certificates, port)
    alone.start()
    guest = far_worker(guests, alone, certificates)
    joined(alone, "far")
    make_image(alone)
    alone.kill()
    alone.start()
    assert joined(alone, "far")["incarnation"] == 1
    make_image(alone)
    log = alone.log.read_text()
    assert "far is back" in log and "is loaded on far" not in log, log
    assert guest.poll() is None


def test_a_certificate_is_good_for_its_own_name_only(alone, guests, certificates):
    alone.config = tls_config(certificates)
    alone.start()
    guest = far_worker(guests, alone, certificates, "far", certificate="other")
    assert guest.wait(LIMIT) != 0
    assert "other" in pathlib.Path(guest.log).read_text()
    assert "far" not in alone.workers()


def test_a_worker_killed_while_it_works_over_tls_is_seen_gone_and_its_job_waits(alone, guests, certificates):
    alone.config = tls_config(certificates) + '[timing]\ndrain = "1s"\n'  # at its end nobody will finish the image
    alone.start()
    guest = far_worker(guests, alone, certificates)
    joined(alone, "far")
    make_image(alone)
    guest.send_signal(signal.SIGSTOP)
    request = alone.submit(prompt="nobody answers", size="64x64", steps=1)
    guest.kill()
    until("the link's end to be seen", lambda: "far lost its link" in alone.log.read_text())
    assert alone.view(request)["state"] == "accepted"


@pytest.mark.parametrize("missing", ["certificate", "key", "client_authority"])
def test_there_is_no_port_without_tls(missing, alone, certificates):
    alone.config = "\n".join(line for line in tls_config(certificates).splitlines() if not line.startswith(missing))
    alone.start(expect_failure=True)
    assert alone.process.wait(LIMIT) == 2
    assert f"workers.{missing}" in alone.log.read_text()
