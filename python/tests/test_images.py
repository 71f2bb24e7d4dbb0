"""PNG files and the quality figures."""

import io
import json

import numpy as np
import pytest
from lockstep.diffusers import images
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.images import decode_png, encode_png, read_chunks
from lockstep.diffusers.planted import planted_safe_image
from lockstep.diffusers.quality import (
    enhancement_effectiveness,
    result_quality_score,
    technical_quality,
    visual_quality,
)
from PIL import Image

PICTURE = planted_safe_image(40, 30)
PARAMETERS = "a red fox\nNegative prompt: clouds\nSteps: 4, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 40x30"


def test_round_trip_with_chunks():
    metadata = {"request_id": "r1", "worker": {"device": "cpu"}, "text": "Füchse 狐"}
    data = encode_png(PICTURE, PARAMETERS, metadata)
    assert np.array_equal(decode_png(data), PICTURE)
    chunks = read_chunks(data)
    assert chunks["parameters"] == PARAMETERS and json.loads(chunks["lockstep"]) == metadata


def test_text_of_other_scripts():
    assert read_chunks(encode_png(PICTURE, "狐 fox"))["parameters"] == "狐 fox"
    assert read_chunks(encode_png(PICTURE, "Füchse"))["parameters"] == "Füchse"


def test_equal_pictures_give_equal_bytes_and_no_time():
    first = encode_png(PICTURE, PARAMETERS, {"b": 1, "a": 2})
    assert first == encode_png(PICTURE.copy(), PARAMETERS, {"a": 2, "b": 1})
    assert b"tIME" not in first
    assert read_chunks(encode_png(PICTURE)) == {}


def test_damaged_files_are_refused():
    data = encode_png(PICTURE)
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    jpeg = io.BytesIO()
    Image.fromarray(PICTURE).save(jpeg, "JPEG")
    for damaged in (b"", b"no picture", data[: len(data) // 2], flipped, jpeg.getvalue()):
        with pytest.raises(TaskFailed) as failure:
            decode_png(damaged)
        assert failure.value.code == "data_loss"


def test_large_pictures_are_refused_before_they_are_unpacked(monkeypatch):
    monkeypatch.setattr(images, "MAX_SIDE", 39)
    with pytest.raises(TaskFailed, match="40x30") as failure:
        decode_png(encode_png(PICTURE))
    assert failure.value.code == "invalid_argument"
    monkeypatch.setattr(images, "MAX_SIDE", 100)
    monkeypatch.setattr(images, "MAX_PIXELS", 1199)
    with pytest.raises(TaskFailed, match="40x30"):
        decode_png(encode_png(PICTURE))


def test_transparency_is_dropped():
    file = io.BytesIO()
    Image.fromarray(PICTURE).convert("RGBA").save(file, "PNG")
    assert np.array_equal(decode_png(file.getvalue()), PICTURE)


def test_quality_tells_flat_and_clipped_pictures_from_good_ones():
    grey = np.full((64, 64, 3), 128, np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    good = planted_safe_image(64, 64)
    noise = np.random.default_rng(0).integers(1, 255, (64, 64, 3), np.uint8)
    assert technical_quality(black) == 0 and technical_quality(grey) == 6
    assert technical_quality(good) > 8 > technical_quality(grey)
    assert visual_quality(grey) == 0 == visual_quality(black)
    assert visual_quality(noise) > visual_quality(good) > 3
    assert result_quality_score(good) == pytest.approx((technical_quality(good) + visual_quality(good)) / 2, abs=0.006)
    for picture in (grey, black, good, noise, np.zeros((1, 1, 3), np.uint8)):
        for measure in (technical_quality, visual_quality, result_quality_score):
            assert 0 <= measure(picture) <= 10


def test_effectiveness_needs_both_more_pixels_and_the_same_picture():
    source = planted_safe_image(32, 32)
    fourfold = source.repeat(4, axis=0).repeat(4, axis=1)
    assert enhancement_effectiveness(source, fourfold) == pytest.approx(10 * 15 / 16, abs=0.01)
    assert enhancement_effectiveness(source, source) == 0
    assert enhancement_effectiveness(source, 255 - fourfold) == 0
    assert enhancement_effectiveness(source, fourfold[:-1]) == 0
