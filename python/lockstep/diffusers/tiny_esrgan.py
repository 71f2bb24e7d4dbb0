"""A small x4 RRDB network that enlarges sensibly without training.

Three of its features carry the colours unchanged through the trunk; each of the two doublings
smooths them, which together is close to bilinear enlargement. The other features and the residual
blocks have small seeded weights, so the whole network takes part in the result.
"""

import json
import os

import torch
from safetensors.torch import save_file

SEED = 20250713
SCALE = 4
FEATURES = 8
BLOCKS = 1
# Width of the dense connections; the readers of these files take it as given.
GROWTH = 32
# Size of the random part relative to the usual initialisation.
RESIDUAL = 0.01


def _random(generator: torch.Generator, out: int, into: int) -> torch.Tensor:
    """A seeded (out, into, 3, 3) kernel of standard deviation RESIDUAL / sqrt(fan-in)."""
    return torch.randn((out, into, 3, 3), generator=generator) * (RESIDUAL / (9 * into) ** 0.5)


def _carry(out: int, into: int, channels: int, kernel: torch.Tensor) -> torch.Tensor:
    """An (out, into, 3, 3) kernel that applies `kernel` to each of the first channels alone."""
    weight = torch.zeros((out, into, 3, 3))
    for channel in range(channels):
        weight[channel, channel] = kernel
    return weight


def state_dict() -> dict[str, torch.Tensor]:
    """Return the network's tensors under the names that Real-ESRGAN files use, float32."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    keep = torch.zeros((3, 3))
    keep[1, 1] = 1.0
    line = torch.tensor([1.0, 2.0, 1.0]) / 4.0
    smooth = torch.outer(line, line)
    n = FEATURES
    weights = {"conv_first.weight": _carry(n, 3, 3, keep)}
    weights["conv_first.weight"][3:] = torch.randn((n - 3, 3, 3, 3), generator=generator) * (0.3 / 27**0.5)
    for block in range(BLOCKS):
        for dense in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                out = n if conv == 5 else GROWTH
                into = n + (conv - 1) * GROWTH
                # The inner layers at full size, the last one scaled down: a residual that is small but alive.
                gain = 1.0 if conv == 5 else 1.0 / RESIDUAL
                weights[f"body.{block}.rdb{dense}.conv{conv}.weight"] = gain * _random(generator, out, into)
    weights["conv_body.weight"] = _random(generator, n, n)
    weights["conv_up1.weight"] = _carry(n, n, n, smooth)
    weights["conv_up2.weight"] = _carry(n, n, n, smooth)
    weights["conv_hr.weight"] = _carry(n, n, n, keep)
    weights["conv_last.weight"] = _carry(3, n, 3, keep)
    weights["conv_last.weight"][:, 3:] = _random(generator, 3, n - 3)
    biases = {name.replace(".weight", ".bias"): torch.zeros(weight.shape[0]) for name, weight in weights.items()}
    return weights | biases


def write(folder: str) -> None:
    """Write the model into the empty folder `folder`; the same bytes each time."""
    save_file(state_dict(), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "lockstep_model.json"), "w", encoding="utf-8") as file:
        json.dump({"kind": "upscaler", "scale": SCALE}, file)
        file.write("\n")
