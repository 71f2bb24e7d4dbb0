#!/usr/bin/env python3
"""Moves one component of 5 GB from a sealed cache segment into a GPU, beside the ways that other tools have.

    tools/gpu/load.py [--bytes N] [--json]      PYTHONPATH must hold python/

Another process makes the segment, as the orchestrator does (docs/formats/segment.md), and passes its descriptor. The row
`ours` is the worker's own load (lockstep.diffusers.segments). All rows are of one run; each is the median of several,
with the slowest beside it. Random weights, never zeros.
"""

import argparse
import fcntl
import json
import mmap
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ALIGNMENT = 256
# Elements of the tensors of a large U-Net, in turn: many large ones, some small.
SIZES = [1280 * 1280, 1280 * 10240, 640 * 640, 1280 * 5120, 640 * 5120, 320 * 320 * 9, 1280 * 1280 * 9, 2048 * 1280, 1280, 640]


def plan(total):
    """Names, element counts and offsets of fp16 tensors of `total` bytes or a little more, and the segment's header."""
    entries, counts, at, number = {}, [], 0, 0
    while at < total:
        count = SIZES[number % len(SIZES)]
        entries[f"t{number:05d}"] = [count, at]
        counts.append(count)
        at += -(-2 * count // ALIGNMENT) * ALIGNMENT
        number += 1
    room = 128 * len(entries) + 4096  # for the header
    start = -(-room // ALIGNMENT) * ALIGNMENT
    tensors = {
        name: {"dtype": "F16", "shape": [count], "offset": start + offset, "bytes": 2 * count}
        for name, (count, offset) in entries.items()
    }
    text = json.dumps({"tensors": tensors, "model": "random", "component": "unet", "sha256": ""}).encode()
    header = struct.pack("<Q", start - 8) + text.ljust(start - 8)
    assert len(header) == start
    return tensors, header, start + at


def make_segment(descriptor, total):
    """The other process: fills, seals, passes the descriptor, and ends."""
    import torch

    _, header, size = plan(total)
    fd = os.memfd_create("lockstep:random/unet", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    window = mmap.mmap(fd, size)
    block = torch.frombuffer(window, dtype=torch.uint8)
    block[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    weights = block[len(header) :].view(torch.float16)
    chunk = 64 << 20
    for begin in range(0, weights.numel(), chunk):
        piece = weights[begin : begin + chunk]
        piece.copy_(torch.randn(piece.numel()).to(torch.float16))
    del piece, weights, block
    window.close()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    with socket.socket(fileno=descriptor) as link:
        socket.send_fds(link, [struct.pack("<Q", size)], [fd])


def segment_of_another_process(total):
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, __file__, "--bytes", str(total), "--make", str(theirs.fileno())], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    said, fds, _, _ = socket.recv_fds(ours, 8, 1)
    ours.close()
    if child.wait() != 0 or len(fds) != 1:
        raise OSError("the other process made no segment")
    return fds[0], struct.unpack("<Q", said)[0]


def measure(total, runs):
    import torch
    from lockstep.diffusers.segments import Segment
    from safetensors.torch import load_file, save_file

    torch.cuda.init()
    rows = []

    def row(name, work, size, times=runs, give_back=lambda result: None):
        taken = []
        for _ in range(times):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            result = work()
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - begin)
            give_back(result)
            del result
        value = statistics.median(taken)
        rows.append({"name": name, "unit": "ms", "value": value * 1e3, "max": max(taken) * 1e3, "runs": times,
                     "gb_per_s": size / 1e9 / value})  # fmt: skip
        print(f"{name:44} {value * 1e3:9.1f} ms   slowest {max(taken) * 1e3:9.1f}   {size / 1e9 / value:6.1f} GB/s", flush=True)

    pinned = torch.empty(4 << 30, dtype=torch.uint8, pin_memory=True).random_(0, 255)
    target = torch.empty_like(pinned, device="cuda")
    row("floor: the bus, 4 GiB pinned", lambda: target.copy_(pinned, non_blocking=True), pinned.numel())
    del pinned, target

    fd, size = segment_of_another_process(total)
    print(f"one segment of {size / 1e9:.2f} GB, {len(plan(total)[0])} tensors, sealed by another process", flush=True)

    def ours():
        segment = Segment(os.dup(fd), size)
        return segment, segment.tensors("cuda:0")

    def drop(result):
        result[0].close()

    segment, views = ours()
    source = Segment(os.dup(fd), size).tensors("cpu")
    equal = all(torch.equal(views[name].cpu(), source[name]) for name in list(source)[::25])
    del views
    segment.close()
    row("ours: register and copy in turns, views", ours, size, give_back=drop)

    # The same in parts, by the calls that the load makes.
    runtime, whole = torch.cuda.cudart(), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    held = Segment(os.dup(fd), size)
    host = held.whole()
    block = torch.empty(size, dtype=torch.uint8, device="cuda")

    def register():
        code = int(runtime.cudaHostRegister(held.address, whole, 8))
        if code:
            raise OSError(f"registration gives CUDA error {code}")

    row("  of that: registration", register, size, give_back=lambda _: runtime.cudaHostUnregister(held.address))
    register()
    row("  of that: one copy of a registered segment", lambda: block.copy_(host, non_blocking=True), size)
    runtime.cudaHostUnregister(held.address)
    row("the copy without registration", lambda: block.copy_(host), size)
    del host, block
    held.close()
    torch.cuda.empty_cache()

    resident = {name: tensor.clone() for name, tensor in source.items()}
    row("peer: resident CPU tensors .to(cuda)", lambda: {k: v.to("cuda") for k, v in resident.items()}, size)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = f"{folder}/unet.safetensors"
        save_file(resident, path)
        del resident
        row("peer: safetensors load_file(device=cuda)", lambda: load_file(path, device="cuda:0"), size, times=3)
    os.close(fd)
    print(f"equal to the source: {equal}")
    return {"bench": "gpu_load", "machine": {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__},
            "equal": equal, "rows": rows}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes", type=int, default=5_100_000_000, help="of the component (default 5.1 GB)")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make is not None:
        return make_segment(options.make, options.bytes)
    result = measure(options.bytes, options.runs)
    if options.json:
        print(json.dumps(result))
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
