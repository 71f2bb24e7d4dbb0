"""The enlarged picture resembles its source, whatever the tiles; the weights are views."""

import numpy as np
import pytest
import torch
from conftest import read_tensors, write_segment
from lockstep.diffusers.errors import Cancelled, TaskFailed
from lockstep.diffusers.planted import planted_safe_image
from lockstep.diffusers.segments import Segment
from lockstep.diffusers.upscale import load_upscaler, upscale
from PIL import Image


def _psnr(a, b) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def _segment(models, change=lambda tensors: tensors):
    return Segment(*write_segment(change(read_tensors(models / "tiny-esrgan-x4/model.safetensors")), "u", "model"))


def test_it_is_recognised_and_holds_no_copies(models):
    segment = _segment(models)
    model = load_upscaler(segment, "cpu")
    assert (model.architecture.id, model.scale) == ("ESRGAN", 4)
    parameters = list(model.model.parameters())
    assert len(parameters) == len(segment.tensors())
    assert all(segment.contains(parameter) and not parameter.requires_grad for parameter in parameters)
    # The loading is the only time when modules take tensors over instead of copying them.
    plain = torch.nn.Linear(1, 1)
    own = plain.weight.data_ptr()
    plain.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})
    assert plain.weight.data_ptr() == own


def test_the_result_resembles_the_source(upscaler):
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    blobs = np.array(Image.fromarray(noise).resize((120, 80), Image.BICUBIC))
    for image in (planted_safe_image(120, 80), blobs, np.full((33, 47, 3), 200, np.uint8)):
        enlarged = upscale(upscaler, image)
        height, width = image.shape[:2]
        assert enlarged.shape == (4 * height, 4 * width, 3) and enlarged.dtype == np.uint8
        bilinear = np.array(Image.fromarray(image).resize((4 * width, 4 * height), Image.BILINEAR))
        assert _psnr(enlarged, bilinear) > 35
        averaged = enlarged.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
        assert np.abs(averaged - image).mean() < 3
        # The network takes part: it is not bilinear enlargement itself.
        assert not np.array_equal(enlarged, bilinear)


def test_tiles_do_not_show(upscaler, monkeypatch):
    """A picture of several tiles equals the one that is worked in one piece, to one grey level."""
    import lockstep.diffusers.upscale as module

    image = planted_safe_image(150, 70)
    whole = upscale(upscaler, image)
    reports = []
    monkeypatch.setattr(module, "TILE", 64)
    tiled = upscale(upscaler, image, reports.append)
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert len(reports) == 6 and reports == sorted(reports) and reports[-1] == 100.0


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (257, 3)])
def test_small_and_thin_pictures(upscaler, size):
    image = planted_safe_image(*size)
    assert upscale(upscaler, image).shape == (size[1] * 4, size[0] * 4, 3)


def test_cancelled_between_tiles(upscaler, monkeypatch):
    import lockstep.diffusers.upscale as module

    monkeypatch.setattr(module, "TILE", 32)
    reports = []
    with pytest.raises(Cancelled, match="after 2 of 4 tiles"):
        upscale(upscaler, planted_safe_image(64, 64), reports.append, lambda: len(reports) == 2)


def test_what_is_no_x4_upscaler_is_refused(models):
    with pytest.raises(TaskFailed, match="no known upscaler") as failure:
        load_upscaler(_segment(models, lambda tensors: {"x": torch.zeros(1)}), "cpu")
    assert failure.value.code == "data_loss"

    def x2(tensors):
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("conv_up2")}

    with pytest.raises(TaskFailed, match="x2; RGB at x4"):
        load_upscaler(_segment(models, x2), "cpu")
