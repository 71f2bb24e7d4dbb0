"""§1.3: the registry over a living server: single files, broken files by name, add, remove, verify, load, unload, and
the watch on the folder. Real workers, real files."""

import hashlib
import io
import json
import os
import pathlib
import shutil
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image

from conftest import LIMIT, ROOT, Server, lockstep, run, until


@pytest.fixture(scope="session")
def single(models, tmp_path_factory):
    """The tiny SDXL model as one checkpoint file."""
    file = tmp_path_factory.mktemp("single") / "one.safetensors"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python") + ":" + os.environ.get("PYTHONPATH", "")}
    run(sys.executable, "-m", "lockstep.diffusers.tiny_single_file", models / "tiny-sdxl", file, check=True,
        env=environment)
    return file


@pytest.fixture
def own(tmp_path, models):
    """A server over a models folder of its own, one worker."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    config = '[[worker]]\nname = "w0"\ndevice = "cpu_0"\nmemory = "1GB"\n'
    instance = Server(tmp_path, folder, config).start()
    yield instance
    if instance.process.poll() is None:
        instance.stop()


@pytest.fixture
def files(tmp_path, models):
    """The same for what needs no worker: nobody waits until one is ready, only until the folder was read."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    instance = Server(tmp_path, folder, '[[worker]]\nname = "w0"\ndevice = "cpu_0"\n').start(wait_ready=False)
    until("the models to be read", lambda: len(instance.get("/api/v1/models")["models"]) == len(os.listdir(models)))
    yield instance
    if instance.process.poll() is None:
        instance.stop()


def model(server, name):
    status, body = server.request("GET", f"/api/v1/models/{name}")
    return body if status == 200 else None


def resident(server, name):
    view = model(server, name)
    return [each["worker_id"] for each in view["residencies"] if each["state"] == "loaded"] if view else []


def safetensors(tensors):
    header, data = {}, b""
    for name, count in tensors.items():
        header[name] = {"dtype": "U8", "shape": [count], "data_offsets": [len(data), len(data) + count]}
        data += bytes(count)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


UPSCALER = safetensors({"conv_first.weight": 8, "conv_last.weight": 8})


def test_a_single_file_checkpoint_gives_the_image_of_its_folder(own, single):
    done = lockstep(own, "models", "add", str(single), "--name", "one")
    assert done.returncode == 0, done.stderr
    shown = lockstep(own, "models", "show", "one")
    assert shown.returncode == 0
    assert "one  sdxl  sdxl  available" in shown.stdout
    assert "evidence: conditioner.embedders.1.model.*" in shown.stdout
    assert "needs configuration: tiny-sdxl  available" in shown.stdout
    from_folder = own.finished(own.submit(prompt="a fox", seed=5, model="tiny-sdxl"))
    from_file = own.finished(own.submit(prompt="a fox", seed=5, model="one"))
    assert from_file["state"] == "completed", from_file
    images = [np.asarray(Image.open(io.BytesIO(own.output(view["jobs"][0]["output"]["sha256"])))).astype(int)
              for view in (from_folder, from_file)]
    assert images[0].std() > 1  # a picture, not one colour
    assert abs(images[0] - images[1]).max() <= 4  # the same weights; a last digit of the sums may differ


def test_settings_of_a_model_reach_its_images_and_are_kept(own):
    """§1.3, §1.5: set by the command line, used where a request says nothing, there after a restart."""
    def config(*arguments):
        return lockstep(own, "models", "config", "tiny-sdxl", "--json", *arguments)

    assert json.loads(config().stdout) == {}
    done = config("--set", "scheduler=ddim", "--set", "default_steps=3", "--set", "max_steps=6")
    assert done.returncode == 0, done.stderr
    refused = config("--set", "scheduler=lcm")
    assert refused.returncode == 2 and "dpm_solver_multistep" in refused.stderr, refused
    status, answer = own.request("PATCH", "/api/v1/models/tiny-safety/config", {"max_steps": 3})
    assert status == 400 and "no image model" in answer["error"]["message"], answer

    body = {"prompt": "a castle", "size": "64x64", "seed": 5, "response_format": "url"}
    def picture():
        status, answer = own.request("POST", "/v1/images/generations", body)
        assert status == 200, answer
        sha256 = answer["lockstep"]["images"][0]["sha256"]
        return Image.open(io.BytesIO(own.output(sha256))), answer["lockstep"]["request_id"]

    first, request = picture()
    assert "Steps: 3, Sampler: DDIM" in first.text["parameters"], first.text
    assert own.view(request)["parameters"]["scheduler"] == "ddim"
    status, answer = own.request("POST", "/v1/images/generations", {**body, "steps": 7})
    assert status == 400 and "1 to 6 with model tiny-sdxl" in answer["error"]["message"], answer

    # What was done is shown: what it can do, what it took, and that it is warm now.
    view = own.get("/api/v1/models/tiny-sdxl")
    assert view["capabilities"]["inference_types"] == ["text_to_image"]
    assert view["config"] == {"scheduler": "ddim", "default_steps": 3, "max_steps": 6}
    (cost,) = view["costs"]
    assert (cost["operation"], cost["size"], cost["runs"]) == ("inference", "64x64", 1) and cost["seconds_mean"] > 0
    until("the worker to say that the model is warm", lambda: own.get("/api/v1/models/tiny-sdxl")["residencies"][0][
        "runtime"]["warmup_completed"])
    upscaler = own.get("/api/v1/models/tiny-esrgan-x4")["costs"]
    assert [each["operation"] for each in upscaler] == ["upscaling"] and upscaler[0]["seconds_last"] > 0
    metrics = own.request("GET", "/metrics", raw=True)[1].decode()
    assert 'lockstep_operation_runs_total{model="tiny-safety",operation="safety_check",size=""} 1' in metrics

    own.stop()
    own.start()
    assert json.loads(config().stdout) == {"scheduler": "ddim", "default_steps": 3, "max_steps": 6}
    # The model's own scheduler makes another picture of the same seed.
    assert config("--whole", "--set", "default_steps=3").returncode == 0
    second, _ = picture()
    assert "Sampler: Euler," in second.text["parameters"] and second.tobytes() != first.tobytes()


def test_load_and_unload_answer_when_it_is_done(own):
    loaded = lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w0", "--json")
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["residencies"] == [
        {"worker_id": "w0", "device_id": "cpu_0", "state": "loaded"}]
    assert own.get("/api/v1/devices")["devices"][0]["memory_allocated"] > 0
    assert lockstep(own, "models", "load", "tiny-sdxl").returncode == 0  # it is there: nothing to do
    unloaded = lockstep(own, "models", "unload", "tiny-sdxl")
    assert unloaded.returncode == 0, unloaded.stderr
    assert model(own, "tiny-sdxl")["residencies"] == []
    assert own.get("/api/v1/devices")["devices"][0]["memory_allocated"] == 0
    urgent = lockstep(own, "models", "load", "tiny-sdxl", "--priority", "critical", "--json")
    assert urgent.returncode == 0, urgent.stderr
    assert lockstep(own, "models", "queue").stdout == "no load waits\n"
    assert own.get("/api/v1/loads") == {"loads": []}


def test_load_refuses_with_a_sentence(own):
    status, body = own.request("POST", "/api/v1/models/tiny-sdxl/load", {"priority": "soon"})
    assert status == 400 and "priority" in json.dumps(body) and "critical" in json.dumps(body), body
    status, body = own.request("POST", "/api/v1/models/tiny-sdxl/unload", {"priority": "high"})
    assert status == 400 and "an unload has no priority" in json.dumps(body), body
    assert lockstep(own, "models", "load", "nothing").returncode == 3
    missing = lockstep(own, "models", "load", "tiny-sdxl", "--worker", "w9")
    assert missing.returncode == 3 and "there is no worker w9" in missing.stderr
    status, body = own.request("POST", "/api/v1/models/tiny-sdxl/load", {"wroker": "w0"})
    assert status == 400 and "wroker" in body["error"]["message"]
    status, _ = own.request("POST", "/api/v1/models/tiny-sdxl/load", {}, {"Prefer": "respond-async"})
    assert status == 202
    until("the load that nobody waits for", lambda: resident(own, "tiny-sdxl"))


def test_verify_reads_every_byte(files):
    done = lockstep(files, "models", "verify")
    assert done.returncode == 0, done.stderr
    assert "tiny-sdxl: every byte of 5 components is as recorded" in done.stdout
    file = next((pathlib.Path(files.models) / "tiny-safety").glob("*.safetensors"))
    assert model(files, "tiny-safety")["model"]["components"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    # One bit, with the time put back: only the bytes can tell.
    facts, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    with open(file, "r+b") as out:
        out.write(data)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    wrong = lockstep(files, "models", "verify", "tiny-safety")
    assert wrong.returncode == 1 and "the file's bytes changed" in wrong.stderr
    assert model(files, "tiny-safety")["model"]["availability"] == "broken"
    data[-1] ^= 1
    with open(file, "r+b") as out:
        out.write(data)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert lockstep(files, "models", "verify", "tiny-safety").returncode == 0
    assert model(files, "tiny-safety")["model"]["availability"] == "available"


def test_the_folder_is_watched(files):
    folder = pathlib.Path(files.models)
    part = folder / ".up.part"
    part.write_bytes(UPSCALER)
    part.rename(folder / "up.safetensors")
    first = until("the new file", lambda: model(files, "up"))["model"]["facts"]["version"]
    (folder / "up.safetensors").write_bytes(safetensors({"conv_first.weight": 8, "conv_last.weight": 16}))
    until("another version", lambda: model(files, "up")["model"]["facts"]["version"] != first)
    (folder / "up.safetensors").unlink()
    until("the model to be gone", lambda: model(files, "up") is None)


def test_a_half_written_file_is_not_taken_up(files):
    folder = pathlib.Path(files.models)
    with open(folder / "slow.safetensors", "wb") as out:
        out.write(UPSCALER[:-1])
        out.flush()
        # However slow this machine is: it was written to a moment ago.
        os.utime(folder / "slow.safetensors", (time.time() + 3600, time.time() + 3600))
        (folder / "other.safetensors").write_bytes(UPSCALER)
        until("the other file", lambda: model(files, "other"))
        assert model(files, "slow") is None
        out.write(UPSCALER[-1:])
    assert until("the whole file", lambda: model(files, "slow"))["model"]["availability"] == "available"


def test_a_loaded_model_whose_file_went_is_unloaded(own):
    assert lockstep(own, "models", "load", "tiny-safety").returncode == 0
    shutil.rmtree(pathlib.Path(own.models) / "tiny-safety")
    until("the memory to be free",
          lambda: own.get("/api/v1/devices")["devices"][0]["memory_allocated"] == 0)
    assert model(own, "tiny-safety") is None


def test_broken_files_are_named_with_the_reason(files):
    folder = pathlib.Path(files.models)
    (folder / "cut.safetensors").write_bytes(UPSCALER[:-1])
    (folder / "old.ckpt").write_bytes(b"x")
    (folder / "odd.safetensors").write_bytes(safetensors({"z": 3}))
    for name, reason in (("cut", "it is cut short"), ("old", "pickle file"), ("odd", "of no known kind")):
        view = until(name, lambda: model(files, name))["model"]
        assert view["availability"] == "broken" and reason in view["reason"] and name in view["path"]
    status, body = files.request("POST", "/v1/images/generations", {"prompt": "x", "model": "cut"})
    assert status == 500 and "it is cut short" in body["error"]["message"]


def test_add_and_remove(files, tmp_path):
    source = tmp_path / "mine.safetensors"
    source.write_bytes(UPSCALER)
    folder = pathlib.Path(files.models)
    assert lockstep(files, "models", "add", str(source)).returncode == 0
    assert (folder / "mine.safetensors").read_bytes() == UPSCALER
    again = lockstep(files, "models", "add", str(source))
    assert again.returncode == 2 and "already" in again.stderr
    assert lockstep(files, "models", "add", str(source), "--name", "linked", "--link").returncode == 0
    assert (folder / "linked.safetensors").is_symlink()
    assert lockstep(files, "models", "remove", "linked").returncode == 0
    assert source.exists() and not (folder / "linked.safetensors").is_symlink()
    assert lockstep(files, "models", "remove", "mine").returncode == 0
    assert not (folder / "mine.safetensors").exists()
    assert lockstep(files, "models", "remove", "mine").returncode == 3


def test_a_loaded_model_is_removed_only_by_force(own):
    assert lockstep(own, "models", "load", "tiny-safety").returncode == 0
    held = lockstep(own, "models", "remove", "tiny-safety")
    assert held.returncode == 1 and "is loaded on w0" in held.stderr
    assert lockstep(own, "models", "remove", "tiny-safety", "--force").returncode == 0
    until("its memory to be free", lambda: own.get("/api/v1/devices")["devices"][0]["memory_allocated"] == 0)


TRICKS = [
    ("relative.safetensors", None, "it must be absolute"),
    ("/nowhere/x.safetensors", None, "cannot find"),
    ("/etc/passwd", "x", "a folder or a .safetensors file"),
    ("/", "x", "outside the models folder"),
    ("MODELS/tiny-safety", "x", "outside the models folder"),
    ("MODELS/../models/tiny-safety", "x", "outside the models folder"),
    ("SOURCE", "../x", "name is"),
    ("SOURCE", ".x", "name is"),
    ("PICKLE", "x", "pickle files only"),
]


def test_add_refuses_path_tricks(files, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.safetensors").write_bytes(UPSCALER)
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "a.ckpt").write_bytes(b"x")
    before = sorted(os.listdir(files.models))
    for path, name, words in TRICKS:
        path = (path.replace("MODELS", str(files.models)).replace("SOURCE", str(tmp_path / "source"))
                .replace("PICKLE", str(tmp_path / "pickle")))
        status, body = files.request("POST", "/api/v1/models", {"path": path, **({"name": name} if name else {})})
        assert status in (400, 404) and words in body["error"]["message"], (path, body)
        assert sorted(os.listdir(files.models)) == before


def test_a_model_is_converted_once_into_the_cache_and_a_change_of_mind_loads_it_anew(tmp_path, models):
    server = Server(tmp_path, models, '[[worker]]\nname = "only"\n')
    server.start()
    try:
        assert server.finished(server.submit(prompt="x", size="64x64", steps=1))["state"] == "completed"
        plain = server.get("/api/v1/models/tiny-sdxl")["model"]
        server.stop()
        server.config = '[cache]\ndtype = "bf16"\n[[worker]]\nname = "only"\n'
        server.start()
        assert server.finished(server.submit(prompt="x", size="64x64", steps=1))["state"] == "completed"
        model = server.get("/api/v1/models/tiny-sdxl")["model"]
        converted = {each["name"]: each.get("dtype_in_cache") for each in model["components"]}
        assert converted.pop("configuration") is None and set(converted.values()) == {"bf16"}, converted
        assert [c["sha256"] for c in model["components"]] == [c["sha256"] for c in plain["components"]]
        assert 0.4 < model["bytes"] / plain["bytes"] < 0.6, (model["bytes"], plain["bytes"])
        held = sum(m["model"]["bytes"] for m in server.get("/api/v1/models")["models"] if m["residencies"])
        assert server.get("/api/v1/devices")["devices"][0]["memory_allocated"] == held
    finally:
        if server.process.poll() is None:
            server.stop()


def test_an_unknown_dtype_is_refused_with_what_there_is(tmp_path, models):
    server = Server(tmp_path, models, '[cache]\ndtype = "fp4"\n')
    server.start(expect_failure=True)
    assert server.process.wait(LIMIT) == 2
    assert 'cache.dtype is "fp4"; it must be as-is, fp16, bf16 or fp32' in server.log.read_text()
