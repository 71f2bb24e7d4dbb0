"""Segments: no copies, nothing left mapped, and refusal of what is damaged."""

import fcntl
import gc
import mmap
import os
import struct
import warnings

import pytest
import torch
from conftest import SEALS, mappings, memfd_of, open_fds, segment_bytes, write_segment
from lockstep.diffusers import segments
from lockstep.diffusers.errors import TaskFailed
from lockstep.diffusers.memory import mapped_bytes
from lockstep.diffusers.segments import Segment

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.randn(7).to(torch.float16),
    "brain": torch.randn(5, 1).to(torch.bfloat16),
    "count": torch.tensor(3),
    "none": torch.empty(0, 4),
}


def _make(name="seg", **options):
    fd, size = write_segment(TENSORS, model=name, **options)
    return Segment(fd, size)


def test_tensors_are_equal_and_are_views_of_the_mapping():
    segment = _make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views = segment.tensors("cpu")
    assert views.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert views[name].dtype == tensor.dtype and torch.equal(views[name], tensor)
        if tensor.numel():
            assert segment.contains(views[name]) and views[name].data_ptr() % 256 == 0
    assert not segment.contains(torch.zeros(3))
    assert segment.tensors("cpu")["a"].data_ptr() == views["a"].data_ptr()
    assert (segment.model, segment.component) == ("seg", "c")


def test_the_mapping_is_shared_and_read_only_and_the_descriptor_is_closed():
    before = open_fds()
    segment = _make("perm")
    (line,) = mappings("lockstep:perm/c")
    assert line.split()[1] == "r--s"
    assert open_fds() == before
    assert mapped_bytes({segment.inode}) >= segment.size


def test_close_leaves_no_mapping():
    segment = _make("closed")
    views = segment.tensors()
    total = float(views["a"].sum())
    del views
    assert mappings("lockstep:closed/c")
    segment.close()
    segment.close()
    assert total == 66 and not mappings("lockstep:closed/c") and not segment.mapped()
    assert mapped_bytes({segment.inode}) == 0
    with pytest.raises(TaskFailed, match="is closed"):
        segment.tensors()


def test_a_view_that_outlives_its_segment_stays_readable_and_is_seen():
    segment = _make("leak")
    view = segment.tensors()["a"][1:]
    segment.close()
    assert segment.mapped() and mapped_bytes({segment.inode}) > 0
    assert view.sum() == 60
    del view
    gc.collect()
    assert not segment.mapped() and not mappings("lockstep:leak/c")


def test_a_forgotten_segment_is_unmapped():
    segment = _make("forgotten")
    del segment
    gc.collect()
    assert not mappings("lockstep:forgotten/c")


@pytest.mark.parametrize("missing", ["seal", "shrink", "grow", "write"])
def test_every_seal_is_needed(missing):
    bit = getattr(fcntl, f"F_SEAL_{missing.upper()}")
    data = segment_bytes(TENSORS)
    fd = memfd_of(data, "lockstep:unsealed/c", SEALS & ~bit)
    before = open_fds()
    with pytest.raises(TaskFailed, match=f"not sealed against: {missing}$") as failure:
        Segment(fd, len(data))
    assert failure.value.code == "invalid_argument"
    assert open_fds() == before - 1 and not mappings("lockstep:unsealed")


def test_an_ordinary_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(segment_bytes(TENSORS))
    with pytest.raises(TaskFailed, match="not a memfd|not sealed"):
        Segment(os.open(path, os.O_RDONLY), path.stat().st_size)


def _entry(**changes):
    def change(header):
        header["tensors"]["a"].update(changes)
        return header

    return change


def _without(key):
    def change(header):
        del header[key]
        return header

    return change


DAMAGED_HEADERS = {
    "unknown dtype": (_entry(dtype="F7"), "unknown dtype 'F7'"),
    "dtype of a wrong type": (_entry(dtype=None), "unknown dtype"),
    "beyond the end": (_entry(offset=1 << 40), "outside the segment"),
    "over the end": (_entry(offset=2560, bytes=1 << 20), "outside the segment"),
    "in the header": (_entry(offset=0), "outside the segment"),
    "unaligned": (_entry(offset=1025), "not a multiple of 256"),
    "negative offset": (_entry(offset=-256), "no whole offset"),
    "fraction": (_entry(offset=256.0), "no whole offset"),
    "shape against bytes": (_entry(shape=[3, 5]), "its shape needs 60"),
    "huge shape": (_entry(shape=[1 << 62, 1 << 62]), "its shape needs"),
    "negative shape": (_entry(shape=[-3, -4]), "bad shape"),
    "shape of booleans": (_entry(shape=[True]), "bad shape"),
    "no hash": (_without("sha256"), "no text 'sha256'"),
    "no tensors": (_without("tensors"), "no object of tensors"),
    "not an object": (lambda header: [header], "no object of tensors"),
    "entry of a wrong type": (lambda header: {**header, "tensors": {"x": 1}}, "not described by an object"),
}


@pytest.mark.parametrize("case", DAMAGED_HEADERS)
def test_a_damaged_header_is_refused(case):
    change, sentence = DAMAGED_HEADERS[case]
    data = segment_bytes(TENSORS, change=change)
    before = open_fds()
    with pytest.raises(TaskFailed, match=sentence) as failure:
        Segment(memfd_of(data, "lockstep:damaged/c"), len(data))
    assert failure.value.code == "data_loss"
    assert open_fds() == before and not mappings("lockstep:damaged")


@pytest.mark.parametrize(
    "data, sentence",
    [
        (b"abc", "too few"),
        (struct.pack("<Q", 1 << 60) + b"{}", "claims"),
        (struct.pack("<Q", 4) + b"{{{{", "not JSON"),
        (struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe", "not JSON"),
        (struct.pack("<Q", 100000) + b"[" * 100000, "not JSON"),
    ],
)
def test_damaged_beginnings_are_refused(data, sentence):
    with pytest.raises(TaskFailed, match=sentence) as failure:
        Segment(memfd_of(data, "lockstep:damaged/c"), len(data))
    assert failure.value.code == "data_loss"


def test_a_size_beyond_the_file_is_refused():
    fd, size = write_segment(TENSORS)
    with pytest.raises(TaskFailed, match="were announced"):
        Segment(fd, size + 1)


def test_truncation_at_any_place_never_passes_silently():
    data = segment_bytes({"a": TENSORS["a"], "half": TENSORS["half"]})
    last = data.rindex(b"}") + 1
    for size in [*range(0, 64), *range(last - 8, len(data) - 256, 97)]:
        fd = memfd_of(data[:size] or b"\0", "lockstep:cut/c")
        with pytest.raises(TaskFailed):
            Segment(fd, max(size, 1))
    assert not mappings("lockstep:cut")


class FakeRuntime:
    """Stands for the CUDA runtime: remembers what is registered, and can refuse the n-th piece."""

    def __init__(self, refuse=None):
        self.registered, self.calls, self.refuse = {}, [], refuse

    def cudaHostRegister(self, address, size, flags):
        self.calls.append((address, size, flags))
        if len(self.calls) == self.refuse:
            return 2
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address):
        del self.registered[address]
        return 0


@pytest.fixture
def pieces(monkeypatch):
    """Copies to a device that is the CPU, in pieces of two pages, with the runtime that the test sets."""

    def use(fake):
        monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(segments, "_PIECE", 2 * mmap.PAGESIZE)
        return fake

    return use


def test_a_segment_is_registered_in_pieces_of_whole_pages_and_unregistered_after_the_copy(pieces):
    fake = pieces(FakeRuntime())
    segment = Segment(*write_segment({"a": torch.randn(9000)}, "pieces"))
    block = segment._copy_to_device(segment.whole(), "cpu")
    segment.wait_given_up()
    assert len(fake.calls) == -(-segment.size // (2 * mmap.PAGESIZE)) > 3 and not fake.registered
    assert [address for address, _, _ in fake.calls] == [
        segment.address + index * 2 * mmap.PAGESIZE for index in range(len(fake.calls))
    ]
    assert all(size % mmap.PAGESIZE == 0 and flags == 8 for _, size, flags in fake.calls)
    assert sum(size for _, size, _ in fake.calls) >= segment.size
    assert block.numel() == segment.size and not segment.mapped()


def test_a_refused_registration_leaves_nothing_registered(pieces):
    fake = pieces(FakeRuntime(refuse=3))
    segment = Segment(*write_segment({"a": torch.randn(9000)}, "refused"))
    with pytest.raises(TaskFailed, match="CUDA error 2"):
        segment._copy_to_device(segment.whole(), "cpu")
    assert not fake.registered and segment.mapped()
    segment.close()
    assert not segment.mapped()
