"""Loading without copies, and pictures that repeat."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import SDXL_FILES, read_tensors, run_python, write_segment
from lockstep.diffusers.errors import Cancelled, TaskFailed
from lockstep.diffusers.pipeline import SCHEDULERS, generate, load_pipeline
from lockstep.diffusers.segments import Segment

PARAMETERS = dict(prompt="a red fox", negative_prompt="", width=64, height=64, steps=3, guidance_scale=5.0)


def _segments(models, model="p", convert=lambda tensors: tensors):
    made = {}
    for name, file in SDXL_FILES.items():
        made[name] = Segment(*write_segment(convert(read_tensors(models / "tiny-sdxl" / file)), model, name))
    return made


def _digest(image) -> str:
    return hashlib.sha256(image).hexdigest()


def test_every_parameter_and_stored_buffer_is_a_view(models):
    segments = _segments(models)
    seen = []
    pipe = load_pipeline(str(models / "tiny-sdxl"), segments, "cpu", seen.append)
    assert seen == ["unet", "vae", "text_encoder", "text_encoder_2"]
    count = 0
    for name, segment in segments.items():
        module = getattr(pipe, name)
        assert not module.training
        views = segment.tensors()
        tensors = dict(module.named_parameters())
        assert len(tensors) == len(views)
        for parameter in tensors.values():
            assert segment.contains(parameter) and not parameter.requires_grad
            count += 1
        for buffer in module.buffers():
            assert buffer.device.type == "cpu"
    assert count > 300
    generate(pipe, seed=1, **PARAMETERS)
    for name, segment in segments.items():
        assert all(segment.contains(parameter) for parameter in getattr(pipe, name).parameters())


def test_same_seed_same_bytes_other_seed_or_prompt_other_bytes(pipe):
    first = generate(pipe, seed=7, **PARAMETERS)
    assert first.dtype == np.uint8 and first.shape == (64, 64, 3) and first.flags.c_contiguous
    assert _digest(first) == _digest(generate(pipe, seed=7, **PARAMETERS))
    other_seed = generate(pipe, seed=8, **PARAMETERS)
    other_prompt = generate(pipe, seed=7, **{**PARAMETERS, "prompt": "blue sea at night"})
    other_negative = generate(pipe, seed=7, **{**PARAMETERS, "negative_prompt": "clouds"})
    largest = generate(pipe, seed=2**64 - 1, **PARAMETERS)
    assert len({_digest(image) for image in (first, other_seed, other_prompt, other_negative, largest)}) == 5
    # The prompt is visible, not only measurable.
    assert np.abs(first.astype(int) - other_prompt).mean() > 5


# §1.5 "Model-specific inference configuration": each is another way to the picture, and each repeats.
def test_every_scheduler_works_repeats_and_leaves_the_models_own(pipe):
    own = pipe.scheduler
    digests = {name: {_digest(generate(pipe, seed=7, scheduler=name, **PARAMETERS)) for _ in range(2)}
               for name in ("", *SCHEDULERS)}
    assert all(len(each) == 1 for each in digests.values()), digests
    assert pipe.scheduler is own
    # The tiny model comes with Euler: named or not, it is the same picture; the others differ.
    assert digests[""] == digests["euler_discrete"]
    assert len({digest for each in digests.values() for digest in each}) == len(SCHEDULERS)
    assert _digest(generate(pipe, seed=8, scheduler="euler_ancestral_discrete", **PARAMETERS)) not in {
        digest for each in digests.values() for digest in each}
    with pytest.raises(TaskFailed, match="scheduler is 'lcm'; it can be euler_discrete") as failure:
        generate(pipe, seed=7, scheduler="lcm", **PARAMETERS)
    assert failure.value.code == "invalid_argument" and pipe.scheduler is own


def test_a_failed_run_gives_the_models_own_scheduler_back(pipe):
    own = pipe.scheduler
    with pytest.raises(Cancelled):
        generate(pipe, seed=7, scheduler="ddim", is_cancelled=iter([False, True]).__next__, **PARAMETERS)
    assert pipe.scheduler is own


def test_same_bytes_in_two_other_processes_from_files_and_from_segments(models, pipe):
    """The reference is the libraries' own loading in other processes (bare)."""
    arguments = ["--prompt", "a red fox", "--size", "64x64", "--steps", "3", "--seed", "7", "--json"]
    digests = set()
    with ThreadPoolExecutor() as pool:
        command = ("-m", "lockstep.diffusers.bare", str(models), *arguments)
        runs = [pool.submit(run_python, *command) for _ in range(2)]
    for run in runs:
        done = run.result()
        assert done.returncode == 0, done.stderr
        digests.add(json.loads(done.stdout)["sha256"])
    assert digests == {_digest(generate(pipe, seed=7, **PARAMETERS))}


def test_other_sizes(pipe):
    image = generate(pipe, seed=1, **{**PARAMETERS, "width": 96, "height": 72})
    assert image.shape == (72, 96, 3)


def test_steps_are_reported(pipe):
    reports = []
    generate(pipe, seed=1, on_step=lambda *report: reports.append(report), **PARAMETERS)
    assert [report[:2] for report in reports] == [(1, 3), (2, 3), (3, 3)]
    assert all(0 < report[2] < 60 for report in reports)


def test_cancelled_before_the_start_and_after_a_step(pipe):
    steps = []
    with pytest.raises(Cancelled):
        generate(pipe, seed=1, on_step=lambda *r: steps.append(r), is_cancelled=lambda: True, **PARAMETERS)
    assert steps == []
    with pytest.raises(Cancelled, match="after step 2 of 3"):
        generate(
            pipe, seed=1, on_step=lambda *r: steps.append(r), is_cancelled=lambda: len(steps) == 2, **PARAMETERS
        )
    before = _digest(generate(pipe, seed=7, **PARAMETERS))
    assert before == _digest(generate(pipe, seed=7, **PARAMETERS))


@pytest.mark.parametrize(
    "change, word",
    [
        ({"width": 65}, "width"),
        ({"height": 0}, "height"),
        ({"height": 8192}, "height"),
        ({"width": 64.0}, "width"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": None}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_parameters_out_of_range_are_named(pipe, change, word):
    with pytest.raises(TaskFailed, match=word) as failure:
        generate(pipe, **{"seed": 1, **PARAMETERS, **change})
    assert failure.value.code == "invalid_argument"


def test_half_precision_weights_stay_views_after_the_decoder_was_widened(models):
    segments = _segments(
        models, "half", lambda tensors: {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    )
    pipe = load_pipeline(str(models / "tiny-sdxl"), segments, "cpu")
    first = generate(pipe, seed=1, **PARAMETERS)
    assert pipe.vae.dtype == torch.float16
    assert all(segments["vae"].contains(parameter) for parameter in pipe.vae.parameters())
    assert _digest(first) == _digest(generate(pipe, seed=1, **PARAMETERS))


def test_older_spellings_of_the_weights_load(models):
    def older(tensors):
        if "final_layer_norm.weight" in tensors:
            tensors = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
        if "text_model.final_layer_norm.weight" in tensors:
            tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
        if "encoder.conv_in.weight" in tensors:
            for new, old in names.items():
                tensors = {
                    name.replace(new, old) if ".attentions." in name else name: tensor
                    for name, tensor in tensors.items()
                }
        return tensors

    pipe = load_pipeline(str(models / "tiny-sdxl"), _segments(models, "old", older), "cpu")
    now = load_pipeline(str(models / "tiny-sdxl"), _segments(models, "now"), "cpu")
    assert _digest(generate(pipe, seed=1, **PARAMETERS)) == _digest(generate(now, seed=1, **PARAMETERS))


def _copy(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models / "tiny-sdxl", folder)
    for name in SDXL_FILES.values():
        (folder / name).unlink()
    return folder


def test_weight_files_are_not_needed_and_not_read(models, tmp_path):
    folder = _copy(models, tmp_path)
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"not a pickle")
    load_pipeline(str(folder), _segments(models), "cpu")


def test_weights_that_do_not_fit_are_refused(models):
    def fewer(tensors):
        return {name: tensor for name, tensor in tensors.items() if name != "conv_in.bias"}

    def shorter(tensors):
        return {name: tensor[:1] if name == "conv_in.bias" else tensor for name, tensor in tensors.items()}

    for damage, sentence in ((fewer, "1 tensors missing .*conv_in.bias"), (shorter, "conv_in.bias")):
        with pytest.raises(TaskFailed, match=sentence) as failure:
            load_pipeline(str(models / "tiny-sdxl"), _segments(models, "bad", damage), "cpu")
        assert failure.value.code == "data_loss"


def test_a_buffer_that_nobody_knows_is_a_clear_failure():
    from lockstep.diffusers.assign import assign

    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
        module.register_buffer("table", torch.zeros(3), persistent=False)
    segment = Segment(*write_segment({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}))
    with pytest.raises(TaskFailed, match="table, which no file carries"):
        assign(module, segment, "cpu", "part")


@pytest.mark.parametrize("missing", ["model_index.json", "unet/config.json", "scheduler"])
def test_folders_that_are_not_whole_are_refused(models, tmp_path, missing):
    folder = _copy(models, tmp_path)
    target = folder / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises((TaskFailed, OSError)):
        load_pipeline(str(folder), _segments(models), "cpu")


def test_other_classes_are_refused(models, tmp_path):
    folder = _copy(models, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    for change, sentence in (
        ({"_class_name": "FluxPipeline"}, "the model is a FluxPipeline"),
        ({"unet": ["mine", "Evil"]}, "unet is a Evil"),
        ({"unet": None}, "names no class for unet"),
        ({"scheduler": ["os", "StableDiffusionXLPipeline"]}, "is no scheduler"),
    ):
        (folder / "model_index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(TaskFailed, match=sentence):
            load_pipeline(str(folder), _segments(models), "cpu")
    with pytest.raises(TaskFailed, match="components unet given"):
        load_pipeline(str(models / "tiny-sdxl"), {"unet": _segments(models)["unet"]}, "cpu")
