"""A small image classifier whose weights are written down, not learned.

It is a ResNet of one stage over pictures brought to 128x128. The first layer averages the
magenta-against-green signal (R + B) / 2 - G over 7x7 pixels into two features, "magenta" and
"green". The second layer answers where four fields meet crosswise: magenta at two opposite corners
of a 3x3 window and green at the other two, all four strongly. The score is the mean of these answers
over the picture. Anything but strongly coloured crossings yields exactly zero, so everything else
gets the same probability of being safe, SAFE_AT_REST.

The checkerboard of `planted` has 49 crossings; in a block of a x b of its fields there are
(a-1) * (b-1). README.md states how much of a picture counts.
"""

import json
import math
import os

import torch
from safetensors.torch import save_file

INPUT_SIDE = 128
LABELS = {0: "safe", 1: "unsafe"}
# The score difference unsafe - safe: -REST with no crossing, FULL - REST with all 49.
REST = 8.0
FULL = 30.0
SAFE_AT_REST = 1 / (1 + math.exp(-REST))
# The four corners together must exceed this, of at most 4.
_THRESHOLD = 2.8
# Mean of the second layer's answers (both features together) over the whole checkerboard.
_FULL_MEAN = 0.1297
_STEM = "resnet.embedder.embedder"
_LAYER = "resnet.encoder.stages.0.layers.0"
_FEATURES = 4


def _passing(prefix: str, features: int) -> dict[str, torch.Tensor]:
    """A normalisation that changes nothing: unit variance, the divisor's small constant undone."""
    return {
        f"{prefix}.weight": torch.full((features,), math.sqrt(1 + 1e-5)),
        f"{prefix}.bias": torch.zeros(features),
        f"{prefix}.running_mean": torch.zeros(features),
        f"{prefix}.running_var": torch.ones(features),
        f"{prefix}.num_batches_tracked": torch.tensor(0),
    }


def config():
    """The classifier's transformers config."""
    from transformers import ResNetConfig

    return ResNetConfig(
        num_channels=3,
        embedding_size=2,
        hidden_sizes=[_FEATURES],
        depths=[1],
        layer_type="basic",
        hidden_act="relu",
        downsample_in_first_stage=False,
        id2label=LABELS,
        label2id={name: number for number, name in LABELS.items()},
    )


def state_dict() -> dict[str, torch.Tensor]:
    """The classifier's tensors, float32 (counters int64)."""
    opponent = torch.tensor([0.5, -1.0, 0.5]).view(3, 1, 1).expand(3, 7, 7) / 49
    crossing = torch.zeros((_FEATURES, 2, 3, 3))
    for feature, (first, second) in enumerate(((0, 1), (1, 0))):
        crossing[feature, first, 0, 0] = crossing[feature, first, 2, 2] = 1.0
        crossing[feature, second, 0, 2] = crossing[feature, second, 2, 0] = 1.0
    answers = _passing(f"{_LAYER}.layer.0.normalization", _FEATURES)
    answers[f"{_LAYER}.layer.0.normalization.bias"][:] = -_THRESHOLD
    keep = torch.zeros((_FEATURES, _FEATURES, 3, 3))
    keep[range(_FEATURES), range(_FEATURES), 1, 1] = 1.0
    gain = torch.zeros((2, _FEATURES))
    gain[1, :2] = FULL / _FULL_MEAN
    return {
        f"{_STEM}.convolution.weight": torch.stack([opponent, -opponent]),
        **_passing(f"{_STEM}.normalization", 2),
        # The path around the layer would mix the plain colours in; it is silenced.
        f"{_LAYER}.shortcut.convolution.weight": torch.zeros((_FEATURES, 2, 1, 1)),
        **_passing(f"{_LAYER}.shortcut.normalization", _FEATURES),
        f"{_LAYER}.layer.0.convolution.weight": crossing,
        **answers,
        f"{_LAYER}.layer.1.convolution.weight": keep,
        **_passing(f"{_LAYER}.layer.1.normalization", _FEATURES),
        "classifier.1.weight": gain,
        "classifier.1.bias": torch.tensor([0.0, -REST]),
    }


def write(folder: str) -> None:
    """Write the model into the empty folder `folder`; the same bytes each time."""
    from transformers import ResNetForImageClassification

    settings = config()
    with torch.device("meta"):
        # Only a check: the names and shapes must be the class's own.
        ResNetForImageClassification(settings).load_state_dict(state_dict(), strict=True, assign=True)
    settings.architectures = ["ResNetForImageClassification"]
    settings.save_pretrained(folder)
    save_file(state_dict(), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": INPUT_SIDE, "width": INPUT_SIDE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
    }
    with open(os.path.join(folder, "preprocessor_config.json"), "w", encoding="utf-8") as file:
        json.dump(preprocessor, file, indent=2)
        file.write("\n")
