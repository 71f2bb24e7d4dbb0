"""What a worker process does for each kind of task.

A task has `kind`, `body` (a dict), `fds` (owned by the handler from the call on), `cancelled` (true
once the orchestrator wants it to stop), `progress(dict)` and, for a batch, `part(request_id, dict, fds)`. A handler returns (dict, list of
descriptors that the caller then owns) or raises TaskFailed, Cancelled included. README.md lists
the bodies, progress reports and results.
"""

import contextlib
import gc
import hashlib
import os
import time
import traceback
from dataclasses import dataclass

import numpy as np
import torch

from . import configuration, memfd, runtime
from .errors import DATA_LOSS, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, Cancelled, TaskFailed
from .images import MAX_PIXELS, check_output, decode, decode_png, encode
from .memory import PeakMeter, mapped_bytes
from .pipeline import generate, generate_batch, load_pipeline
from .quality import enhancement_effectiveness, result_quality_score, technical_quality, visual_quality
from .safety import check, load_safety, policy_strictness, threshold
from .segments import Segment
from .upscale import load_upscaler, upscale

SDXL = "sdxl"
UPSCALER = "upscaler"
SAFETY_CLASSIFIER = "safety_classifier"

# The model kind that each operation of a post-processing pipeline needs.
_OPERATIONS = {"upscaling": UPSCALER, "safety_check": SAFETY_CLASSIFIER}

# A source file may be larger than its pixels, but not by much.
_MAX_SOURCE_BYTES = 4 * MAX_PIXELS


@dataclass
class _Held:
    """A loaded model, the segments its weights are views of, and what all its components were made of, by name."""

    kind: str
    model: object
    segments: dict[str, Segment]
    hashes: dict[str, str]


def _field(body: dict, name: str, kinds, what: str):
    """Return body[name]; raises TaskFailed(invalid_argument) unless it is of one of `kinds`."""
    value = body.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TaskFailed(INVALID_ARGUMENT, f"the field {name!r} must be {what}")
    return value


def _text(body: dict, name: str) -> str:
    return _field(body, name, str, "text")


def _count(body: dict, name: str) -> int:
    value = _field(body, name, int, "a whole number")
    if value < 0:
        raise TaskFailed(INVALID_ARGUMENT, f"the field {name!r} must not be negative")
    return value


@contextlib.contextmanager
def _failures(what: str):
    """Turn every exception into a TaskFailed with a code that says who can do something about it."""
    try:
        yield
    except TaskFailed:
        raise
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise TaskFailed(RESOURCE_EXHAUSTED, f"{what} ran out of memory: {_first_line(error)}") from None
    except Exception as error:
        raise TaskFailed(INTERNAL, f"{what} failed: {type(error).__name__}: {_first_line(error)}") from error


def _forget_frames(error: BaseException | None) -> None:
    """Drop the local variables that an exception and those behind it keep alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or "no detail"


class Handlers:
    """Runs tasks on one device, "cpu" or "cuda:N", one task at a time.

    Models stay loaded between tasks until released. `state` is Worker.state, or None where there is
    no worker. Raises TaskFailed(invalid_argument) for a device that this process cannot use.
    """

    def __init__(self, device: str = "cpu", state=None):
        runtime.configure_torch()
        try:
            kind = torch.device(device).type
        except RuntimeError:
            kind = ""
        if kind not in ("cpu", "cuda"):
            raise TaskFailed(INVALID_ARGUMENT, f"the device is {device!r}; it can be cpu or cuda:N")
        if kind == "cuda":
            if not torch.cuda.is_available():
                raise TaskFailed(INVALID_ARGUMENT, f"{device} is asked for, but no CUDA device is usable")
            torch.cuda.set_device(torch.device(device))
        self.device = device
        self._state = state
        self._held: dict[str, _Held] = {}
        # Inodes of the segments a model had: what release looks for in the process's mappings.
        self._inodes: dict[str, set[int]] = {}

    # load and release ----------------------------------------------------------------------------

    def load(self, task) -> tuple[dict, list[int]]:
        """Map the components of a model and build it; takes nothing when it fails."""
        fds = list(task.fds)
        segments: dict[str, Segment] = {}
        try:
            with _failures("loading the model"):
                return self._load(task, fds, segments), []
        except TaskFailed as error:
            # The exception remembers frames, and they remember half a model: views of the segments.
            _forget_frames(error)
            for segment in segments.values():
                segment.close()
            self._give_device_memory_back()
            raise
        finally:
            for fd in fds:
                os.close(fd)

    def _load(self, task, fds: list[int], segments: dict[str, Segment]) -> dict:
        started = time.perf_counter()
        body = task.body
        model_id, kind = _text(body, "model_id"), _text(body, "kind")
        components = _field(body, "components", list, "a list")
        if kind not in (SDXL, UPSCALER, SAFETY_CLASSIFIER):
            raise TaskFailed(INVALID_ARGUMENT, f"this worker knows no models of kind {kind!r}")
        if not components or not all(isinstance(component, dict) for component in components):
            raise TaskFailed(INVALID_ARGUMENT, "the field 'components' must hold objects")
        names = [_text(component, "name") for component in components]
        sizes = [_count(component, "bytes") for component in components]
        hashes = [_text(component, "sha256").lower() for component in components]
        if len(set(names)) != len(names):
            raise TaskFailed(INVALID_ARGUMENT, f"the model {model_id!r} has two components of one name")
        if len(fds) != len(components):
            raise TaskFailed(INVALID_ARGUMENT, f"{len(components)} components came with {len(fds)} descriptors")
        weights = [name for name in names if name != configuration.NAME]
        if kind != SDXL and len(weights) != 1:
            raise TaskFailed(INVALID_ARGUMENT, f"a model of kind {kind!r} has one component, not {len(weights)}")
        if kind != UPSCALER and configuration.NAME not in names:
            raise TaskFailed(
                INVALID_ARGUMENT, f"a model of kind {kind!r} needs the component {configuration.NAME!r}, which is missing"
            )

        held = self._held.get(model_id)
        if held is not None:
            if held.kind == kind and held.hashes == dict(zip(names, hashes)):
                return {"bytes": self._bytes(held.segments), "seconds": time.perf_counter() - started}
            raise TaskFailed(INVALID_ARGUMENT, f"another model is loaded as {model_id!r}; release it first")

        inodes = self._inodes.setdefault(model_id, set())
        files: dict[str, bytes] = {}
        for name, size, sha256 in zip(names, sizes, hashes):
            if name == configuration.NAME:
                files = configuration.read(fds.pop(0), size, sha256)
                continue
            segment = Segment(fds.pop(0), size)
            segments[name] = segment
            inodes.add(segment.inode)
            if segment.sha256.lower() != sha256:
                raise TaskFailed(
                    DATA_LOSS, f"the segment of {name!r} is of the source {segment.sha256}, announced was {sha256}"
                )

        total, done = self._bytes(segments), 0

        def on_component(name: str) -> None:
            nonlocal done
            done += segments[name].size
            task.progress({"component": name, "fraction": done / total, "bytes": done})
            if task.cancelled:
                raise Cancelled(f"loading {model_id!r} was cancelled after {name!r}")

        if task.cancelled:
            raise Cancelled()
        if kind == UPSCALER:
            (name,) = weights
            model = load_upscaler(segments[name], self.device)
            on_component(name)
        else:
            with configuration.unpacked(files) as path:
                if kind == SDXL:
                    model = load_pipeline(path, segments, self.device, on_component)
                else:
                    (name,) = weights
                    model = load_safety(path, segments[name], self.device)
                    on_component(name)
        self._held[model_id] = _Held(kind, model, segments, dict(zip(names, hashes)))
        return {"bytes": self._bytes(segments), "seconds": time.perf_counter() - started}

    @staticmethod
    def _bytes(segments: dict[str, Segment]) -> int:
        return sum(segment.size for segment in segments.values())

    def release(self, task) -> tuple[dict, list[int]]:
        """Drop a model; the result says what of it is still mapped."""
        for fd in task.fds:
            os.close(fd)
        with _failures("releasing the model"):
            model_id = _text(task.body, "model_id")
            held = self._held.pop(model_id, None)
            if held is not None:
                segments = held.segments
                del held
                for segment in segments.values():
                    segment.close()
                self._give_device_memory_back()
            remaining = mapped_bytes(self._inodes.get(model_id, set()))
            if not remaining:
                self._inodes.pop(model_id, None)
            return {"bytes_mapped": remaining}, []

    def _give_device_memory_back(self) -> None:
        if self.device.startswith("cuda"):
            gc.collect()
            torch.cuda.empty_cache()

    def _model(self, model_id: str, kind: str):
        held = self._held.get(model_id)
        if held is None:
            raise TaskFailed(INVALID_ARGUMENT, f"the model {model_id!r} is not loaded")
        if held.kind != kind:
            raise TaskFailed(INVALID_ARGUMENT, f"the model {model_id!r} is of kind {held.kind}, not {kind}")
        return held.model

    # inference -----------------------------------------------------------------------------------

    def inference(self, task) -> tuple[dict, list[int]]:
        """Generate one picture; the result's descriptor is a sealed memfd of its RGB rows."""
        for fd in task.fds:
            os.close(fd)
        with _failures("the inference"):
            return self._inference(task)

    def _inference(self, task) -> tuple[dict, list[int]]:
        started = time.perf_counter()
        body = task.body
        request_id = _text(body, "request_id")
        pipe = self._model(_text(body, "model_id"), SDXL)
        meter = PeakMeter(self.device)
        steps_done = 0

        def on_step(step: int, total: int, seconds: float) -> None:
            nonlocal steps_done
            steps_done = step
            task.progress({"step": step, "total_steps": total, "step_time_avg": seconds})

        image = generate(
            pipe,
            seed=_count(body, "seed"),
            on_step=on_step,
            is_cancelled=lambda: task.cancelled,
            **_parameters(body),
        )
        return _image_done(request_id, image, steps_done, meter, started)

    def inference_batch(self, task) -> tuple[dict, list[int]]:
        """Generate the pictures of a batch at once; each is handed over as soon as it is decoded."""
        for fd in task.fds:
            os.close(fd)
        with _failures("the inference of a batch"), self._limited(_count(task.body, "vram_limit")):
            return self._inference_batch(task)

    def _inference_batch(self, task) -> tuple[dict, list[int]]:
        started = time.perf_counter()
        images = _field(task.body, "images", list, "a list")
        if not images or not all(isinstance(image, dict) for image in images):
            raise TaskFailed(INVALID_ARGUMENT, "the field 'images' must hold objects")
        alike = [(_text(image, "model_id"), _parameters(image)) for image in images]
        if any(each != alike[0] for each in alike):
            raise TaskFailed(INVALID_ARGUMENT, "the images of a batch may differ in nothing but their seeds")
        pipe = self._model(alike[0][0], SDXL)
        meter = PeakMeter(self.device)
        steps_done = 0

        def on_step(step: int, total: int, seconds: float) -> None:
            nonlocal steps_done
            steps_done = step
            task.progress({"step": step, "total_steps": total, "step_time_avg": seconds})

        pictures = generate_batch(
            pipe,
            seeds=[_count(image, "seed") for image in images],
            on_step=on_step,
            is_cancelled=lambda: task.cancelled,
            **alike[0][1],
        )
        for image, picture in zip(images, pictures, strict=True):
            request_id = _text(image, "request_id")
            task.part(request_id, *_image_done(request_id, picture, steps_done, meter, started))
        return {}, []

    @contextlib.contextmanager
    def _limited(self, vram_limit: int):
        """Let torch take no more of a GPU than that; what would is out of memory. A CPU's memory has no such limit."""
        if not self.device.startswith("cuda"):
            yield
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, vram_limit / total), self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    # post-processing -----------------------------------------------------------------------------

    def postprocess(self, task) -> tuple[dict, list[int]]:
        """Run a pipeline of operations on a picture and deliver it as a file, unless it is unsafe."""
        fds = list(task.fds)
        try:
            with _failures("the post-processing"):
                if len(fds) != 1:
                    raise TaskFailed(INVALID_ARGUMENT, f"the source came with {len(fds)} descriptors, not one")
                return self._postprocess(task, fds[0])
        finally:
            for fd in fds:
                os.close(fd)

    def _postprocess(self, task, source_fd: int) -> tuple[dict, list[int]]:
        started = time.perf_counter()
        body = task.body
        request_id = _text(body, "request_id")
        asked = {"output_format": "png", "output_quality": "lossless", **body}
        format, quality = _text(asked, "output_format"), _text(asked, "output_quality")
        check_output(format, quality)
        steps = self._plan(_field(body, "pipeline", list, "a list"))
        parameters, metadata = body.get("parameters"), body.get("metadata")
        if parameters is not None and not isinstance(parameters, str):
            raise TaskFailed(INVALID_ARGUMENT, "the field 'parameters' must be text")
        if metadata is not None and not isinstance(metadata, dict):
            raise TaskFailed(INVALID_ARGUMENT, "the field 'metadata' must be an object")
        meter = PeakMeter(self.device)
        source = _read_source(source_fd, _field(body, "source", dict, "an object"))

        image, verdict, names, data = source, None, [], None
        usage, peak = [], 0
        enlarged, effectiveness = None, 0.0  # the newest enlargement, and its score
        models = [entry["model"] for entry in body["pipeline"]]
        # A check that was added at the end is the last one again.
        models += [entry["model"] for entry in body["pipeline"] if entry["operation"] == "safety_check"][-1:]

        def written() -> bytes:
            return encode(image, format, quality, parameters, metadata)

        for index, (operation, model, strictness) in enumerate(steps):
            if task.cancelled:
                raise Cancelled(f"the task was cancelled before {operation}")

            def report(percent: float, operation=operation, index=index) -> None:
                told = {
                    "current_operation": operation,
                    "operations_completed": index,
                    "total_operations": len(steps),
                    "current_operation_progress": percent,
                    "processing_time": time.perf_counter() - started,
                }
                if enlarged is not None:
                    told["upscaling_quality_score"] = effectiveness
                task.progress(told)

            report(0.0)
            peak = max(peak, meter.bytes())
            begun, own_meter = time.perf_counter(), PeakMeter(self.device)  # it sets the peak back
            if index == len(steps) - 1 and operation == "safety_check" and quality != "lossless":
                # What is delivered is what was judged: the pixels that the file really has.
                data = written()
                image = decode(data)
            if operation == "upscaling":
                image = enlarged = upscale(model, image, report, lambda: task.cancelled)
                effectiveness = enhancement_effectiveness(source, image)
                report(100.0)
            else:
                verdict = check(model, image, strictness)
                report(100.0)
            names.append(operation)
            peak = max(peak, meter.bytes())
            usage.append(
                {
                    "operation": operation,
                    "model": models[index],
                    "seconds": time.perf_counter() - begun,
                    "peak": own_meter.bytes(),
                }
            )
            if verdict is not None and verdict.classification != "safe":
                break

        output, fds = None, []
        if verdict is None or verdict.classification == "safe":
            if task.cancelled:
                raise Cancelled("the task was cancelled before the picture was written")
            if data is None:
                data = written()
            output = {
                "format": format,
                "width": image.shape[1],
                "height": image.shape[0],
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        result = {
            "operations": names,
            "safety": None if verdict is None else _safety_report(verdict),
            "quality": {
                "technical_quality": technical_quality(image),
                "visual_quality": visual_quality(image),
                "enhancement_effectiveness": (
                    effectiveness if image is enlarged else enhancement_effectiveness(source, image)
                ),
            },
            "output": output,
            "peak_bytes": max(peak, meter.bytes()),
            "usage": usage,
        }
        if output is not None:
            fds.append(memfd.sealed(f"lockstep-result:{request_id}", data))
        return {**result, "total_processing_time": time.perf_counter() - started}, fds

    def _plan(self, pipeline: list) -> list[tuple[str, object, str | float | None]]:
        """Return (operation, model, strictness) for each step, a last check added where one is due.

        A check that does not say how strict it is is as strict as the policy that the worker was told.
        Raises TaskFailed(invalid_argument) for unknown operations, for models that are not loaded
        and for a strictness that does not exist, before any pixel is touched.
        """
        steps = []
        for entry in pipeline:
            if not isinstance(entry, dict):
                raise TaskFailed(INVALID_ARGUMENT, "the field 'pipeline' must hold objects")
            operation = _text(entry, "operation")
            if operation not in _OPERATIONS:
                raise TaskFailed(INVALID_ARGUMENT, f"there is no operation {operation!r}")
            model = self._model(_text(entry, "model"), _OPERATIONS[operation])
            strictness = None
            if operation == "safety_check":
                policy = self._state().safety_policy if self._state is not None else None
                strictness = _text(entry, "strictness") if "strictness" in entry else policy_strictness(policy)
                threshold(strictness)
            steps.append((operation, model, strictness))
        checks = [index for index, step in enumerate(steps) if step[0] == "safety_check"]
        if checks and checks[-1] != len(steps) - 1:
            # What is delivered is what was judged: pixels that changed after the check are judged again.
            steps.append(steps[checks[-1]])
        return steps


def _parameters(body: dict) -> dict:
    """What a picture is made from, but for its seed."""
    return {
        "prompt": _text(body, "prompt"),
        "negative_prompt": body.get("negative_prompt") or "",
        "width": _count(body, "width"),
        "height": _count(body, "height"),
        "steps": _count(body, "steps"),
        "guidance_scale": _field(body, "guidance_scale", (int, float), "a number"),
        "scheduler": body.get("scheduler") or "",
    }


def _image_done(request_id: str, image, steps: int, meter: PeakMeter, started: float) -> tuple[dict, list[int]]:
    result = {
        "total_steps_executed": steps,
        "width": image.shape[1],
        "height": image.shape[0],
        "bytes": image.nbytes,
        "sha256": hashlib.sha256(image).hexdigest(),
        "peak_bytes": meter.bytes(),
        "result_quality_score": result_quality_score(image),
        "postprocessing_recommendations": ["safety_check"],  # nobody has judged it yet
    }
    fd = memfd.sealed(f"lockstep-result:{request_id}", image)
    return {"execution_time": time.perf_counter() - started, **result}, [fd]


def _safety_report(verdict) -> dict:
    return {
        "content_safety_score": verdict.score,
        "safety_classification": verdict.classification,
        "flagged_content": verdict.flagged,
    }


def _read_source(fd: int, source: dict) -> np.ndarray:
    """Return the source picture from a private copy that has the announced length and hash.

    Raises TaskFailed: data_loss when it has not, invalid_argument for a description that cannot be.
    """
    kind, size, sha256 = _text(source, "format"), _count(source, "bytes"), _text(source, "sha256")
    width, height = _count(source, "width"), _count(source, "height")
    if kind not in ("rgb8", "png"):
        raise TaskFailed(INVALID_ARGUMENT, f"the source is {kind!r}; it can be rgb8 or png")
    if not width or not height or width * height > MAX_PIXELS or size > _MAX_SOURCE_BYTES:
        raise TaskFailed(INVALID_ARGUMENT, f"this worker takes no source of {width}x{height} in {size} bytes")
    if kind == "rgb8" and size != width * height * 3:
        raise TaskFailed(INVALID_ARGUMENT, f"{width}x{height} pixels need {width * height * 3} bytes, not {size}")
    # One byte more than announced: a longer file is as wrong as a shorter one.
    data = memfd.read_all(fd, size + 1)
    if len(data) != size:
        length = "more" if len(data) > size else f"only {len(data)}"
        raise TaskFailed(DATA_LOSS, f"the source should have {size} bytes, it has {length}")
    if hashlib.sha256(data).hexdigest() != sha256.lower():
        raise TaskFailed(DATA_LOSS, "the source's bytes do not have the announced sha256")
    if kind == "rgb8":
        return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
    image = decode_png(data)
    if image.shape[:2] != (height, width):
        raise TaskFailed(
            DATA_LOSS, f"the source is {image.shape[1]}x{image.shape[0]}, {width}x{height} was announced"
        )
    return image
