"""What a handler raises to say which specific thing went wrong."""


class TaskFailed(Exception):
    """The task has failed with one of the codes of lockstep's error table.

    code     "invalid_argument", "resource_exhausted", "data_loss", "cancelled", "unavailable" or "internal"
    message  a whole sentence for people
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
