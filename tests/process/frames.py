"""The worker link by hand (docs/formats/wire.md): frames made of bytes, so that they can be made wrong."""

import array
import contextlib
import datetime
import json
import multiprocessing
import multiprocessing.reduction
import os
import socket
import struct
import threading
import time

HELLO, WELCOME, READY, HEARTBEAT, REFUSED = 1, 2, 3, 4, 15
NAMES = {1: "hello", 2: "welcome", 3: "ready", 4: "heartbeat", 7: "transaction_vote", 10: "transaction_ack",
         12: "task_failed", 17: "state_applied", 42: "device_config_update", 14: "model_released", 32: "device_health_update", 33: "vram_usage_update", 35: "model_loading_progress",
         37: "inference_progress", 38: "inference_completed", 41: "postprocessing_completed"}
LIMIT = 60


def header(length, kind, urgency=1, descriptors=0, epoch=0, incarnation=0, sequence=1):
    return struct.pack("<IHBBQQQ", length, kind, urgency, descriptors, epoch, incarnation, sequence)


def envelope(kind, body, name="guest", epoch=0, incarnation=0, sequence=1, urgency="p1_high", **change):
    return {"id": f"w{incarnation}.{sequence}", "type": NAMES.get(kind, "heartbeat"),
            "source": {"side": "worker", "worker_id": name, "incarnation": incarnation}, "epoch": epoch,
            "sequence": sequence, "time": datetime.datetime.now(datetime.timezone.utc).isoformat()[:23] + "Z",
            "urgency": urgency, "op_id": "", "attempt": 0, "correlation": {}, "body": body, **change}


def frame(kind, text, **fields):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return header(len(text), kind, **fields) + text


def hello(secret, name="guest", **change):
    return {"worker_id": name, "runtime_version": "by hand", "pid": os.getpid(), "secret": secret,
            "device": {"kind": "cpu", "memory_budget": 1 << 30}, **change}


class Link:
    """One connection to workers.sock: the server takes the process that dialled it for the worker."""

    def __init__(self, path):
        dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        dialled.settimeout(LIMIT)
        dialled.connect(path)
        self.begin(dialled)

    @classmethod
    def over(cls, dialled):
        """The same over a connection that another process has made."""
        link = cls.__new__(cls)
        dialled.settimeout(LIMIT)
        link.begin(dialled)
        return link

    def begin(self, dialled):
        self.socket = dialled
        self.epoch = self.incarnation = self.sequence = 0
        self.saying = threading.Lock()  # a frame and its number are one

    def send(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([data], ancillary)
            self.socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed before all of it was sent

    def receive(self):
        """(type, body as a dict) of the next frame; None at the end of the link."""
        def exactly(size):
            out = b""
            while len(out) < size:
                try:
                    piece = self.socket.recv(size - len(out))
                except ConnectionResetError:
                    return None
                if not piece:
                    return None
                out += piece
            return out
        head = exactly(32)
        if head is None:
            return None
        length, kind, _, _, self.epoch, self.incarnation, _ = struct.unpack("<IHBBQQQ", head)
        body = exactly(length)
        return body and (kind, json.loads(body)["body"])

    def say(self, kind, body, fds=(), urgency="p1_high", **change):
        """The next frame as it should be, but for what `change` says of its envelope."""
        with self.saying:
            self.sequence += 1
            fields = {"epoch": self.epoch, "incarnation": self.incarnation, "sequence": self.sequence}
            text = envelope(kind, body, urgency=urgency, **{"name": getattr(self, "name", "guest"), **fields, **change})
            self.send(frame(kind, text, descriptors=len(fds), urgency=int(urgency[1]), **fields), fds)

    def join(self, secret, name="guest"):
        """Says hello and waits for the welcome; the answer that came instead, if another one did."""
        self.name = name
        self.sequence = 1
        self.send(frame(HELLO, envelope(HELLO, hello(secret, name), name=name)))
        answer = self.receive()
        return None if answer and answer[0] == WELCOME else answer

    def close(self):
        self.socket.close()


def let_in(path, secret, name="guest"):
    """A link that was let in, as soon as the last process of that name is known to be gone."""
    for _ in range(2000):
        link = Link(path)
        answer = link.join(secret, name)
        if answer is None:
            return link
        link.close()
        time.sleep(0.005)
    raise TimeoutError(f"{name} was not let in; the last answer was {answer}")


# Processes that dial come from one that was started afresh, not from the test's own: that one has the threads and the
# libraries of every test before, which do not outlive a fork in a state that anyone promises.
clean = multiprocessing.get_context("forkserver")
clean.set_forkserver_preload(["frames"])


def dialling(log, work, *arguments):
    """Starts work(*arguments), a function of a module, in a process of its own: the server ends the process of a worker
    that breaks the protocol. What it raises is told in the file `log`."""
    process = clean.Process(target=_dial, args=(str(log), work, arguments), daemon=True)
    process.start()
    return process


def _dial(log, work, arguments):
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 2)
    work(*arguments)


@contextlib.contextmanager
def guest(server, name="guest"):
    """The link of a worker that was let in and is ready, to speak over by hand. A process of its own dialled and lives
    as long as the link: the server takes it for the worker, and may end it."""
    folder = server.folder / "data"
    ours, theirs = clean.Pipe()
    log = server.folder / f"{name}.log"
    log.touch()
    process = dialling(log, _lend, str(folder / "workers.sock"), theirs)
    theirs.close()
    try:
        link = Link.over(socket.socket(fileno=multiprocessing.reduction.recv_handle(ours)))
        try:
            answer = link.join((folder / "worker.secret").read_text().strip(), name)
            assert answer is None, answer
            link.say(READY, {})
            yield link
        finally:
            link.close()
    finally:
        process.kill()
        process.join()
        ours.close()


def _lend(path, whom):
    """Dials, gives the connection to whom it is for, and keeps none of it; waits for its own end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dialled:
        dialled.connect(path)
        multiprocessing.reduction.send_handle(whom, dialled.fileno(), None)
    whom.poll(None)


@contextlib.contextmanager
def beating(link):
    """The worker's heartbeats meanwhile: however long it takes, the worker is not silent."""
    enough = threading.Event()

    def beat():
        while not enough.wait(1):
            link.say(HEARTBEAT, {"handler_progress": 0, "tasks_running": 0})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
