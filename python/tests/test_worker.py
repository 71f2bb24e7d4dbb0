"""The friendly layer: tasks as dicts, and a batch for a worker that was written for single images."""

import json

from lockstep.worker import Worker


class Native:
    """A task of the runtime, which remembers what it was told."""

    def __init__(self, kind: str, body: dict):
        self.kind = kind
        self.body = json.dumps(body)
        self.cancelled = False
        self.told = []

    def take_fds(self):
        return []

    def progress(self, report):
        self.told.append(("progress", json.loads(report)))

    def part(self, request_id, report, fds):
        self.told.append(("part", request_id, json.loads(report), fds))

    def done(self, report, fds):
        self.told.append(("done", json.loads(report), fds))

    def failed(self, code, message):
        self.told.append(("failed", code, message))


BATCH = {"batch_id": "b1", "images": [{"request_id": "r1", "seed": 7}, {"request_id": "r2", "seed": 8}]}


def test_a_batch_is_made_image_by_image_where_no_handler_takes_it_whole():
    worker = Worker(None)

    @worker.on("inference")
    def inference(task):
        task.progress({"step": task.body["seed"]})
        return {"sha256": task.body["request_id"]}, [task.body["seed"] * 10]

    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [
        ("progress", {"step": 7}),
        ("part", "r1", {"sha256": "r1"}, [70]),
        ("progress", {"step": 8}),
        ("part", "r2", {"sha256": "r2"}, [80]),
        ("done", {}, []),
    ]


def test_an_image_that_fails_ends_the_batch_and_keeps_what_was_handed_over():
    worker = Worker(None)

    class Exhausted(Exception):
        code, message = "resource_exhausted", "no memory"

    @worker.on("inference")
    def inference(task):
        if task.body["seed"] == 8:
            raise Exhausted
        return {}, []

    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [("part", "r1", {}, []), ("failed", "resource_exhausted", "no memory")]


def test_a_handler_of_batches_gets_them_whole():
    worker = Worker(None)
    worker.on("inference", lambda task: None)
    worker.on("inference_batch", lambda task: ({"images": len(task.body["images"])}, []))
    native = Native("inference_batch", BATCH)
    worker._handle(native)
    assert native.told == [("done", {"images": 2}, [])]


def test_a_worker_without_either_says_so(capsys):
    native = Native("inference_batch", BATCH)
    Worker(None)._handle(native)
    assert native.told[0][:2] == ("failed", "internal") and "no handler for inference tasks" in native.told[0][2]
    capsys.readouterr()
