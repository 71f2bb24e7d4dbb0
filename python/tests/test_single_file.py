"""A checkpoint in one file gives the pictures of the folder it was written from, without a copy."""

import pytest
import torch
from conftest import SDXL_FILES, read_tensors, write_segment
from lockstep.diffusers import tiny_single_file
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.pipeline import generate, load_pipeline
from lockstep.diffusers.segments import Segment

PARAMETERS = dict(prompt="a red fox", negative_prompt="", width=64, height=64, steps=3, guidance_scale=5.0, seed=7)


@pytest.fixture(scope="module")
def weights(models, tmp_path_factory):
    file = tmp_path_factory.mktemp("single") / "one.safetensors"
    tiny_single_file.write(str(models / "tiny-sdxl"), str(file))
    return read_tensors(file)


def _load(models, weights):
    segment = Segment(*write_segment(weights, "one", "checkpoint"))
    return load_pipeline(str(models / "tiny-sdxl"), {"checkpoint": segment}, "cpu"), segment


def test_weights_and_picture_are_those_of_the_folder(models, weights):
    folder = {
        name: Segment(*write_segment(read_tensors(models / "tiny-sdxl" / file), "p", name))
        for name, file in SDXL_FILES.items()
    }
    wanted = load_pipeline(str(models / "tiny-sdxl"), folder, "cpu")
    pipe, _ = _load(models, weights)
    for name in SDXL_FILES:
        given, expected = getattr(pipe, name).state_dict(), getattr(wanted, name).state_dict()
        assert given.keys() == expected.keys()
        assert all(torch.equal(given[key], expected[key]) for key in expected)
    # One matrix is a transposed view, and its product is summed in another order: a last digit may differ.
    difference = generate(pipe, **PARAMETERS).astype(int) - generate(wanted, **PARAMETERS).astype(int)
    assert abs(difference).max() <= 1


def test_every_parameter_is_a_view(models, weights):
    pipe, segment = _load(models, weights)
    parameters = [each for name in SDXL_FILES for each in getattr(pipe, name).parameters()]
    assert len(parameters) > 300 and all(segment.contains(each) for each in parameters)


def test_a_missing_tensor_is_data_loss_with_its_place(models, weights):
    less = {name: tensor for name, tensor in weights.items() if "input_blocks.1.0.in_layers.2.bias" not in name}
    with pytest.raises(TaskFailed, match="weights of unet do not fit") as caught:
        _load(models, less)
    assert caught.value.code == "data_loss"
