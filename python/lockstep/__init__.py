"""lockstep for Python: write a worker in a few lines.

    import lockstep

    worker = lockstep.Worker.from_environment()   # joins the orchestrator that started this process

    @worker.on("inference")
    def inference(task):
        task.progress({"step": 1, "total_steps": 1, "step_time_avg": 0.1})
        return {...}, [fd]

    worker.ready()
    worker.run()

The native runtime is imported when a Worker is made, so the rest of the package works without it.
"""

from lockstep.errors import TaskFailed
from lockstep.worker import Task, Worker

__all__ = ["Task", "TaskFailed", "Worker"]
