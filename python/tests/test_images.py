"""PNG files and the quality figures."""

import io
import json

import numpy as np
import pytest
from lockstep.diffusers import images
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.images import decode, decode_png, encode, encode_png, read_chunks, read_exif
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


CHOICES = [(format, quality) for format, qualities in images.QUALITIES.items() for quality in qualities]


@pytest.mark.parametrize("format, quality", CHOICES)
def test_every_format_and_quality_keeps_the_picture_and_its_texts(format, quality):
    metadata = {"request_id": "r1", "text": "Füchse 狐"}
    data = encode(PICTURE, format, quality, "狐 fox", metadata)
    assert data == encode(PICTURE.copy(), format, quality, "狐 fox", dict(reversed(metadata.items())))
    with Image.open(io.BytesIO(data)) as file:
        assert (file.format, file.size) == (format.upper(), (40, 30))
    texts = read_chunks(data) if format == "png" else read_exif(data)
    assert texts["parameters"] == "狐 fox" and json.loads(texts["lockstep"]) == metadata
    error = np.abs(decode(data).astype(int) - PICTURE).mean()
    assert error == 0 if quality == "lossless" else 0 < error < 20


def test_a_lower_quality_is_a_smaller_file_further_from_the_picture():
    picture = planted_safe_image(256, 256)
    for format, order in (("jpeg", ("high", "medium", "low")), ("webp", ("lossless", "high", "medium", "low"))):
        files = [encode(picture, format, quality) for quality in order]
        sizes = [len(file) for file in files]
        errors = [((decode(file).astype(int) - picture) ** 2).mean() for file in files]
        assert sizes[1:] == sorted(sizes[1:], reverse=True) and errors == sorted(errors), (format, sizes, errors)


def test_texts_that_a_jpeg_has_no_room_for_are_left_out():
    metadata = {"request_id": "r1", "inference_parameters": {"prompt": "x" * 40_000}}
    texts = read_exif(encode(PICTURE, "jpeg", "high", "x" * 40_000, metadata))
    assert set(texts) == {"lockstep"} and json.loads(texts["lockstep"]) == metadata
    metadata["inference_parameters"]["negative_prompt"] = "y" * 40_000
    assert json.loads(read_exif(encode(PICTURE, "jpeg", "high", "x", metadata))["lockstep"]) == {"request_id": "r1"}
    assert json.loads(read_exif(encode(PICTURE, "webp", "high", "x", metadata))["lockstep"]) == metadata


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
