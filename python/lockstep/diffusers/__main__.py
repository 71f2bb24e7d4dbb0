"""The worker process: `python -m lockstep.diffusers`, started by the orchestrator.

LOCKSTEP_DEVICE names the device ("cpu", the default, or "cuda:N"), LOCKSTEP_TORCH_THREADS the CPU
threads.
"""

import os
import sys


def _telling(worker, device: str, handler):
    """`handler`, after which the runtime is told what the device's allocator holds, whatever came of the task."""
    from .memory import allocator_statistics

    def handle(task):
        try:
            return handler(task)
        finally:
            statistics = allocator_statistics(device)
            if statistics is not None:
                worker.set_allocator(**statistics)

    return handle


def main() -> int:
    from lockstep import Worker

    # First of all: the runtime says hello on its own thread while the imports below take seconds.
    worker = Worker.from_environment()
    from . import runtime
    from .errors import TaskFailed

    runtime.prepare_environment()
    try:
        from .handlers import Handlers

        # The libraries of the model classes, so that the first load does not wait for them.
        import diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl  # noqa: F401
        import spandrel  # noqa: F401
    except ImportError as error:
        print(
            f"lockstep worker: the Python package {error.name or error} is missing; "
            "python/requirements.txt lists what an image worker needs",
            file=sys.stderr,
        )
        return 1
    try:
        handlers = Handlers(os.environ.get("LOCKSTEP_DEVICE") or "cpu", worker.state)
    except TaskFailed as error:
        print(f"lockstep worker: {error.message}", file=sys.stderr)
        return 1
    for kind in ("load", "release", "inference", "inference_batch", "postprocess"):
        worker.on(kind, _telling(worker, handlers.device, getattr(handlers, kind)))
    worker.ready()
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
