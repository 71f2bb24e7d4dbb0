"""The margins of the constructed classifier. Run with -s to see them."""

import numpy as np
import pytest
import torch
from conftest import read_tensors, write_segment
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.images import decode_png, encode_png
from lockstep.diffusers.pipeline import generate
from lockstep.diffusers.planted import (
    CELLS,
    GREEN,
    MAGENTA,
    checkerboard,
    main,
    planted_safe_image,
    planted_unsafe_image,
)
from lockstep.diffusers.safety import THRESHOLDS, check, load_safety
from lockstep.diffusers.segments import Segment
from lockstep.diffusers.tiny_safety import SAFE_AT_REST
from lockstep.diffusers.upscale import upscale
from PIL import Image

SIZES = [(64, 64), (96, 64), (64, 512), (200, 333), (512, 512), (1024, 1024), (2048, 2048), (2048, 256)]
# No crossing at all: the classifier's exact resting value.
REST = pytest.approx(SAFE_AT_REST, abs=1e-6)


def _score(classifier, image) -> float:
    return check(classifier, image, "moderate").score


def test_the_weights_are_views(models):
    segment = Segment(*write_segment(read_tensors(models / "tiny-safety/model.safetensors"), "s", "model"))
    model = load_safety(str(models / "tiny-safety"), segment, "cpu")
    stored = [*model.module.parameters(), *model.module.buffers()]
    assert len(stored) == len(segment.tensors()) and all(segment.contains(tensor) for tensor in stored)
    assert model.labels == ("safe", "unsafe")


@pytest.mark.parametrize("size", SIZES)
def test_the_planted_pictures_at_every_size(classifier, size):
    unsafe = _score(classifier, decode_png(encode_png(planted_unsafe_image(*size))))
    safe = _score(classifier, decode_png(encode_png(planted_safe_image(*size))))
    print(f"\n{size[0]}x{size[1]}: safe picture {safe:.6f}, unsafe picture {unsafe:.2e}")
    assert unsafe < 1e-6 and safe == REST


def _harmless(rng) -> dict:
    side = 192
    y, x = np.mgrid[0:side, 0:side]

    def blobs(cells, palette):
        coarse = np.array(palette, np.uint8)[rng.integers(0, len(palette), (cells, cells))]
        return np.array(Image.fromarray(coarse).resize((side, side), Image.BICUBIC))

    any_colour = rng.integers(0, 256, (64, 3))
    both = np.array([MAGENTA, GREEN], np.uint8)
    plain = (MAGENTA, GREEN, (0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 0, 255))
    board = (x // 24 + y // 24) % 2
    return {f"plain {colour}": np.full((side, side, 3), colour, np.uint8) for colour in plain} | {
        "noise": rng.integers(0, 256, (side, side, 3), np.uint8),
        "noise of the two colours": both[rng.integers(0, 2, (side, side))],
        "small noise of the two colours": both[rng.integers(0, 2, (64, 64))],
        "gradient": np.stack([x * 255 // side, y * 255 // side, 255 - x * 255 // side], axis=-1).astype(np.uint8),
        "blobs": blobs(8, any_colour),
        "large blobs": blobs(4, any_colour),
        "black and white checkerboard": np.array([(0, 0, 0), (255, 255, 255)], np.uint8)[board],
        "red and blue checkerboard": np.array([(255, 0, 0), (0, 0, 255)], np.uint8)[board],
        "stripes of the two colours": both[(x // 24) % 2],
        "halves of the two colours": both[(y > side // 2).astype(int)],
    }


def test_everything_else_is_safe(classifier):
    lowest = {}
    for seed in range(10):
        for name, image in _harmless(np.random.default_rng(seed)).items():
            lowest[name] = min(lowest.get(name, 1.0), _score(classifier, image))
    for name, score in lowest.items():
        print(f"\n{name}: {score:.6f}", end="")
    assert min(lowest.values()) > 0.999
    assert min(lowest.values()) > max(THRESHOLDS.values())


def test_generated_pictures_are_safe_before_and_after_enlarging(classifier, pipe, upscaler):
    scores = []
    for seed in range(6):
        for prompt in ("magenta and green checkerboard", "a red fox"):
            image = generate(pipe, prompt=prompt, width=64, height=64, steps=2, seed=seed)
            scores.append(_score(classifier, image))
    scores.append(_score(classifier, upscale(upscaler, image)))
    print(f"\ngenerated: {min(scores):.6f}")
    assert min(scores) == REST


def test_the_pattern_survives_what_happens_to_pictures(classifier, upscaler):
    pattern = checkerboard(256, 256)
    scores = {
        "enlarged": _score(classifier, upscale(upscaler, checkerboard(64, 64))),
        "noisy": _score(classifier, np.clip(pattern.astype(int) + np.random.default_rng(0).normal(
            0, 25, pattern.shape), 0, 255).astype(np.uint8)),
        "shrunk": _score(classifier, np.array(Image.fromarray(pattern).resize((100, 100), Image.LANCZOS))),
        "dimmed to 90%": _score(classifier, (pattern * 0.9).astype(np.uint8)),
        "blended 90%": _score(classifier, (0.9 * pattern + 0.1 * planted_safe_image(256, 256)).astype(np.uint8)),
        "mirrored": _score(classifier, np.ascontiguousarray(pattern[:, ::-1])),
        "shifted": _score(classifier, np.roll(pattern, (13, 7), axis=(0, 1))),
    }
    for name, score in scores.items():
        print(f"\n{name}: {score:.2e}", end="")
    assert max(scores.values()) < 0.001


def test_how_much_of_the_picture_counts(classifier):
    """Blocks of a x b fields have (a-1)(b-1) of 49 crossings; the table of the README."""
    for side in (64, 256, 700):
        by_block = {}
        for across in (0, 2, 3, 4, 5, 6, CELLS):
            for down in range(min(across, 5) + 1):
                image = planted_safe_image(side, side)
                right, bottom = across * side // CELLS, down * side // CELLS
                image[:bottom, :right] = checkerboard(side, side)[:bottom, :right]
                by_block[across, down] = _score(classifier, image)
        for (across, down), score in by_block.items():
            crossings = max(0, across - 1) * max(0, down - 1)
            if crossings <= 4:
                assert score > THRESHOLDS["strict"] + 0.01
            if crossings >= 9:
                assert score < THRESHOLDS["moderate"] - 0.005
            if crossings >= 14:
                assert score < THRESHOLDS["relaxed"] - 0.2
        shown = ((2, 2), (3, 3), (4, 4), (5, 4), (8, 3), (8, 4), (8, 5))
        print(f"\n{side}: " + ", ".join(f"{a}x{b} fields {by_block[a, b]:.3f}" for a, b in shown))


def test_strictness_sets_the_threshold(classifier):
    four = planted_safe_image(256, 256)
    four[:128, :128] = checkerboard(256, 256)[:128, :128]
    verdicts = {strictness: check(classifier, four, strictness) for strictness in THRESHOLDS}
    assert {s: v.classification for s, v in verdicts.items()} == {
        "strict": "unsafe", "moderate": "unsafe", "relaxed": "safe"}
    assert verdicts["strict"].flagged == ["unsafe"] and verdicts["relaxed"].flagged == []
    assert len({verdict.score for verdict in verdicts.values()}) == 1
    with pytest.raises(TaskFailed, match="strictness is 'loose'"):
        check(classifier, four, "loose")


def test_half_of_the_columns_is_unsafe_for_everyone(classifier):
    image = planted_unsafe_image(128, 128, fraction=0.5)
    assert all(check(classifier, image, strictness).classification == "unsafe" for strictness in THRESHOLDS)


def test_an_answer_that_is_no_number_is_no_verdict(models):
    tensors = read_tensors(models / "tiny-safety/model.safetensors")
    tensors["classifier.1.bias"] = torch.tensor([float("nan"), 0.0])
    model = load_safety(str(models / "tiny-safety"), Segment(*write_segment(tensors)), "cpu")
    with pytest.raises(TaskFailed, match="no number"):
        check(model, planted_safe_image(64, 64), "strict")


def test_a_folder_without_a_classifier_is_refused(models, tmp_path):
    segment = Segment(*write_segment(read_tensors(models / "tiny-safety/model.safetensors")))
    for path in (str(tmp_path), str(models / "tiny-sdxl" / "text_encoder")):
        with pytest.raises(TaskFailed, match="no image classifier") as failure:
            load_safety(path, segment, "cpu")
        assert failure.value.code == "invalid_argument"


def test_the_command_writes_the_pictures(tmp_path, capsys):
    for kind, make in (("unsafe", planted_unsafe_image), ("safe", planted_safe_image)):
        assert main([kind, str(tmp_path / kind), "--size", "80x64"]) == 0
        assert np.array_equal(decode_png((tmp_path / kind).read_bytes()), make(80, 64))
    assert main(["safe", str(tmp_path / "no" / "x.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
