"""The tiny models: what is written, that it is the same each time, and that failures are told."""

import hashlib
import json
from pathlib import Path

import numpy as np
from lockstep.diffusers import make_tiny


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_three_models_are_there_and_told_apart(models):
    assert sorted(path.name for path in models.iterdir()) == ["tiny-esrgan-x4", "tiny-safety", "tiny-sdxl"]
    index = json.loads((models / "tiny-sdxl/model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert not (models / "tiny-esrgan-x4/config.json").exists()
    assert json.loads((models / "tiny-esrgan-x4/lockstep_model.json").read_text()) == {"kind": "upscaler", "scale": 4}
    config = json.loads((models / "tiny-safety/config.json").read_text())
    assert config["id2label"] == {"0": "safe", "1": "unsafe"}
    assert not [path for path in models.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]


def test_writing_twice_gives_identical_bytes(models, tmp_path, capsys):
    assert make_tiny.main([str(tmp_path)]) == 0
    assert _digests(tmp_path) == _digests(models)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [[name, kind] for name, kind in make_tiny.MODELS.items()]
    for name, _, total in lines:
        assert int(total) == sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file())


def test_an_existing_model_is_kept_unless_forced(tmp_path, capsys):
    (tmp_path / "tiny-safety").mkdir()
    mark = tmp_path / "tiny-safety" / "mine"
    mark.write_text("mine")
    assert make_tiny.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "tiny-safety" in error and "--force" in error and error.count("\n") == 1
    assert mark.exists() and [path.name for path in tmp_path.iterdir()] == ["tiny-safety"]
    make_tiny.make(str(tmp_path), "tiny-safety", force=True)
    assert not mark.exists() and (tmp_path / "tiny-safety/model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-safety"]


def test_a_folder_that_cannot_be_written_is_one_line_and_code_1(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert make_tiny.main([str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "file") in error


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    import lockstep.diffusers.tiny_safety as tiny_safety

    def fails(folder):
        (Path(folder) / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny_safety, "write", fails)
    try:
        make_tiny.make(str(tmp_path), "tiny-safety")
    except OSError:
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_gives_each_byte_a_token(pipe):
    tokenizer = pipe.tokenizer
    ids = tokenizer("A fox é", padding="max_length", max_length=77).input_ids
    assert len(ids) == 77 and ids[0] == 512 and 513 in ids
    end = ids.index(513)
    # a, f-o-x and the two bytes of é.
    assert end == 1 + 1 + 3 + 2 and len(set(ids[1:end])) == end - 1
    assert tokenizer.decode(ids[1:end]).split() == ["a", "fox", "é"]


def test_pictures_have_structure_and_are_not_saturated(pipe):
    from lockstep.diffusers.pipeline import generate

    for seed in range(3):
        image = generate(pipe, prompt="a red fox", width=64, height=64, steps=4, seed=seed)
        assert np.mean((image == 0) | (image == 255)) < 0.05
        assert image.std() > 15
        # Structure: neighbours agree far better than pixels picked at random.
        near = np.abs(np.diff(image.astype(int), axis=1)).mean()
        shuffled = np.random.default_rng(0).permutation(image.reshape(-1, 3)).astype(int)
        assert near < 0.75 * np.abs(np.diff(shuffled, axis=0)).mean()
