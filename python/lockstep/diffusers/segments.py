"""Segments of the orchestrator's shared model cache, mapped read-only.

A segment is a sealed memfd with one component of one model: a little-endian u64 header length,
that many bytes of JSON padded with spaces, then the tensors at offsets that are multiples of 256.
The JSON is {"tensors": {name: {"dtype", "shape", "offset", "bytes"}}, "model", "component",
"sha256"}: dtype names as in safetensors, offsets in bytes from the start of the segment, sha256 of
the source file(s). The component "configuration" has whole files where the others have tensors, see
configuration.py.
"""

import ctypes
import fcntl
import gc
import json
import math
import mmap
import os
import struct
import sys
import threading
import weakref

import torch

from .errors import DATA_LOSS, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, TaskFailed
from .memfd import ALL_SEALS, read_all

ALIGNMENT = 256

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_SEAL_NAMES = {
    fcntl.F_SEAL_SEAL: "seal",
    fcntl.F_SEAL_SHRINK: "shrink",
    fcntl.F_SEAL_GROW: "grow",
    fcntl.F_SEAL_WRITE: "write",
}

# cudaHostRegisterReadOnly: plain registration fails on a mapping without write permission.
_REGISTER_READ_ONLY = 8

# Registering takes longer than copying (164 ms and 92 ms for 5.1 GB), so it goes piece by piece, each of whole pages,
# and one piece is copied while the next is registered.
_PIECE = 128 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_seals(fd: int) -> None:
    """Raise TaskFailed(invalid_argument) unless nobody can change the file any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise TaskFailed(INVALID_ARGUMENT, f"the segment is not a memfd: {error.strerror}") from None
    missing = [name for bit, name in _SEAL_NAMES.items() if not seals & bit]
    if missing:
        raise TaskFailed(INVALID_ARGUMENT, f"the segment is not sealed against: {', '.join(missing)}")


def read_header(fd: int, size: int, contents: str) -> tuple[dict, int]:
    """Return the parsed JSON, with an object of `contents`, and where it ends.

    Raises TaskFailed(data_loss) when it is not a whole JSON object.
    """
    if size < 8:
        raise TaskFailed(DATA_LOSS, f"the segment has {size} bytes, too few for its header length")
    (length,) = struct.unpack("<Q", read_all(fd, 8))
    if length > size - 8:
        raise TaskFailed(DATA_LOSS, f"the segment's header claims {length} bytes, but only {size - 8} follow")
    try:
        header = json.loads(read_all(fd, 8 + length)[8:])
    except (ValueError, RecursionError) as error:
        raise TaskFailed(DATA_LOSS, f"the segment's header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get(contents), dict):
        raise TaskFailed(DATA_LOSS, f"the segment's header has no object of {contents}")
    for key in ("model", "component", "sha256"):
        if not isinstance(header.get(key), str):
            raise TaskFailed(DATA_LOSS, f"the segment's header has no text {key!r}")
    return header, 8 + length


def _check_tensors(tensors: dict, data_start: int, size: int) -> None:
    """Check every entry against the segment's bounds before any of them is used."""
    for name, entry in tensors.items():
        if not isinstance(entry, dict):
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} is not described by an object")
        if entry.get("dtype") not in DTYPES:
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} has the unknown dtype {entry.get('dtype')!r}")
        shape, offset, length = entry.get("shape"), entry.get("offset"), entry.get("bytes")
        if not isinstance(shape, list) or not all(map(_is_count, shape)):
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} has the bad shape {shape!r}")
        if not _is_count(offset) or not _is_count(length):
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} has no whole offset and length")
        if offset % ALIGNMENT:
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} starts at {offset}, not a multiple of {ALIGNMENT}")
        if offset < data_start or offset > size or length > size - offset:
            raise TaskFailed(
                DATA_LOSS, f"tensor {name!r} covers bytes {offset} to {offset + length}, outside the segment"
            )
        expected = math.prod(shape) * DTYPES[entry["dtype"]].itemsize
        if length != expected:
            raise TaskFailed(DATA_LOSS, f"tensor {name!r} has {length} bytes, its shape needs {expected}")


def _map(fd: int, size: int) -> int:
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address in (None, _MAP_FAILED):
        raise TaskFailed(RESOURCE_EXHAUSTED, f"cannot map {size} bytes: {os.strerror(ctypes.get_errno())}")
    return address


def _check_cuda(result, what: str) -> None:
    code = int(result)
    if code:
        raise TaskFailed(INTERNAL, f"{what} failed with CUDA error {code}")


class Segment:
    """One mapped component.

    `Segment(fd, size)` owns `fd` from the call on, also when it raises: the mapping keeps the file,
    so the descriptor is closed at once. `size` is in bytes and may not exceed the file. Raises
    TaskFailed: invalid_argument for a descriptor that is not a fully sealed memfd, data_loss for a
    header that does not describe the file, resource_exhausted when it cannot be mapped.

    The memory is unmapped when close() was called *and* the last tensor over it is gone: a view
    that outlives its segment is a leak that mapped() shows, never a crash.
    """

    def __init__(self, fd: int, size: int):
        try:
            check_seals(fd)
            status = os.fstat(fd)
            if not 0 < size <= status.st_size:
                raise TaskFailed(DATA_LOSS, f"the segment has {status.st_size} bytes, {size} were announced")
            header, data_start = read_header(fd, size, "tensors")
            _check_tensors(header["tensors"], data_start, size)
            address = _map(fd, size)
        finally:
            os.close(fd)
        self.inode = status.st_ino
        self.size = size
        self.address = address
        self.model = header["model"]
        self.component = header["component"]
        self.sha256 = header["sha256"]
        self._entries = header["tensors"]
        # A subclass, since the ctypes array types themselves take no weak references.
        window_type = type("SegmentWindow", (ctypes.c_ubyte * size,), {})
        self._window = window_type.from_address(address)
        self._unmap = weakref.finalize(self._window, _libc.munmap, address, size)
        # At exit views may still be in use; the kernel takes the mapping back anyway.
        self._unmap.atexit = False
        self._device_block = None
        self._given_up: threading.Thread | None = None

    def contains(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's data lies in this segment (the mapping, or its copy on the device)."""
        if self._device_block is not None:
            start = self._device_block.data_ptr()
        else:
            start = self.address
        begin = tensor.data_ptr()
        return start <= begin and begin + tensor.numel() * tensor.element_size() <= start + self.size

    def mapped(self) -> bool:
        """Whether the mapping still exists in this process."""
        return self._unmap.alive

    def whole(self) -> torch.Tensor:
        """The mapping as bytes; writing to them ends the process."""
        return torch.frombuffer(self._window, dtype=torch.uint8)

    def tensors(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """Return {name: tensor} over this segment's bytes.

        On "cpu" the tensors are views of the read-only mapping: writing to one ends the process.
        On "cuda:N" the whole segment is copied once into one block, the tensors are views of that
        block, and the mapping is given up soon after, so that the cache can drop the file.
        Raises TaskFailed(resource_exhausted) when the device has no room, internal for a device
        error or a closed segment.
        """
        block = self._device_block
        if block is None:
            if self._window is None:
                raise TaskFailed(INTERNAL, f"the segment of {self.component!r} is closed")
            block = self.whole()
            if torch.device(device).type == "cuda":
                block = self._device_block = self._copy_to_device(block, device)
        return {name: self._view(block, entry) for name, entry in self._entries.items()}

    def wait_given_up(self) -> None:
        """Return when a mapping that was copied to a device is gone."""
        if self._given_up is not None:
            self._given_up.join()
            self._given_up = None

    def close(self) -> None:
        """Drop everything this object holds; a second call does nothing."""
        self.wait_given_up()
        self._window = None
        self._device_block = None
        if self._unmap.alive:
            # Modules refer to themselves in cycles; their tensors go only when those are collected.
            gc.collect()

    @staticmethod
    def _view(block: torch.Tensor, entry: dict) -> torch.Tensor:
        dtype = DTYPES[entry["dtype"]]
        if entry["bytes"] == 0:
            return torch.empty(entry["shape"], dtype=dtype, device=block.device)
        return block[entry["offset"] : entry["offset"] + entry["bytes"]].view(dtype).view(entry["shape"])

    def _copy_to_device(self, host: torch.Tensor, device: str) -> torch.Tensor:
        try:
            block = torch.empty(self.size, dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError:
            raise TaskFailed(
                RESOURCE_EXHAUSTED, f"{device} has no room for the {self.size} bytes of {self.component!r}"
            ) from None
        # Registered memory is what the copy engine reads at full bus speed. A piece must be whole pages: the copy of a
        # partly registered range is refused.
        runtime = torch.cuda.cudart()
        registered = []
        try:
            for begin in range(0, self.size, _PIECE):
                end = min(begin + _PIECE, self.size)
                whole = -(-(end - begin) // mmap.PAGESIZE) * mmap.PAGESIZE
                code = runtime.cudaHostRegister(self.address + begin, whole, _REGISTER_READ_ONLY)
                _check_cuda(code, "registering the segment")
                registered.append(self.address + begin)
                block[begin:end].copy_(host[begin:end], non_blocking=True)
            torch.cuda.synchronize(device)
        except BaseException:
            torch.cuda.synchronize(device)  # what is being copied must stay registered
            for address in registered:
                runtime.cudaHostUnregister(address)
            raise
        # Unregistering takes as long as registering did, and nobody waits for it.
        window, self._window = self._window, None
        self._given_up = threading.Thread(target=_give_up, args=(runtime, registered, window), name="give-up")
        self._given_up.start()
        return block


def _give_up(runtime, registered: list[int], window) -> None:
    """Unregister, then let go of the mapping."""
    for address in registered:
        code = int(runtime.cudaHostUnregister(address))
        if code:
            print(f"lockstep worker: unregistering a segment failed with CUDA error {code}", file=sys.stderr)
    del window
