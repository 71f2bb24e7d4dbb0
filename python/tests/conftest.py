"""Shared by the tests: the tiny models, segments written in Python, and a task of the worker layer."""

import fcntl
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

# The modules under test need nothing but this folder; the tests need nothing to be installed.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lockstep.diffusers import runtime  # noqa: E402

# One thread: two processes of this suite must split their sums alike whatever the machine.
os.environ["LOCKSTEP_TORCH_THREADS"] = "1"
runtime.configure_torch()

import pytest  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def segment_bytes(tensors, model="m", component="c", sha256="0" * 64, change=lambda header: header) -> bytes:
    """The bytes of a segment; `change` may damage the header before it is written."""
    room = 8 + 512 + sum(len(name) + 160 for name in tensors)
    room = -(-room // 256) * 256
    entries, parts, offset = {}, [], room
    for name, tensor in tensors.items():
        raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "offset": offset,
            "bytes": len(raw),
        }
        padded = raw + bytes(-len(raw) % 256)
        parts.append(padded)
        offset += len(padded)
    header = change({"tensors": entries, "model": model, "component": component, "sha256": sha256})
    text = json.dumps(header).encode().ljust(room - 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def memfd_of(data: bytes, name: str, seals: int = SEALS) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def write_segment(tensors, model="m", component="c", sha256="0" * 64) -> tuple[int, int]:
    """Return (descriptor, size) of a sealed segment, named as the orchestrator names it."""
    data = segment_bytes(tensors, model, component, sha256)
    return memfd_of(data, f"lockstep:{model}/{component}"), len(data)


def configuration_bytes(files: dict[str, bytes], model="m", sha256=None, change=lambda header: header) -> bytes:
    """The bytes of a configuration segment, `files` in order of name; `change` may damage the header."""
    room = 8 + 512 + sum(len(name) + 80 for name in files)
    room = -(-room // 256) * 256
    entries, parts, offset = {}, [], room
    for name, content in files.items():
        entries[name] = {"offset": offset, "bytes": len(content)}
        parts.append(content + bytes(-len(content) % 256))
        offset += len(parts[-1])
    digest = sha256 or hashlib.sha256(b"".join(files.values())).hexdigest()
    header = change({"model": model, "component": "configuration", "sha256": digest, "files": entries})
    text = json.dumps(header).encode().ljust(room - 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def configuration_files(folder: Path) -> dict[str, bytes]:
    """What the orchestrator takes of a model's folder, by name and in order of it."""
    paths = [path for path in folder.rglob("*") if path.suffix in (".json", ".txt") and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths, key=str)}


def read_tensors(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


SDXL_FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}
MODEL_FILES = {
    "tiny-sdxl": ("sdxl", SDXL_FILES),
    "tiny-esrgan-x4": ("upscaler", {"model": "model.safetensors"}),
    "tiny-safety": ("safety_classifier", {"model": "model.safetensors"}),
}


class FakeTask:
    """A task as the worker layer hands it to a handler; `cancel_after` progress reports it turns cancelled."""

    def __init__(self, kind, body, fds=(), cancel_after=None):
        self.kind = kind
        self.body = body
        self.fds = list(fds)
        self.reports = []
        self.parts = []
        self._cancel_after = cancel_after

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.reports) >= self._cancel_after

    def progress(self, report: dict) -> None:
        json.dumps(report)
        self.reports.append(report)

    def part(self, request_id: str, report: dict, fds: list[int]) -> None:
        json.dumps(report)
        self.parts.append((request_id, report, list(fds)))


def load_task(models: Path, model_id: str, cancel_after=None, convert=lambda tensor: tensor) -> FakeTask:
    """A load task for one of the tiny models, its segments freshly written."""
    kind, files = MODEL_FILES[model_id]
    components, fds = [], []
    if kind != "upscaler":
        given = configuration_files(models / model_id)
        data = configuration_bytes(given, model_id)
        sha256 = hashlib.sha256(b"".join(given.values())).hexdigest()
        components.append({"name": "configuration", "bytes": len(data), "sha256": sha256})
        fds.append(memfd_of(data, f"lockstep:{model_id}/configuration"))
    for name, file in files.items():
        path = models / model_id / file
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        tensors = {key: convert(tensor) for key, tensor in read_tensors(path).items()}
        fd, size = write_segment(tensors, model_id, name, sha256)
        components.append({"name": name, "bytes": size, "sha256": sha256})
        fds.append(fd)
    body = {"model_id": model_id, "kind": kind, "path": "/nowhere", "components": components}
    return FakeTask("load", body, fds, cancel_after)


def mappings(text: str) -> list[str]:
    """The lines of this process's map that contain `text`."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if text in line]


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_python(*arguments, **options) -> subprocess.CompletedProcess:
    """Run a module of the package in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """The folder with the tiny models, written once through the command."""
    from lockstep.diffusers import make_tiny

    directory = tmp_path_factory.mktemp("models")
    assert make_tiny.main([str(directory)]) == 0
    return directory


@pytest.fixture(scope="session")
def handlers(models):
    """Handlers with the three tiny models loaded."""
    from lockstep.diffusers.handlers import Handlers

    handlers = Handlers("cpu")
    for model_id in MODEL_FILES:
        handlers.load(load_task(models, model_id))
    return handlers


@pytest.fixture(scope="session")
def classifier(handlers):
    return handlers._model("tiny-safety", "safety_classifier")


@pytest.fixture(scope="session")
def pipe(handlers):
    return handlers._model("tiny-sdxl", "sdxl")


@pytest.fixture(scope="session")
def upscaler(handlers):
    return handlers._model("tiny-esrgan-x4", "upscaler")
