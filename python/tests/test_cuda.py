"""The same on a CUDA device; skipped where there is none. Run with -s to see the times."""

import gc
import hashlib
import os
import time

import pytest
import torch
from conftest import MODEL_FILES, FakeTask, load_task, mappings, open_fds, write_segment
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.handlers import Handlers
from lockstep.diffusers.planted import planted_safe_image, planted_unsafe_image
from lockstep.diffusers.segments import Segment
from test_handlers import INFERENCE, SAFETY, UPSCALE, _postprocess_task, _take

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICE = "cuda:0"


def test_one_copy_then_views_of_one_block_and_no_mapping():
    tensors = {
        "a": torch.randn(33, 7),
        "half": torch.randn(1001).to(torch.float16),
        "count": torch.tensor(3),
        "none": torch.empty(0, 2),
    }
    fd, size = write_segment(tensors, "gpu")
    segment = Segment(fd, size)
    before = torch.cuda.memory_allocated()
    views = segment.tensors(DEVICE)
    segment.wait_given_up()
    assert not segment.mapped() and not mappings("lockstep:gpu/")
    assert torch.cuda.memory_allocated() - before <= size + 4096
    for name, tensor in tensors.items():
        assert views[name].device == torch.device(DEVICE) and torch.equal(views[name].cpu(), tensor)
        if tensor.numel():
            assert segment.contains(views[name]) and views[name].data_ptr() % 256 == 0
    del views
    segment.close()
    assert torch.cuda.memory_allocated() == before


def test_a_large_segment_moves_at_bus_speed():
    tensors = {f"t{index}": torch.randint(0, 255, (64 << 20,), dtype=torch.uint8) for index in range(16)}
    segment = Segment(*write_segment(tensors, "large"))
    started = time.perf_counter()
    views = segment.tensors(DEVICE)
    seconds = time.perf_counter() - started
    rate = segment.size / 1e9 / seconds
    print(f"\n{segment.size / 1e9:.2f} GB in {seconds:.3f} s with registration: {rate:.1f} GB/s")
    assert all(torch.equal(views[name].cpu(), tensor) for name, tensor in tensors.items())


def test_more_than_the_device_has_is_refused(monkeypatch):
    segment = Segment(*write_segment({"a": torch.zeros(8)}, "full"))
    free = torch.cuda.mem_get_info()[0]
    monkeypatch.setattr(segment, "size", free * 4)
    with pytest.raises(TaskFailed, match="has no room") as failure:
        segment.tensors(DEVICE)
    assert failure.value.code == "resource_exhausted"


def _one_life(models, handlers) -> str:
    """Load all, generate, post-process, release all; returns the picture's hash."""
    for model_id in MODEL_FILES:
        handlers.load(load_task(models, model_id))
        for segment in handlers._held[model_id].segments.values():
            segment.wait_given_up()
        assert not mappings(f"lockstep:{model_id}/")
    digests = set()
    for _ in range(3):
        done, (fd,) = handlers.inference(FakeTask("inference", INFERENCE))
        rows = _take(fd)
        assert hashlib.sha256(rows).hexdigest() == done["sha256"] and done["peak_bytes"] > 0
        digests.add(done["sha256"])
        print(f"\n64x64 at 3 steps: {done['execution_time'] * 1000:.1f} ms", end="")
    done, (fd,) = handlers.postprocess(_postprocess_task(planted_safe_image(64, 64), [UPSCALE, SAFETY]))
    os.close(fd)
    assert (done["output"]["width"], done["safety"]["safety_classification"]) == (256, "safe")
    done, out = handlers.postprocess(_postprocess_task(planted_unsafe_image(64, 64), [UPSCALE, SAFETY]))
    assert out == [] and done["output"] is None
    for model_id in MODEL_FILES:
        assert handlers.release(FakeTask("release", {"model_id": model_id}))[0] == {"bytes_mapped": 0}
    assert len(digests) == 1
    return digests.pop()


def test_the_four_tasks_leave_nothing(models):
    handlers = Handlers(DEVICE)
    first = _one_life(models, handlers)
    # The matrix library's workspace stays with the process from the first product on.
    gc.collect()
    allocated, fds = torch.cuda.memory_allocated(), open_fds()
    print(f"\nafter release {allocated} bytes are allocated")
    assert _one_life(models, handlers) == first
    assert torch.cuda.memory_allocated() == allocated and open_fds() == fds


def test_a_failed_load_gives_the_device_memory_back(models):
    handlers = Handlers(DEVICE)
    gc.collect()
    baseline = torch.cuda.memory_allocated()
    task = load_task(models, "tiny-sdxl")
    first, second = task.body["components"][-2:]
    first["name"], second["name"] = second["name"], first["name"]
    with pytest.raises(TaskFailed, match="do not fit"):
        handlers.load(task)
    assert torch.cuda.memory_allocated() == baseline


def test_half_precision(models):
    def narrow(tensor):
        return tensor.to(torch.float16) if tensor.is_floating_point() else tensor

    handlers = Handlers(DEVICE)
    for model_id in MODEL_FILES:
        handlers.load(load_task(models, model_id, convert=narrow))
    (_, (fd,)) = handlers.inference(FakeTask("inference", INFERENCE))
    os.close(fd)
    vae = handlers._held["tiny-sdxl"].segments["vae"]
    pipe = handlers._model("tiny-sdxl", "sdxl")
    assert all(vae.contains(parameter) for parameter in pipe.vae.parameters())
    done, (fd,) = handlers.postprocess(_postprocess_task(planted_safe_image(64, 64), [UPSCALE, SAFETY]))
    os.close(fd)
    done, out = handlers.postprocess(_postprocess_task(planted_unsafe_image(64, 64), [UPSCALE, SAFETY]))
    assert out == []
