"""The friendly layer of a worker: tasks as dicts, handlers as functions."""

import json
import os
import signal
import sys
import traceback
import typing

if typing.TYPE_CHECKING:
    from lockstep.state import State


class Task:
    """One task for a handler.

    kind       "load", "release", "inference", "inference_batch" or "postprocess"
    body       dict; src/worker/reports.h has the shapes
    fds        descriptors that came with it, owned by the handler
    cancelled  polled by the handler at each step and each copied chunk
    """

    def __init__(self, native):
        self._native = native
        self.kind = native.kind
        self.body = json.loads(native.body)
        self.fds = native.take_fds()

    @property
    def cancelled(self) -> bool:
        return self._native.cancelled

    def progress(self, report: dict) -> None:
        """Newest wins: a report that was not sent yet is overwritten."""
        self._native.progress(json.dumps(report))

    def part(self, request_id: str, report: dict, fds: list[int]) -> None:
        """Hands over one image of a batch, with its descriptor, while the task goes on."""
        self._native.part(request_id, json.dumps(report), list(fds))


class _ImageOfBatch:
    """One image of a batch as a task of its own, for a handler that makes one at a time."""

    kind = "inference"

    def __init__(self, batch: Task, body: dict):
        self._batch = batch
        self.body = body
        self.fds = []

    @property
    def cancelled(self) -> bool:
        return self._batch.cancelled

    def progress(self, report: dict) -> None:
        self._batch.progress(report)


class Worker:
    """A worker process. Its C++ thread speaks the protocol from the moment it is made; handlers run in run()."""

    def __init__(self, runtime):
        self._runtime = runtime
        self._handlers = {}

    @classmethod
    def from_environment(cls) -> "Worker":
        """Joins the orchestrator over the link this process inherited; RuntimeError when there is none."""
        from lockstep import _native

        # Ctrl-C on a terminal is for the orchestrator: it drains, and ends its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return cls(_native.Runtime.from_environment())

    @classmethod
    def dial(
        cls,
        address: str,
        worker_id: str,
        *,
        memory: int,
        secret: str = "",
        certificate: str = "",
        key: str = "",
        authority: str = "",
        device: str = "cpu",
        patience: float = 30.0,
    ) -> "Worker":
        """Joins an orchestrator that did not start this process.

        address    the path of workers.sock in its data directory, or tls://host:port
        memory     bytes of the device that lockstep may use
        secret     for a path: what stands in worker.secret there
        certificate, key, authority
                   for tls://: PEM files; the certificate's name is worker_id (lockstep certificates make)
        patience   seconds to look for an orchestrator, now and after each loss, before the process ends

        ValueError for what cannot be right. Whether it is let in shows in the process's standard error.
        """
        from lockstep import _native

        return cls(
            _native.Runtime.dial(address, worker_id, secret, certificate, key, authority, device, memory, patience)
        )

    def on(self, kind: str, handler=None):
        """Registers the handler of a kind of task; also usable as a decorator."""
        if handler is None:
            return lambda function: self.on(kind, function)
        self._handlers[kind] = handler
        return handler

    def ready(self) -> None:
        """Tells the orchestrator that tasks may come."""
        self._runtime.handlers_ready()

    def set_allocator(
        self, allocated: int, reserved: int = 0, inactive_split: int = 0, retries: int = 0, out_of_memory: int = 0
    ) -> None:
        """What the framework's allocator says of the device, in bytes and times since the start.

        Without it the runtime counts the model segments that this process maps, which is right on a CPU.
        """
        self._runtime.set_allocator(allocated, reserved, inactive_split, retries, out_of_memory)

    def ask_memory(self, request_id: str, requested_bytes: int, allocation_purpose: str, priority: str = "normal",
                   estimated_duration: str = "1min") -> None:
        """Asks for memory that the orchestrator manages; ValueError for a value that cannot be right.

        The same request again is harmless. It is asked again by itself after a lost link, until its answer is final.
        """
        self._runtime.ask_memory(json.dumps({
            "event_type": "memory_allocation_request", "request_id": request_id, "requested_bytes": requested_bytes,
            "allocation_purpose": allocation_purpose, "priority": priority, "estimated_duration": estimated_duration}))

    def memory_answer(self, request_id: str) -> dict | None:
        """The newest answer: outcome granted (with its reservation), queued or denied (with the reason)."""
        return self._answer("memory_allocation_request", request_id)

    def _answer(self, request_type: str, request_id: str) -> dict | None:
        text = self._runtime.request_answer(request_type, request_id)
        return None if text is None else json.loads(text)

    def coordinate(self, session_id: str, *, dependent_operations: list[str] = (), requires_model_loading: str = "",
                   requires_memory_allocation: str = "", coordination_priority: str = "normal",
                   request_id: str = "") -> str:
        """Asks other domains for what operations of a session need: a model loaded here, memory ("4GB") of this device.

        dependent_operations  of the session; they start only after it was granted: "inference", "postprocessing", or
                              one of a pipeline
        request_id            for a second request about the same operations

        Returns the id for coordination_answer(); ValueError for a value that cannot be right. The same request again
        is harmless, and it is asked again by itself after a lost link. A model is loaded when this worker is idle: a
        handler that waits for the answer waits for itself.
        """
        needs = {"coordination_priority": coordination_priority}
        if requires_model_loading:
            needs["requires_model_loading"] = requires_model_loading
        if requires_memory_allocation:
            needs["requires_memory_allocation"] = requires_memory_allocation
        body = {"event_type": "cross_domain_coordination", "session_id": session_id, "coordination_request": needs,
                "dependent_operations": list(dependent_operations)}
        if request_id:
            body["request_id"] = request_id
        return self._runtime.coordinate(json.dumps(body))

    def coordination_answer(self, request_id: str) -> dict | None:
        """The newest answer, as memory_answer(); a reservation comes with memory and goes with the session's end."""
        return self._answer("cross_domain_coordination", request_id)

    def renew_memory(self, allocation_id: str, lasts: str) -> None:
        """Holds a granted reservation for so long from now on, as "5min"."""
        self._runtime.update_reservation(json.dumps({"allocation_id": allocation_id, "lasts": lasts}))

    def release_memory(self, allocation_id: str) -> None:
        self._runtime.update_reservation(json.dumps({"allocation_id": allocation_id}))

    def state(self) -> "State":
        """What this worker was told of what others decide, as it is now: policies, routes, the cache, other devices.

        A copy of one moment, which nothing changes any more; from any thread.
        """
        from lockstep.state import read_state  # not before the hello: the messages' types take their time

        return read_state(json.loads(self._runtime.state()))

    def run(self) -> int:
        """Handles tasks until the process is ended by its link; does not return in normal life."""
        while True:
            native = self._runtime.next_task(-1)
            if native is not None:
                self._handle(native)

    def _one_by_one(self, task: Task) -> tuple[dict, list[int]]:
        """A batch for a worker that was written for single images."""
        handler = self._handlers.get("inference")
        if handler is None:
            raise LookupError("this worker has no handler for inference tasks")
        for body in task.body["images"]:
            task.part(body["request_id"], *handler(_ImageOfBatch(task, body)))
        return {}, []

    def _handle(self, native) -> None:
        task = None
        try:
            task = Task(native)
            handler = self._handlers.get(task.kind)
            if handler is None and task.kind == "inference_batch":
                handler = self._one_by_one
            if handler is None:
                raise LookupError(f"this worker has no handler for {task.kind} tasks")
            report, fds = handler(task)
            native.done(json.dumps(report), list(fds))
        except Exception as error:  # a handler's failure is an answer; it never ends the worker
            if not hasattr(error, "code"):
                traceback.print_exc(file=sys.stderr)
            code = getattr(error, "code", "internal")
            message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            if task is None:
                for fd in native.take_fds():
                    os.close(fd)
            native.failed(str(code), str(message))
