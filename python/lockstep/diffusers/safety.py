"""Judging pictures by a classifier whose weights are views of a segment."""

from dataclasses import dataclass

import numpy as np
import torch

from .assign import assign
from .errors import INTERNAL, INVALID_ARGUMENT, TaskFailed
from .segments import Segment

# A picture passes when its probability of being safe is at least this.
THRESHOLDS = {"strict": 0.98, "moderate": 0.95, "relaxed": 0.80}

# Labels that classifiers in use give to harmless pictures; every other label counts against them.
SAFE_LABELS = frozenset({"safe", "normal", "sfw", "neutral"})


@dataclass(frozen=True)
class SafetyModel:
    """A classifier with the preparation of its input."""

    module: torch.nn.Module
    processor: object
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """`score` is the probability of safe, 0..1; `flagged` the labels that speak against the picture."""

    score: float
    classification: str
    flagged: list[str]


def threshold(strictness: str | float) -> float:
    """The least probability of safe that passes: that of the word, or the number itself.

    Raises TaskFailed(invalid_argument) for another word.
    """
    if isinstance(strictness, float):
        return strictness
    if strictness not in THRESHOLDS:
        raise TaskFailed(INVALID_ARGUMENT, f"strictness is {strictness!r}; it can be {', '.join(THRESHOLDS)}")
    return THRESHOLDS[strictness]


def _prepared(path: str, module: torch.nn.Module) -> SafetyModel:
    from transformers import AutoImageProcessor

    names = module.config.id2label
    labels = tuple(names[number] for number in sorted(names))
    if not any(label.lower() in SAFE_LABELS for label in labels):
        raise TaskFailed(INVALID_ARGUMENT, f"none of the classifier's labels {', '.join(labels)} means safe")
    return SafetyModel(module, AutoImageProcessor.from_pretrained(path, local_files_only=True), labels)


def load_safety(path: str, segment: Segment, device: str) -> SafetyModel:
    """Return the classifier in `segment`; config and preprocessor come from the folder `path`, which is read now only.

    Raises TaskFailed: invalid_argument for a folder that is no image classifier or has no label for
    safe, data_loss for weights that do not fit.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        with torch.device("meta"):
            module = AutoModelForImageClassification.from_config(config)
    except (OSError, ValueError) as error:
        raise TaskFailed(INVALID_ARGUMENT, f"{segment.model} is no image classifier: {error}") from None
    return _prepared(path, assign(module, segment, device, segment.model))


def load_safety_from_files(path: str, device: str) -> SafetyModel:
    """The same from the folder's own weights file, for use without the shared cache."""
    from transformers import AutoModelForImageClassification

    module = AutoModelForImageClassification.from_pretrained(path, local_files_only=True, use_safetensors=True)
    return _prepared(path, module.to(device).eval().requires_grad_(False))


def policy_strictness(policy) -> str | float:
    """How strict a check is whose task does not say it, by the safety_policy_update that the worker was told, or None.

    Its minimum, where what is below is rejected; "moderate" without one.
    """
    if policy is None or policy.enforcement_actions.below_safety_threshold != "reject":
        return "moderate"
    return float(policy.safety_thresholds.content_safety_minimum) or "moderate"


def check(model: SafetyModel, image: np.ndarray, strictness: str | float) -> Verdict:
    """Judge `image` (height, width, 3; uint8). `strictness`: as for threshold().

    Raises TaskFailed: invalid_argument for a strictness not in THRESHOLDS, internal when the
    classifier's answer is no number.
    """
    least = threshold(strictness)
    parameter = next(model.module.parameters())
    pixels = model.processor(images=image, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.inference_mode():
        logits = model.module(pixel_values=pixels.to(parameter.device, parameter.dtype)).logits[0]
    # In double precision, so that the sum of the shares is 1 to the last shown digit.
    shares = torch.softmax(logits.double().cpu(), dim=0).tolist()
    if not all(0 <= share <= 1 for share in shares):
        raise TaskFailed(INTERNAL, "the safety classifier's answer is no number")
    by_label = dict(zip(model.labels, shares, strict=True))
    score = min(1.0, sum(share for label, share in by_label.items() if label.lower() in SAFE_LABELS))
    if score >= least:
        return Verdict(score, "safe", [])
    # Several labels can share the blame, each with less than the threshold leaves.
    against = {label: share for label, share in by_label.items() if label.lower() not in SAFE_LABELS}
    bar = min(1 - least, max(against.values()))
    return Verdict(score, "unsafe", [label for label, share in against.items() if share >= bar])
