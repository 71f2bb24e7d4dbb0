"""The four kinds of tasks as the worker layer runs them."""

import gc
import hashlib
import io
import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import MODEL_FILES, SEALS, FakeTask, load_task, mappings, memfd_of, open_fds, run_python
from lockstep.diffusers.errors import Cancelled, TaskFailed
from lockstep.diffusers.handlers import Handlers
from lockstep.diffusers.images import decode, decode_png, encode_png, read_chunks, read_exif
from lockstep.diffusers.memfd import ALL_SEALS, read_all, sealed
from lockstep.diffusers.planted import planted_safe_image, planted_unsafe_image
from lockstep.diffusers.safety import check
from lockstep.messages import (
    DeviceChanges,
    EnforcementActions,
    MemoryPolicyChanges,
    SafetyPolicyUpdate,
    SafetyThresholds,
)
from lockstep.state import State
from PIL import Image

INFERENCE = {
    "request_id": "r1",
    "model_id": "tiny-sdxl",
    "prompt": "a red fox",
    "negative_prompt": "",
    "steps": 3,
    "guidance_scale": 5.0,
    "width": 64,
    "height": 64,
    "seed": 7,
}
UPSCALE = {"operation": "upscaling", "model": "tiny-esrgan-x4"}
SAFETY = {"operation": "safety_check", "model": "tiny-safety", "strictness": "moderate"}


def _plain(value) -> bool:
    """Whether a result is made of JSON's own types alone: the native layer knows no others."""
    if type(value) is dict:
        return all(type(key) is str and _plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(_plain, value))
    return type(value) in (str, int, float, bool, type(None))


def _take(fd: int) -> bytes:
    """The bytes of a result, which must be sealed; the descriptor is closed."""
    import fcntl

    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & ALL_SEALS == ALL_SEALS
        return read_all(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _postprocess_task(image, pipeline, format="rgb8", cancel_after=None, **changes) -> FakeTask:
    data = image.tobytes() if format == "rgb8" else encode_png(image)
    source = {
        "format": format,
        "width": image.shape[1],
        "height": image.shape[0],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **changes.pop("source", {}),
    }
    body = {"request_id": "r1", "source": source, "pipeline": pipeline, "parameters": "a red fox\nSteps: 4",
            "metadata": {"request_id": "r1"}, "output_format": "png", **changes}
    return FakeTask("postprocess", body, [sealed("lockstep-result:source", data)], cancel_after)


# load and release ----------------------------------------------------------------------------------


def test_load_reports_each_component_and_release_leaves_nothing(models):
    handlers = Handlers("cpu")
    fds = open_fds()
    for model_id, (_, files) in MODEL_FILES.items():
        task = load_task(models, model_id)
        done, out = handlers.load(task)
        # The configuration is unpacked, read and gone: the model holds its weights.
        total = sum(each["bytes"] for each in task.body["components"] if each["name"] != "configuration")
        assert out == [] and done["bytes"] == total and done["seconds"] > 0
        assert _plain(done) and _plain(task.reports)
        assert [report["component"] for report in task.reports] == list(files)
        assert task.reports[-1] == {"component": list(files)[-1], "fraction": 1.0, "bytes": total}
        assert open_fds() == fds
    handlers.inference(FakeTask("inference", INFERENCE))[1].copy()
    for model_id, (_, files) in MODEL_FILES.items():
        assert len(mappings(f"lockstep:{model_id}/")) >= len(files)
    before = {model_id: len(mappings(f"lockstep:{model_id}/")) for model_id in MODEL_FILES}
    for model_id in MODEL_FILES:
        assert handlers.release(FakeTask("release", {"model_id": model_id})) == ({"bytes_mapped": 0}, [])
        # Other fixtures may hold the same model; this one's share is gone.
        assert len(mappings(f"lockstep:{model_id}/")) == before[model_id] - len(MODEL_FILES[model_id][1])
    with pytest.raises(TaskFailed, match="'tiny-sdxl' is not loaded"):
        handlers.inference(FakeTask("inference", INFERENCE))


def test_release_reports_what_somebody_still_holds(models):
    handlers = Handlers("cpu")
    handlers.load(load_task(models, "tiny-safety"))
    held = next(handlers._model("tiny-safety", "safety_classifier").module.parameters())
    done, _ = handlers.release(FakeTask("release", {"model_id": "tiny-safety"}))
    assert done["bytes_mapped"] > 0
    del held
    gc.collect()
    assert handlers.release(FakeTask("release", {"model_id": "tiny-safety"}))[0] == {"bytes_mapped": 0}


def test_releasing_an_unknown_model_is_done():
    assert Handlers("cpu").release(FakeTask("release", {"model_id": "never"})) == ({"bytes_mapped": 0}, [])


def test_loading_and_releasing_many_times_leaves_nothing(models):
    handlers = Handlers("cpu")
    maps, fds = len(mappings("lockstep:")), open_fds()
    for _ in range(5):
        handlers.load(load_task(models, "tiny-sdxl"))
        assert handlers.release(FakeTask("release", {"model_id": "tiny-sdxl"}))[0] == {"bytes_mapped": 0}
    assert (len(mappings("lockstep:")), open_fds()) == (maps, fds)


def test_loading_again_is_done_and_another_of_that_name_is_refused(models):
    handlers = Handlers("cpu")
    maps, fds = len(mappings("lockstep:tiny-safety/")), open_fds()
    handlers.load(load_task(models, "tiny-safety"))
    assert handlers.load(load_task(models, "tiny-safety"))[0]["bytes"] > 0
    other = load_task(models, "tiny-esrgan-x4")
    other.body["model_id"] = "tiny-safety"
    with pytest.raises(TaskFailed, match="release it first"):
        handlers.load(other)
    assert open_fds() == fds and len(mappings("lockstep:tiny-safety/")) == maps + 1
    handlers.release(FakeTask("release", {"model_id": "tiny-safety"}))


def _wrong_hash(task):
    task.body["components"][-1]["sha256"] = "f" * 64


def _too_long(task):
    task.body["components"][-1]["bytes"] += 1


def _unsealed(task):
    os.close(task.fds[-1])
    task.fds[-1] = memfd_of(b"x" * 4096, "lockstep:tiny-sdxl/bad", SEALS & ~8)


def _damaged(task):
    os.close(task.fds[-1])
    size = task.body["components"][-1]["bytes"]
    task.fds[-1] = memfd_of(b"\xff" * size, "lockstep:tiny-sdxl/bad")


def _swapped(task):
    # Right hashes, wrong places: the weights of one component under the name of another.
    first, second = task.body["components"][-2:]
    first["name"], second["name"] = second["name"], first["name"]


def _fewer_fds(task):
    os.close(task.fds.pop())


def _no_configuration(task):
    del task.body["components"][0]
    os.close(task.fds.pop(0))


def _configuration(change):
    """Another configuration segment in the place of the right one, with what is said of it."""

    def damage(task):
        size = task.body["components"][0]["bytes"]
        data = bytearray(os.pread(task.fds[0], size, 0))
        os.close(task.fds[0])
        change(data, task.body["components"][0])
        task.fds[0] = memfd_of(bytes(data), "lockstep:tiny-sdxl/configuration")

    return damage


def _one_bit(data, component):
    data[data.index(b'"_class_name": "StableDiffusionXLPipeline"') + 20] ^= 1


def _half(data, component):
    del data[len(data) // 2 :]
    component["bytes"] = len(data)


def _no_model_index(data, component):
    at = data.index(b'"model_index.json"')
    data[at : at + 18] = b'"xodel_index.json"'
    component["sha256"] = _digest_in_order(bytes(data))


def _digest_in_order(data: bytes) -> str:
    (length,) = struct.unpack("<Q", data[:8])
    files = json.loads(data[8 : 8 + length])["files"]
    content = b"".join(data[e["offset"] : e["offset"] + e["bytes"]] for _, e in sorted(files.items()))
    return hashlib.sha256(content).hexdigest()


def _other_kind(task):
    task.body["kind"] = "flux"


def _body_of_a_wrong_type(task):
    task.body["components"] = {"unet": 1}


LOAD_FAILURES = [
    (_wrong_hash, "data_loss", "is of the source"),
    (_too_long, "data_loss", "were announced"),
    (_unsealed, "invalid_argument", "not sealed against: write"),
    (_damaged, "data_loss", "claims"),
    (_swapped, "data_loss", "do not fit its config"),
    (_fewer_fds, "invalid_argument", "5 components came with 4 descriptors"),
    (_no_configuration, "invalid_argument", "needs the component 'configuration'"),
    (_configuration(_one_bit), "data_loss", "the configuration's files have the sha256"),
    (_configuration(_half), "data_loss", "outside the segment"),
    (_configuration(_no_model_index), "invalid_argument", "cannot read model_index.json"),
    (_other_kind, "invalid_argument", "no models of kind 'flux'"),
    (_body_of_a_wrong_type, "invalid_argument", "must be a list"),
]


@pytest.mark.parametrize("damage, code, sentence", LOAD_FAILURES)
def test_a_failed_load_takes_nothing(models, damage, code, sentence):
    handlers = Handlers("cpu")
    fds, maps = open_fds(), len(mappings("lockstep:tiny-sdxl/"))
    task = load_task(models, "tiny-sdxl")
    damage(task)
    with pytest.raises(TaskFailed, match=sentence) as failure:
        handlers.load(task)
    assert failure.value.code == code
    # While the exception is still held: a caller that logs it must not keep the memory.
    assert open_fds() == fds and len(mappings("lockstep:tiny-sdxl/")) == maps
    # The same worker still loads the whole model.
    handlers.load(load_task(models, "tiny-sdxl"))
    handlers.release(FakeTask("release", {"model_id": "tiny-sdxl"}))


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_cancelled_load_takes_nothing(models, after):
    handlers = Handlers("cpu")
    fds, maps = open_fds(), len(mappings("lockstep:tiny-sdxl/"))
    with pytest.raises(Cancelled):
        handlers.load(load_task(models, "tiny-sdxl", cancel_after=after))
    assert open_fds() == fds and len(mappings("lockstep:tiny-sdxl/")) == maps


# inference -----------------------------------------------------------------------------------------


def test_inference_delivers_the_rows_that_bare_computes(handlers, models):
    task = FakeTask("inference", INFERENCE)
    done, (fd,) = handlers.inference(task)
    rows = _take(fd)
    assert _plain(done) and _plain(task.reports)
    assert len(rows) == done["bytes"] == 64 * 64 * 3 and (done["width"], done["height"]) == (64, 64)
    assert hashlib.sha256(rows).hexdigest() == done["sha256"]
    assert done["total_steps_executed"] == 3 and done["execution_time"] > 0
    assert done["peak_bytes"] > 0 and 0 < done["result_quality_score"] <= 10
    assert done["postprocessing_recommendations"] == ["safety_check"]
    assert [(report["step"], report["total_steps"]) for report in task.reports] == [(1, 3), (2, 3), (3, 3)]
    assert all(report["step_time_avg"] > 0 for report in task.reports)

    requests = [
        {name: INFERENCE[name] for name in INFERENCE if name not in ("request_id", "model_id")},
        {"prompt": "x", "colour": 1},
        {"prompt": "x", "width": 3},
    ]
    served = run_python(
        "-m", "lockstep.diffusers.bare", str(models), "--serve", input="\n".join(map(json.dumps, requests)) + "\nno\n"
    )
    answers = [json.loads(line) for line in served.stdout.splitlines()]
    assert answers[0]["sha256"] == done["sha256"] and answers[0]["ms"] > 0 and answers[0]["bytes"] > 1000
    assert "colour" in answers[1]["error"] and "width" in answers[2]["error"] and "error" in answers[3]


def test_a_cancelled_inference_stops_at_once_and_leaves_no_descriptor(handlers):
    fds = open_fds()
    for after in (0, 1, 2):
        task = FakeTask("inference", {**INFERENCE, "steps": 50}, cancel_after=after)
        with pytest.raises(Cancelled):
            handlers.inference(task)
        assert len(task.reports) == after
    assert open_fds() == fds
    first, second = (handlers.inference(FakeTask("inference", INFERENCE)) for _ in range(2))
    assert first[0]["sha256"] == second[0]["sha256"]
    for _, (fd,) in (first, second):
        os.close(fd)


def _batch(*images, **changes) -> FakeTask:
    body = {"batch_id": "b1", "parallel_execution": True, "vram_limit": 1 << 30, "images": list(images)}
    return FakeTask("inference_batch", body, **changes)


def test_a_batch_hands_over_each_picture_and_each_looks_like_its_seed(handlers):
    images = [{**INFERENCE, "request_id": f"r{seed}", "seed": seed} for seed in (7, 8, 9)]
    task = _batch(*images)
    assert handlers.inference_batch(task) == ({}, [])
    assert [request_id for request_id, _, _ in task.parts] == ["r7", "r8", "r9"]
    assert [report["step"] for report in task.reports] == [1, 2, 3], "one run for all of them"
    for image, (_, done, (fd,)) in zip(images, task.parts):
        rows = _take(fd)
        assert _plain(done) and hashlib.sha256(rows).hexdigest() == done["sha256"]
        assert done["total_steps_executed"] == 3 and (done["width"], done["height"]) == (64, 64)
        alone, (alone_fd,) = handlers.inference(FakeTask("inference", image))
        assert alone["bytes"] == done["bytes"]
        difference = np.frombuffer(rows, np.uint8).astype(int) - np.frombuffer(_take(alone_fd), np.uint8)
        assert np.abs(difference).mean() < 1, "sums in another order, not another picture"


def test_a_cancelled_batch_keeps_what_was_handed_over_and_leaves_no_descriptor(handlers):
    images = [{**INFERENCE, "request_id": f"r{seed}", "seed": seed} for seed in (7, 8)]
    fds = open_fds()
    task = _batch(*images, cancel_after=2)
    with pytest.raises(Cancelled):
        handlers.inference_batch(task)
    assert task.parts == [] and len(task.reports) == 2 and open_fds() == fds

    class AfterTheFirst(FakeTask):
        @property
        def cancelled(self):
            return bool(self.parts)

    task = AfterTheFirst("inference_batch", _batch(*images).body)
    with pytest.raises(Cancelled, match="after 1 of 2 pictures"):
        handlers.inference_batch(task)
    ((_, _, (fd,)),) = task.parts
    os.close(fd)
    assert open_fds() == fds


@pytest.mark.parametrize(
    "images, sentence",
    [
        ([], "'images' must hold objects"),
        ([INFERENCE, {**INFERENCE, "prompt": "a blue fox"}], "differ in nothing but their seeds"),
        ([{**INFERENCE, "model_id": "other"}], "'other' is not loaded"),
        ([INFERENCE, {**INFERENCE, "seed": 2**64}], "not a whole number from 0 to"),
    ],
)
def test_a_batch_names_what_is_wrong(handlers, images, sentence):
    with pytest.raises(TaskFailed, match=sentence) as failure:
        handlers.inference_batch(_batch(*images))
    assert failure.value.code == "invalid_argument"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"model_id": "other"}, "'other' is not loaded"),
        ({"model_id": "tiny-safety"}, "of kind safety_classifier, not sdxl"),
        ({"prompt": 3}, "'prompt' must be text"),
        ({"steps": "4"}, "'steps' must be a whole number"),
        ({"seed": -1}, "'seed' must not be negative"),
        ({"width": 63}, "width is 63"),
    ],
)
def test_inference_names_what_is_wrong(handlers, change, sentence):
    with pytest.raises(TaskFailed, match=sentence) as failure:
        handlers.inference(FakeTask("inference", {**INFERENCE, **change}))
    assert failure.value.code == "invalid_argument"


def test_unforeseen_errors_become_internal(handlers, monkeypatch):
    import lockstep.diffusers.handlers as module

    def broken(*_, **__):
        raise ZeroDivisionError("boom\nsecond line")

    monkeypatch.setattr(module, "generate", broken)
    with pytest.raises(TaskFailed, match="ZeroDivisionError: boom$") as failure:
        handlers.inference(FakeTask("inference", INFERENCE))
    assert failure.value.code == "internal"
    monkeypatch.setattr(module, "generate", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(TaskFailed, match="ran out of memory") as failure:
        handlers.inference(FakeTask("inference", INFERENCE))
    assert failure.value.code == "resource_exhausted"


# post-processing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["rgb8", "png"])
def test_a_safe_picture_is_enlarged_and_delivered(handlers, format):
    image = planted_safe_image(48, 32)
    fds = open_fds()
    task = _postprocess_task(image, [UPSCALE, SAFETY], format)
    done, (fd,) = handlers.postprocess(task)
    data = _take(fd)
    assert open_fds() == fds
    assert _plain(done) and _plain(task.reports)
    assert done["operations"] == ["upscaling", "safety_check"]
    assert done["output"] == {
        "format": "png", "width": 192, "height": 128, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert done["safety"]["safety_classification"] == "safe" and done["safety"]["content_safety_score"] > 0.99
    assert done["safety"]["flagged_content"] == []
    assert set(done["quality"]) == {"technical_quality", "visual_quality", "enhancement_effectiveness"}
    assert done["quality"]["enhancement_effectiveness"] > 5
    assert done["total_processing_time"] > 0 and done["peak_bytes"] >= 0
    assert decode_png(data).shape == (128, 192, 3)
    chunks = read_chunks(data)
    assert chunks["parameters"] == "a red fox\nSteps: 4" and json.loads(chunks["lockstep"]) == {"request_id": "r1"}
    assert [(r["current_operation"], r["operations_completed"]) for r in task.reports] == [
        ("upscaling", 0), ("upscaling", 0), ("upscaling", 0), ("safety_check", 1), ("safety_check", 1)]
    assert [report["current_operation_progress"] for report in task.reports] == [0.0, 100.0, 100.0, 0.0, 100.0]
    assert {report["total_operations"] for report in task.reports} == {2}
    # §2.6: the score is told from the moment on at which there is something to score.
    score = done["quality"]["enhancement_effectiveness"]
    assert [report.get("upscaling_quality_score") for report in task.reports] == [None, None, score, score, score]
    times = [report["processing_time"] for report in task.reports]
    assert times == sorted(times) and 0 < times[0] and times[-1] <= done["total_processing_time"]


# §2.6: a check that does not say how strict it is is as strict as the policy that this worker was told.
@pytest.mark.parametrize(
    "minimum, action, strictness, verdict",
    [
        (0.9999, "reject", None, "unsafe"),  # the tiny classifier gives a safe picture 0.99966
        (0.5, "reject", None, "safe"),
        (0.9999, "flag_for_review", None, "safe"),  # a person looks at it: the check itself is moderate
        (0.0, "reject", None, "safe"),
        (0.9999, "reject", "strict", "safe"),  # the task's own word holds
    ],
)
def test_a_check_takes_its_threshold_from_the_policy_that_was_told(models, minimum, action, strictness, verdict):
    policy = SafetyPolicyUpdate(
        policy_version="v2.1",
        safety_thresholds=SafetyThresholds(
            content_safety_minimum=minimum, quality_minimum=0.0, technical_compliance="strict"),
        enforcement_actions=EnforcementActions(below_safety_threshold=action, below_quality_threshold="allow"),
    )
    told = State(
        device_id="cpu_0", settings=DeviceChanges(), memory_policy=MemoryPolicyChanges(), routing_table={},
        safety_policy=policy, peers={})
    handlers = Handlers("cpu", lambda: told)
    handlers.load(load_task(models, "tiny-safety"))
    step = {"operation": "safety_check", "model": "tiny-safety"}
    if strictness is not None:
        step["strictness"] = strictness
    done, fds = handlers.postprocess(_postprocess_task(planted_safe_image(48, 32), [step]))
    for fd in fds:
        os.close(fd)
    assert done["safety"]["safety_classification"] == verdict
    assert (done["output"] is None) == (verdict == "unsafe")


# §1.4 "Operation-specific resource usage"
def test_each_operation_tells_its_time_and_its_peak(handlers):
    done, (fd,) = handlers.postprocess(_postprocess_task(planted_safe_image(64, 64), [SAFETY, UPSCALE]))
    os.close(fd)
    usage = done["usage"]
    assert [(each["operation"], each["model"]) for each in usage] == [
        ("safety_check", "tiny-safety"), ("upscaling", "tiny-esrgan-x4"), ("safety_check", "tiny-safety")]
    assert all(each["seconds"] > 0 and each["peak"] >= 0 for each in usage)
    assert sum(each["seconds"] for each in usage) <= done["total_processing_time"]
    assert _plain(done)


# §1.6 "Output format validation and conversion"
@pytest.mark.parametrize(
    "format, quality", [("jpeg", "high"), ("jpeg", "low"), ("webp", "lossless"), ("webp", "medium")])
def test_a_picture_is_delivered_in_the_format_that_is_asked_for(handlers, monkeypatch, format, quality):
    import lockstep.diffusers.handlers as module

    judged = []
    monkeypatch.setattr(module, "check", lambda model, image, strictness: judged.append(image) or check(
        model, image, strictness))
    asked = {"output_format": format, "output_quality": quality}
    task = _postprocess_task(planted_safe_image(48, 32), [UPSCALE, SAFETY], **asked)
    done, (fd,) = handlers.postprocess(task)
    data = _take(fd)
    assert done["output"]["format"] == format
    assert done["output"]["sha256"] == hashlib.sha256(data).hexdigest()
    with Image.open(io.BytesIO(data)) as file:
        assert (file.format, file.size) == (format.upper(), (192, 128))
    assert read_exif(data)["parameters"] == "a red fox\nSteps: 4"
    # The classifier saw the pixels of the file, with what the encoder did to them.
    assert len(judged) == 1 and np.array_equal(judged[0], decode(data))


def test_an_unsafe_picture_is_never_delivered(handlers):
    fds = open_fds()
    for pipeline in ([SAFETY, UPSCALE], [UPSCALE, SAFETY], [SAFETY]):
        done, out = handlers.postprocess(_postprocess_task(planted_unsafe_image(64, 64), pipeline))
        assert done["output"] is None and out == []
        assert done["safety"]["safety_classification"] == "unsafe"
        assert done["safety"]["flagged_content"] == ["unsafe"] and done["safety"]["content_safety_score"] < 0.01
        # Nothing runs after the verdict.
        assert done["operations"] == [step["operation"] for step in pipeline[: pipeline.index(SAFETY) + 1]]
    assert open_fds() == fds


def test_changed_pixels_are_judged_again(handlers, monkeypatch):
    done, (fd,) = handlers.postprocess(_postprocess_task(planted_safe_image(64, 64), [SAFETY, UPSCALE]))
    os.close(fd)
    assert done["operations"] == ["safety_check", "upscaling", "safety_check"]

    # An enlargement that brings the pattern in is caught by that second look.
    import lockstep.diffusers.handlers as module

    monkeypatch.setattr(module, "upscale", lambda *_: planted_unsafe_image(256, 256))
    done, out = handlers.postprocess(_postprocess_task(planted_safe_image(64, 64), [SAFETY, UPSCALE]))
    assert out == [] and done["output"] is None and done["safety"]["safety_classification"] == "unsafe"


def test_without_operations_the_picture_is_only_written(handlers):
    image = planted_safe_image(40, 24)
    done, (fd,) = handlers.postprocess(_postprocess_task(image, []))
    assert np.array_equal(decode_png(_take(fd)), image)
    assert done["operations"] == [] and done["safety"] is None
    assert done["quality"]["enhancement_effectiveness"] == 0


def test_equal_sources_give_equal_files(handlers):
    digests = set()
    for _ in range(2):
        done, (fd,) = handlers.postprocess(_postprocess_task(planted_safe_image(48, 32), [UPSCALE, SAFETY]))
        os.close(fd)
        digests.add(done["output"]["sha256"])
    assert len(digests) == 1


POSTPROCESS_FAILURES = [
    ({"source": {"sha256": "0" * 64}}, "data_loss", "do not have the announced sha256"),
    ({"source": {"width": 47, "bytes": 47 * 32 * 3}}, "data_loss", "it has more"),
    ({"source": {"width": 49, "bytes": 49 * 32 * 3}}, "data_loss", "it has only 4608"),
    ({"source": {"bytes": 5}}, "invalid_argument", "need 4608 bytes"),
    ({"source": {"width": 0}}, "invalid_argument", "no source of 0x32"),
    ({"source": {"width": 1 << 40}}, "invalid_argument", "no source of"),
    ({"source": {"format": "jpeg"}}, "invalid_argument", "'jpeg'"),
    ({"source": {"format": "png"}}, "data_loss", "no whole PNG"),
    ({"pipeline": [{"operation": "upscaling", "model": "real"}]}, "invalid_argument", "'real' is not loaded"),
    ({"pipeline": [{"operation": "upscaling", "model": "tiny-safety"}]}, "invalid_argument", "not upscaler"),
    ({"pipeline": [{"operation": "sharpen", "model": "x"}]}, "invalid_argument", "no operation 'sharpen'"),
    ({"pipeline": [{"operation": ["upscaling"]}]}, "invalid_argument", "'operation' must be text"),
    ({"pipeline": [{**SAFETY, "strictness": "none"}]}, "invalid_argument", "strictness is 'none'"),
    ({"output_format": "gif"}, "invalid_argument", "'gif'; it can be png, jpeg, webp"),
    ({"output_format": "jpeg"}, "invalid_argument", "'lossless'; with jpeg it can be high, medium, low"),
    ({"output_quality": "high"}, "invalid_argument", "'high'; with png it can be lossless"),
    ({"output_format": 3}, "invalid_argument", "'output_format' must be text"),
    ({"metadata": "text"}, "invalid_argument", "'metadata' must be an object"),
]


@pytest.mark.parametrize("changes, code, sentence", POSTPROCESS_FAILURES)
def test_postprocess_names_what_is_wrong(handlers, changes, code, sentence):
    fds = open_fds()
    changes = dict(changes)
    task = _postprocess_task(planted_safe_image(48, 32), changes.pop("pipeline", [SAFETY]), **changes)
    with pytest.raises(TaskFailed, match=sentence) as failure:
        handlers.postprocess(task)
    assert failure.value.code == code and open_fds() == fds


def test_the_source_must_be_one_descriptor(handlers):
    task = _postprocess_task(planted_safe_image(48, 32), [])
    os.close(task.fds.pop())
    with pytest.raises(TaskFailed, match="0 descriptors"):
        handlers.postprocess(task)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_a_cancelled_postprocess_delivers_nothing(handlers, after):
    fds = open_fds()
    with pytest.raises(Cancelled):
        handlers.postprocess(_postprocess_task(planted_safe_image(48, 32), [UPSCALE, SAFETY], cancel_after=after))
    assert open_fds() == fds


# the process ---------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_a_clear_failure():
    for device in ("tpu", "meta", "warp:1"):
        with pytest.raises(TaskFailed, match="it can be cpu or cuda:N"):
            Handlers(device)


def test_the_thread_count_is_checked(monkeypatch):
    from lockstep.diffusers.runtime import thread_count

    assert thread_count() == 1
    for bad in ("0", "-1", "two"):
        monkeypatch.setenv("LOCKSTEP_TORCH_THREADS", bad)
        with pytest.raises(TaskFailed, match="LOCKSTEP_TORCH_THREADS"):
            thread_count()
    monkeypatch.delenv("LOCKSTEP_TORCH_THREADS")
    assert thread_count() == max(1, len(os.sched_getaffinity(0)) // 2)


# Stands in for the native layer, which these tests do not need: it shows the order of the calls.
_ENTRY = """
import sys, types
class Worker:
    @classmethod
    def from_environment(cls):
        print("hello", "torch" in sys.modules)
        return cls()
    def on(self, kind, handler): print("on", kind, callable(handler))
    def ready(self): print("ready", "torch" in sys.modules, "spandrel" in sys.modules)
    def run(self): return 3
    def state(self): raise AssertionError("nobody asks before a task")
import lockstep.diffusers
sys.modules["lockstep"].Worker = Worker
import runpy
{before}
runpy.run_module("lockstep.diffusers", run_name="__main__")
"""


def test_the_entry_says_hello_before_the_imports_and_is_ready_after_them():
    with ThreadPoolExecutor() as pool:
        good = pool.submit(run_python, "-c", _ENTRY.format(before=""))
        bad = pool.submit(run_python, "-c", _ENTRY.format(before=""), env={"LOCKSTEP_DEVICE": "warp"})
    done = bad.result()
    assert done.returncode == 1 and "'warp'" in done.stderr and "Traceback" not in done.stderr
    done = good.result()
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == [
        "hello False", "on load True", "on release True", "on inference True",
        "on inference_batch True", "on postprocess True", "ready True True"]


def test_the_entry_tells_what_is_missing():
    done = run_python("-c", _ENTRY.format(before="sys.modules['torch'] = None"))
    assert done.returncode == 1 and "torch is missing" in done.stderr and "Traceback" not in done.stderr
