"""Enlarging by a network whose weights are views of a segment."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from .errors import DATA_LOSS, INTERNAL, INVALID_ARGUMENT, Cancelled, TaskFailed
from .segments import Segment

SCALE = 4
TILE = 256
OVERLAP = 16


@contextlib.contextmanager
def _assigning():
    """Within, load_state_dict makes the given tensors the parameters instead of copying them.

    The reader of upscaler files loads the weights itself, after renaming them in ways that differ
    by architecture; this is the one place where that copy can be avoided for all of them.
    """
    original = torch.nn.Module.load_state_dict

    def load_state_dict(self, state_dict, strict=True, assign=True):
        return original(self, state_dict, strict=strict, assign=True)

    torch.nn.Module.load_state_dict = load_state_dict
    try:
        yield
    finally:
        torch.nn.Module.load_state_dict = original


def check_upscaler(model) -> None:
    """Raise TaskFailed(invalid_argument) unless the model turns RGB into RGB four times as wide."""
    if (model.scale, model.input_channels, model.output_channels) != (SCALE, 3, 3):
        raise TaskFailed(
            INVALID_ARGUMENT,
            f"the upscaler turns {model.input_channels} channels into {model.output_channels} at x{model.scale};"
            f" RGB at x{SCALE} is needed",
        )


def load_upscaler(segment: Segment, device: str):
    """Return the model descriptor of the network in `segment`; its parameters are views of it.

    Architecture and scale are recognised from the tensors. Raises TaskFailed: data_loss when no
    architecture fits, invalid_argument when it is no x4 RGB upscaler, internal when a parameter
    would be a copy.
    """
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        with _assigning():
            model = ModelLoader(device=device).load_from_state_dict(segment.tensors(device))
    except (UnsupportedModelError, RuntimeError, KeyError) as error:
        raise TaskFailed(DATA_LOSS, f"the weights are of no known upscaler: {error}") from None
    if not isinstance(model, ImageModelDescriptor):
        raise TaskFailed(INVALID_ARGUMENT, "the weights are of a network that needs a mask")
    check_upscaler(model)
    model.model.eval().requires_grad_(False)
    for name, parameter in model.model.named_parameters():
        if parameter.numel() and not segment.contains(parameter):
            raise TaskFailed(INTERNAL, f"the upscaler's {name} is not a view of the segment")
    return model


def upscale(
    model,
    image: np.ndarray,
    on_progress: Callable[[float], None] = lambda percent: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return `image` (height, width, 3; uint8) enlarged to exactly four times each side.

    Works in tiles of TILE pixels with OVERLAP more on each side, so memory does not grow with the
    picture's size but for the result itself; beyond the picture's edges the tiles see its mirror
    image. `on_progress` gets 0..100 after each tile. Raises Cancelled between tiles,
    TaskFailed(internal) for a network whose output has another size.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise TaskFailed(INVALID_ARGUMENT, f"cannot enlarge an array of {image.dtype} with shape {image.shape}")
    height, width = image.shape[:2]
    parameter = next(model.model.parameters())
    # "symmetric" also mirrors pictures that are smaller than the overlap.
    padded = np.pad(image, ((OVERLAP, OVERLAP), (OVERLAP, OVERLAP), (0, 0)), mode="symmetric")
    result = np.empty((height * SCALE, width * SCALE, 3), np.uint8)
    corners = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]
    for done, (top, left) in enumerate(corners):
        if is_cancelled():
            raise Cancelled(f"the task was cancelled after {done} of {len(corners)} tiles")
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        tile = padded[top : top + rows + 2 * OVERLAP, left : left + columns + 2 * OVERLAP]
        tensor = torch.from_numpy(np.ascontiguousarray(tile)).to(parameter.device)
        enlarged = model(tensor.permute(2, 0, 1)[None].to(parameter.dtype) / 255)[0]
        if enlarged.shape != (3, tile.shape[0] * SCALE, tile.shape[1] * SCALE):
            raise TaskFailed(INTERNAL, f"the upscaler made {tuple(enlarged.shape)} of {tile.shape}")
        start = OVERLAP * SCALE
        inner = enlarged[:, start : start + rows * SCALE, start : start + columns * SCALE]
        pixels = inner.float().mul(255).round_().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        result[top * SCALE : (top + rows) * SCALE, left * SCALE : (left + columns) * SCALE] = pixels
        on_progress(100.0 * (done + 1) / len(corners))
    return result
