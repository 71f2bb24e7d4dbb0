"""The component of tokenizers and configurations: read whole or not at all, unpacked for one load, nothing left."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import (
    ROOT,
    SDXL_FILES,
    SEALS,
    configuration_bytes,
    configuration_files,
    memfd_of,
    open_fds,
    read_tensors,
    write_segment,
)
from lockstep.diffusers import configuration
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.pipeline import generate, load_pipeline
from lockstep.diffusers.segments import Segment

FILES = {"a.json": b"{}", "empty.txt": b"", "tokenizer/merges.txt": b"a b\n" * 100}
PARAMETERS = dict(prompt="a red fox", negative_prompt="", width=64, height=64, steps=3, guidance_scale=5.0, seed=7)


def _read(data: bytes, sha256: str, size: int | None = None, seals: int = SEALS) -> dict[str, bytes]:
    return configuration.read(memfd_of(data, "lockstep:m/configuration", seals), size or len(data), sha256)


def _digest(files) -> str:
    import hashlib

    return hashlib.sha256(b"".join(files.values())).hexdigest()


def test_files_come_back_as_they_were_and_nothing_stays_open():
    fds = open_fds()
    assert _read(configuration_bytes(FILES), _digest(FILES)) == FILES
    assert open_fds() == fds


def test_the_picture_is_the_one_of_the_folder(models):
    segments = {
        name: Segment(*write_segment(read_tensors(models / "tiny-sdxl" / file), "tiny-sdxl", name))
        for name, file in SDXL_FILES.items()
    }
    wanted = generate(load_pipeline(str(models / "tiny-sdxl"), segments, "cpu"), **PARAMETERS)
    files = configuration_files(models / "tiny-sdxl")
    with configuration.unpacked(_read(configuration_bytes(files), _digest(files))) as folder:
        pipe = load_pipeline(folder, segments, "cpu")
    assert not os.path.exists(folder)
    assert np.array_equal(generate(pipe, **PARAMETERS), wanted)


def _renamed(old, new):
    return lambda header: {**header, "files": {new if name == old else name: e for name, e in header["files"].items()}}


def _entry(**changes):
    return lambda header: {**header, "files": {**header["files"], "a.json": {**header["files"]["a.json"], **changes}}}


DAMAGES = {
    "another digest": (lambda header: header, "have the sha256", "0" * 64),
    "no files": (lambda header: {**header, "files": []}, "no object of files", None),
    "up": (_renamed("a.json", "../a.json"), "not below the model's folder", None),
    "absolute": (_renamed("a.json", "/etc/a.json"), "not below the model's folder", None),
    "up later": (_renamed("a.json", "tokenizer/../../a.json"), "not below the model's folder", None),
    "a zero": (_renamed("a.json", "a\0.json"), "not below the model's folder", None),
    "half a character": (_renamed("a.json", "\ud800.json"), "not below the model's folder", None),
    "before the header's end": (_entry(offset=0), "outside the segment", None),
    "behind the end": (_entry(bytes=1 << 40), "outside the segment", None),
    "a negative length": (_entry(bytes=-1), "no whole offset and length", None),
    "an entry of a wrong type": (lambda header: {**header, "files": {"a.json": 1}}, "no whole offset", None),
}


@pytest.mark.parametrize("change, sentence, sha256", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_segment_is_data_loss(change, sentence, sha256):
    fds = open_fds()
    with pytest.raises(TaskFailed, match=sentence) as failure:
        _read(configuration_bytes(FILES, change=change), sha256 or _digest(FILES))
    assert failure.value.code == "data_loss" and open_fds() == fds


def test_every_changed_byte_of_a_file_is_seen():
    data = bytearray(configuration_bytes(FILES))
    for at in (data.index(b"{}", 600), data.index(b"a b\n"), data.rindex(b"a b\n") + 3):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(TaskFailed, match="have the sha256"):
            _read(bytes(damaged), _digest(FILES))


def test_what_can_still_be_changed_is_refused():
    with pytest.raises(TaskFailed, match="not sealed against: write"):
        _read(configuration_bytes(FILES), _digest(FILES), seals=SEALS & ~8)
    with pytest.raises(TaskFailed, match="were announced"):
        _read(configuration_bytes(FILES), _digest(FILES), size=1 << 20)


def test_the_folder_is_private_and_gone_after_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(configuration, "_TMPFS", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        with configuration.unpacked(FILES) as folder:
            assert folder.startswith(str(tmp_path))
            assert os.stat(folder).st_mode & 0o777 == 0o700
            read = {name: open(os.path.join(folder, name), "rb").read() for name in FILES}
            assert read == FILES
            1 / 0
    assert os.listdir(tmp_path) == []


def test_without_room_in_memory_the_disk_is_taken(monkeypatch, tmp_path):
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir(), disk.mkdir()
    monkeypatch.setattr(configuration, "_TMPFS", str(memory))
    monkeypatch.setattr(configuration.tempfile, "gettempdir", lambda: str(disk))
    write = configuration._write

    def full(folder, files):
        if folder.startswith(str(memory)):
            raise OSError(28, "No space left on device")
        write(folder, files)

    monkeypatch.setattr(configuration, "_write", full)
    with configuration.unpacked(FILES) as folder:
        assert folder.startswith(str(disk)) and os.listdir(memory) == []
    monkeypatch.setattr(configuration, "_write", lambda folder, files: full(str(memory), files))
    with pytest.raises(TaskFailed, match="no room to unpack") as failure:
        with configuration.unpacked(FILES):
            pass
    assert failure.value.code == "resource_exhausted" and os.listdir(disk) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_living_ones_is_not(monkeypatch, tmp_path):
    program = (
        "import sys, time; from lockstep.diffusers import configuration; configuration._TMPFS = sys.argv[1]\n"
        "with configuration.unpacked({'a.json': b'{}'}) as folder: print(folder, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        left = process.stdout.readline().strip()
        assert os.path.exists(os.path.join(left, "a.json"))
        configuration.remove_left_behind(str(tmp_path))
        assert os.path.exists(left)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.path.exists(left)
    monkeypatch.setattr(configuration, "_TMPFS", str(tmp_path))
    began = time.monotonic()
    with configuration.unpacked(FILES) as folder:
        assert os.listdir(tmp_path) == [os.path.basename(folder)]
    assert os.listdir(tmp_path) == [] and time.monotonic() - began < 10
