"""Process-wide settings: no network, fixed thread count, repeatable arithmetic."""

import os

from .errors import INVALID_ARGUMENT, TaskFailed

# Read by the libraries while they are imported, so they are set before any of them is.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_TELEMETRY": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # The deterministic workspace of the matrix library; without it some products may differ.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def prepare_environment() -> None:
    """Set the libraries' environment. Call it before torch, transformers or diffusers is imported.

    Keeps values that are already set, except the ones that forbid the network.
    """
    for name, value in _ENVIRONMENT.items():
        if name.endswith("OFFLINE"):
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)


def thread_count() -> int:
    """Threads for torch: LOCKSTEP_TORCH_THREADS, or half of the usable cores, at least one.

    Raises TaskFailed(invalid_argument) when the variable is not a positive whole number.
    """
    text = os.environ.get("LOCKSTEP_TORCH_THREADS", "")
    if not text:
        return max(1, len(os.sched_getaffinity(0)) // 2)
    if not text.isdecimal() or int(text) < 1:
        raise TaskFailed(INVALID_ARGUMENT, f"LOCKSTEP_TORCH_THREADS is {text!r}, not a positive whole number")
    return int(text)


def configure_torch() -> None:
    """Fix torch's thread count and ask for deterministic kernels.

    The order in which a sum is split over threads changes its last bits, so two processes yield
    equal bytes only with equal thread counts.
    """
    prepare_environment()
    import torch

    torch.set_num_threads(thread_count())
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # Filling every new tensor is only of use for finding reads of unset memory, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
