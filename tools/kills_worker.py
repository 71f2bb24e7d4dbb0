#!/usr/bin/env python3
"""A light worker for tools/kills.py: real process, link and shared memory, and pictures that follow from the prompt.

    kills_worker.py NOTES                          started by the orchestrator
    kills_worker.py NOTES SOCKET NAME SECRET_FILE  joins one that runs

What it does at any instant stands in the file NOTES/<pid>, which is mapped: it is still true when the process was
killed in the middle of it. The numbers there are its own account of what it maps.
"""

import fcntl
import hashlib
import mmap
import os
import pathlib
import struct
import sys
import threading
import zlib

NOTE = struct.Struct("<32s16sQQ")  # name, what it does, its start in ticks, bytes that it maps


def picture(prompt, seed, side):
    """The PNG of a prompt: everybody who knows prompt and seed knows every byte."""
    row = b"\0" + hashlib.sha256(f"{prompt}/{seed}".encode()).digest()[:3] * side
    return png(row * side, side)


def png(rows, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def start_ticks(pid):
    """When a process started: with it a pid names one process for ever."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


class Note:
    def __init__(self, folder, name):
        path = pathlib.Path(folder) / str(os.getpid())
        path.write_bytes(bytes(NOTE.size))
        with open(path, "r+b") as file:
            self.view = mmap.mmap(file.fileno(), NOTE.size)
        self.fields = [name.encode(), b"starting", start_ticks(os.getpid()), 0]
        self.write()

    def write(self, does=None, mapped=None):
        self.fields[1] = self.fields[1] if does is None else does.encode()
        self.fields[3] = self.fields[3] if mapped is None else mapped
        self.view[:] = NOTE.pack(*self.fields)


def main():
    note = Note(sys.argv[1], sys.argv[3] if len(sys.argv) > 2 else os.environ["LOCKSTEP_WORKER"])
    from lockstep import TaskFailed, Worker

    if len(sys.argv) > 2:
        secret = pathlib.Path(sys.argv[4]).read_text().strip()
        worker = Worker.dial(sys.argv[2], sys.argv[3], memory=12 << 20, secret=secret)
    else:
        worker = Worker.from_environment()
    held = {}  # model -> its mappings

    def does(what):
        note.write(what, sum(len(view) for views in held.values() for view in views))

    def pause(task, seconds):  # long enough that a kill finds the task, and no processor is used
        if task.cancelled:
            raise TaskFailed("cancelled", "the task was cancelled")
        threading.Event().wait(seconds)

    def noted(what):
        def wrap(handler):
            def handle(task):
                does(what)
                try:
                    return handler(task)
                finally:
                    does("idle")
            return handle
        return wrap

    @noted("loading")
    def load(task):
        views = held.setdefault(task.body["model_id"], [])
        parts = list(zip(task.body["components"], task.fds, strict=True))
        try:
            for component, fd in parts:
                pause(task, 0.01)
                if component["name"] != "configuration":
                    views.append(mmap.mmap(fd, component["bytes"], mmap.MAP_SHARED, mmap.PROT_READ))
                    does("loading")
        except Exception:
            let_go(task.body["model_id"])
            raise
        finally:
            for _, fd in parts:
                os.close(fd)
        return {"bytes": sum(len(view) for view in views), "seconds": 0}, []

    def let_go(model):
        for view in held.pop(model, []):
            view.close()

    @noted("releasing")
    def release(task):
        model = task.body["model_id"]
        let_go(model)
        lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
        return {"bytes_mapped": sum(f"/memfd:lockstep:{model}/" in line for line in lines)}, []

    def buffer(data, side):
        fd = os.memfd_create("pixels", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.truncate(fd, len(data))
        os.pwrite(fd, data, 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
        sha = hashlib.sha256(data).hexdigest()
        return {"width": side, "height": side, "bytes": len(data), "sha256": sha}, [fd]

    @noted("inferring")
    def inference(task):
        body, side = task.body, task.body["width"]
        for step in range(1, body["steps"] + 1):
            pause(task, 0.01)
            task.progress({"step": step, "total_steps": body["steps"], "step_time_avg": 0.01})
        said, fds = buffer(hashlib.sha256(f"{body['prompt']}/{body['seed']}".encode()).digest()[:3] * side**2, side)
        return said | {"execution_time": 0, "total_steps_executed": body["steps"], "peak_bytes": 0,
                       "result_quality_score": 5}, fds

    @noted("encoding")
    def postprocess(task):
        side = task.body["source"]["width"]
        try:
            pixels = os.pread(task.fds[0], side * side * 3, 0)
        finally:
            os.close(task.fds[0])
        pause(task, 0.01)
        said, fds = buffer(png(b"".join(b"\0" + pixels[at:at + side * 3] for at in range(0, len(pixels), side * 3)),
                               side), side)
        quality = {"technical_quality": 5, "visual_quality": 5, "enhancement_effectiveness": 5}
        return {"operations": [], "quality": quality, "output": said, "total_processing_time": 0, "peak_bytes": 0}, fds

    for kind, handler in (("load", load), ("release", release), ("inference", inference), ("postprocess", postprocess)):
        worker.on(kind, handler)
    worker.ready()
    does("idle")
    worker.run()


if __name__ == "__main__":
    main()
