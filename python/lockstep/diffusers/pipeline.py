"""Text to image: a diffusers SDXL pipeline whose weights are views of segments."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .assign import assign
from .errors import INTERNAL, INVALID_ARGUMENT, Cancelled, TaskFailed
from .segments import Segment
from .single_file import CHECKPOINT, split

# The components that hold weights; their names are the model's folder names.
WEIGHT_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")

PIPELINE_CLASS = "StableDiffusionXLPipeline"

# What a request or a model's settings may name, and the class that carries it out. Each draws all its chance from the
# generator of the run, so equal seeds give equal pictures.
SCHEDULERS = {
    "euler_discrete": "EulerDiscreteScheduler",
    "euler_ancestral_discrete": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpm_solver_multistep": "DPMSolverMultistepScheduler",
}

MAX_SIDE = 4096
MAX_STEPS = 1000


def _read_json(folder: str, name: str) -> dict:
    """Return the object in a file of the folder; what is said of it names the file and not where it was unpacked."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        raise TaskFailed(INVALID_ARGUMENT, f"cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise TaskFailed(INVALID_ARGUMENT, f"cannot read {name}: {error}") from None
    if not isinstance(value, dict):
        raise TaskFailed(INVALID_ARGUMENT, f"{name} holds no JSON object")
    return value


def _build_on_meta(path: str, component: str, class_name: str) -> torch.nn.Module:
    """Build one component without memory from its config file."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = _read_json(path, f"{component}/config.json")
    with torch.device("meta"):
        if class_name == "UNet2DConditionModel":
            return UNet2DConditionModel.from_config(config)
        if class_name == "AutoencoderKL":
            return AutoencoderKL.from_config(config)
        if class_name == "CLIPTextModel":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        if class_name == "CLIPTextModelWithProjection":
            return CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config))
    raise TaskFailed(INVALID_ARGUMENT, f"{component} is a {class_name}, which this worker does not run")


def _class_name(index: dict, component: str) -> str:
    entry = index.get(component)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
        raise TaskFailed(INVALID_ARGUMENT, f"model_index.json names no class for {component}")
    return entry[1]


def _build_scheduler(path: str, class_name: str):
    import diffusers

    kind = getattr(diffusers, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise TaskFailed(INVALID_ARGUMENT, f"{class_name} is no scheduler")
    return kind.from_pretrained(path, subfolder="scheduler", local_files_only=True)


def load_pipeline(
    path: str,
    segments: dict[str, Segment],
    device: str,
    on_component: Callable[[str], None] = lambda name: None,
):
    """Return a StableDiffusionXLPipeline over `segments`, one per name in WEIGHT_COMPONENTS.

    A model in a single file has one segment, CHECKPOINT, whose tensors have the names of the
    original training code; the files of `path` are then another model's of its architecture.

    Config, tokenizer and scheduler files come from the folder `path`, which may be gone afterwards;
    weights only from the segments, never from files there. `on_component(name)` is called after each component and may
    raise to stop. Raises TaskFailed: invalid_argument for a folder that is no such pipeline or for
    missing segments, data_loss for weights that do not fit.
    """
    index = _read_json(path, "model_index.json")
    if index.get("_class_name") != PIPELINE_CLASS:
        raise TaskFailed(INVALID_ARGUMENT, f"the model is a {index.get('_class_name')}, not a {PIPELINE_CLASS}")
    single = set(segments) == {CHECKPOINT}
    if not single and set(segments) != set(WEIGHT_COMPONENTS):
        raise TaskFailed(
            INVALID_ARGUMENT,
            f"components {', '.join(sorted(segments)) or 'none'} given, {', '.join(WEIGHT_COMPONENTS)} needed",
        )
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    parts = {name: _build_on_meta(path, name, _class_name(index, name)) for name in WEIGHT_COMPONENTS}
    if single:
        weights = split(segments[CHECKPOINT].tensors(device), parts)
        for name in WEIGHT_COMPONENTS:
            parts[name] = assign(parts[name], segments[CHECKPOINT], device, name, weights[name])
        on_component(CHECKPOINT)
    else:
        for name in WEIGHT_COMPONENTS:
            parts[name] = assign(parts[name], segments[name], device, name)
            on_component(name)
    for name in TOKENIZERS:
        parts[name] = CLIPTokenizer.from_pretrained(os.path.join(path, name), local_files_only=True)
    parts["scheduler"] = _build_scheduler(path, _class_name(index, "scheduler"))
    pipe = StableDiffusionXLPipeline(
        **parts,
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _is_whole(value, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _check_parameters(pipe, prompt, negative_prompt, width, height, steps, guidance_scale, seed) -> None:
    if not isinstance(prompt, str) or not isinstance(negative_prompt, str):
        raise TaskFailed(INVALID_ARGUMENT, "prompt and negative_prompt must be text")
    # The UNet halves the latent picture as well, once per block but the last.
    unit = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.down_block_types) - 1)
    for name, side in (("width", width), ("height", height)):
        if not _is_whole(side, unit, MAX_SIDE) or side % pipe.vae_scale_factor:
            raise TaskFailed(
                INVALID_ARGUMENT,
                f"{name} is {side!r}; it must be a multiple of {pipe.vae_scale_factor} from {unit} to {MAX_SIDE}",
            )
    if not _is_whole(steps, 1, MAX_STEPS):
        raise TaskFailed(INVALID_ARGUMENT, f"steps is {steps!r}, not a whole number from 1 to {MAX_STEPS}")
    if not _is_whole(seed, 0, 2**64 - 1):
        raise TaskFailed(INVALID_ARGUMENT, f"seed is {seed!r}, not a whole number from 0 to 2^64-1")
    if not isinstance(guidance_scale, (int, float)) or not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise TaskFailed(INVALID_ARGUMENT, f"guidance_scale is {guidance_scale!r}, not a number from 0")


@contextlib.contextmanager
def _scheduled(pipe, name: str):
    """Give the pipeline another scheduler for one run, with the settings that the model's own one has."""
    if not name:
        yield
        return
    if name not in SCHEDULERS:
        raise TaskFailed(INVALID_ARGUMENT, f"scheduler is {name!r}; it can be {', '.join(SCHEDULERS)}")
    import diffusers

    own = pipe.scheduler
    pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(own.config)
    try:
        yield
    finally:
        pipe.scheduler = own


class _WeightsKept:
    """Puts a module's own tensors back after a call that converted them.

    Half precision autoencoders are widened by the pipeline for decoding and narrowed again after,
    which leaves private copies where the segment's views were.
    """

    def __init__(self, module: torch.nn.Module):
        self._pairs = [(parameter, parameter.detach()) for parameter in module.parameters()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for parameter, original in self._pairs:
            if parameter.data_ptr() != original.data_ptr() or parameter.dtype != original.dtype:
                parameter.data = original


def generate(
    pipe,
    *,
    prompt: str,
    negative_prompt: str = "",
    width: int,
    height: int,
    steps: int,
    guidance_scale: float = 5.0,
    seed: int,
    scheduler: str = "",
    on_step: Callable[[int, int, float], None] = lambda step, total, seconds: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return one picture as uint8 of shape (height, width, 3).

    `on_step(step, total, seconds)` is called after each step: steps done from 1, their number, the
    mean seconds per step so far (the prompt's encoding is part of the first). Equal arguments give
    equal bytes on one machine with one thread count: all noise is drawn on the CPU from `seed`.
    Raises Cancelled once `is_cancelled()` is true (asked before the call and after each step),
    TaskFailed(invalid_argument) for parameters out of range, TaskFailed(internal) when the decoder
    yields values that are no numbers. `scheduler` is a key of SCHEDULERS; empty takes the model's own.
    """
    _check_parameters(pipe, prompt, negative_prompt, width, height, steps, guidance_scale, seed)
    if is_cancelled():
        raise Cancelled()
    try:
        with _scheduled(pipe, scheduler), _WeightsKept(pipe.vae), torch.inference_mode():
            picture = pipe(
                prompt=prompt,
                negative_prompt=negative_prompt,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=float(guidance_scale),
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=_stepping(pipe, on_step, is_cancelled),
                output_type="np",
            ).images[0]
    finally:
        # An exception from the callback skips the pipeline's own clean-up.
        pipe.maybe_free_model_hooks()
    return _pixels(picture)


def generate_batch(
    pipe,
    *,
    prompt: str,
    negative_prompt: str = "",
    width: int,
    height: int,
    steps: int,
    guidance_scale: float = 5.0,
    seeds: list[int],
    scheduler: str = "",
    on_step: Callable[[int, int, float], None] = lambda step, total, seconds: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[np.ndarray]:
    """Yield one picture for each seed, in order, as generate() returns one; noise is taken out of all at once.

    Each is decoded when it is asked for, so that the first is handed over before the second takes memory. A picture of
    a batch looks like the one that generate() makes of its seed, and is not equal to it in every bit: sums are made in
    another order. Raises as generate(); a cancellation also between two pictures.
    """
    for seed in seeds:
        _check_parameters(pipe, prompt, negative_prompt, width, height, steps, guidance_scale, seed)
    if is_cancelled():
        raise Cancelled()
    try:
        with _scheduled(pipe, scheduler), torch.inference_mode():
            latents = pipe(
                prompt=prompt,
                negative_prompt=negative_prompt,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=float(guidance_scale),
                num_images_per_prompt=len(seeds),
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                callback_on_step_end=_stepping(pipe, on_step, is_cancelled),
                output_type="latent",
            ).images
    finally:
        pipe.maybe_free_model_hooks()
    for index in range(len(seeds)):
        if is_cancelled():
            raise Cancelled(f"the task was cancelled after {index} of {len(seeds)} pictures")
        with _WeightsKept(pipe.vae), torch.inference_mode():
            picture = _decode(pipe, latents[index : index + 1])
        yield _pixels(picture)


def _stepping(pipe, on_step, is_cancelled):
    """The pipeline's callback: tells of each step, and ends the run once it is cancelled."""
    started = time.perf_counter()

    def after_step(_pipe, index, _timestep, tensors):
        done = index + 1
        on_step(done, pipe.num_timesteps, (time.perf_counter() - started) / done)
        if is_cancelled():
            raise Cancelled(f"the task was cancelled after step {done} of {pipe.num_timesteps}")
        return tensors

    return after_step


def _decode(pipe, latents: torch.Tensor) -> np.ndarray:
    """Decode one latent picture, as the pipeline does at its end."""
    vae = pipe.vae
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.to(dtype=torch.float32)
    latents = latents.to(next(iter(vae.post_quant_conv.parameters())).dtype)
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    latents = latents / vae.config.scaling_factor
    if mean is not None and std is not None:
        as_channels = {"device": latents.device, "dtype": latents.dtype}
        latents = latents * torch.tensor(std, **as_channels).view(1, -1, 1, 1)
        latents = latents + torch.tensor(mean, **as_channels).view(1, -1, 1, 1)
    return pipe.image_processor.postprocess(vae.decode(latents, return_dict=False)[0], output_type="np")[0]


def _pixels(picture: np.ndarray) -> np.ndarray:
    if not np.isfinite(picture).all():
        raise TaskFailed(INTERNAL, "the decoder yielded values that are no numbers")
    # The pipeline hands out a transposed view; rows are what everybody else reads.
    return np.ascontiguousarray(np.round(picture * 255.0), dtype=np.uint8)
