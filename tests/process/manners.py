"""Real workers whose inference handler takes its manners from the prompt: "hang: a fox" is an image that is not made
before the test lets it go. So nothing has to be quick while one runs."""

import contextlib
import json
import os
import sys

from conftest import until

PROGRAM = '''
import ctypes, json, os, pathlib, sys
from lockstep.diffusers import handlers
from lockstep.diffusers.__main__ import main

folder = pathlib.Path(sys.argv[1])
well = handlers.Handlers.inference

def inference(self, task):
    manner = task.body["prompt"].split(":")[0]
    if manner in ("hang", "hold"):
        (folder / "stuck").write_text(str(os.getpid()))
        fifo = str(folder / manner).encode()
        # Opening it waits for a writer: PyDLL keeps the interpreter meanwhile, CDLL lets it go.
        library = ctypes.PyDLL(None) if manner == "hold" else ctypes.CDLL(None)
        library.open(fifo, os.O_RDONLY)
    if manner == "flood":
        report = {"step": 0, "total_steps": task.body["steps"], "step_time_avg": 0.1}
        while not (folder / "enough").exists():
            for _ in range(1000):
                task.progress(report)
            (folder / "flooding").touch()
    if manner == "twice":
        report, fds = well(self, task)
        task._native.done(json.dumps(report), [os.dup(fd) for fd in fds])
        return report, fds
    return well(self, task)

handlers.Handlers.inference = inference
sys.exit(main())
'''


def with_manners(server, folder, more=""):
    """The server's workers are such ones; what makes them stuck is in the folder."""
    program = folder / "worker.py"
    program.write_text(PROGRAM)
    for name in ("hang", "hold"):
        os.mkfifo(folder / name)
    command = json.dumps([sys.executable, str(program), str(folder)])
    server.config = f'[workers]\ncommand = {command}\n[timing]\nprogress = "1h"\n' + more


def stuck(server, folder):
    """Waits until a handler is stuck; returns the view of its worker."""
    pid = int(until("the handler to be stuck", lambda: (f := folder / "stuck").exists() and f.read_text()))
    return next(w for w in server.workers().values() if w["pid"] == pid)


@contextlib.contextmanager
def let_go(folder, manner="hang"):
    """Whoever is stuck goes on, and nobody gets stuck meanwhile."""
    writer = os.open(folder / manner, os.O_RDWR)  # does not wait for a reader, as O_WRONLY would
    try:
        yield
    finally:
        os.close(writer)
