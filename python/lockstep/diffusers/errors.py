"""Failures that a task reports to the orchestrator."""

from lockstep import errors as base

INVALID_ARGUMENT = "invalid_argument"
RESOURCE_EXHAUSTED = "resource_exhausted"
DATA_LOSS = "data_loss"
INTERNAL = "internal"
CANCELLED = "cancelled"

CODES = frozenset({INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DATA_LOSS, INTERNAL, CANCELLED})


class TaskFailed(base.TaskFailed):
    """A task ended without a result.

    `code` is one of CODES, `message` one sentence for the person who reads the task's record.
    Raises ValueError for a code outside CODES.
    """

    def __init__(self, code: str, message: str):
        if code not in CODES:
            raise ValueError(f"unknown failure code {code!r}")
        super().__init__(code, message)


class Cancelled(TaskFailed):
    """The orchestrator asked for the task to stop, and it did."""

    def __init__(self, message: str = "the task was cancelled"):
        super().__init__(CANCELLED, message)
