"""What the process holds: mappings of the model cache, and the peak of one task."""

import os
import resource


def mapped_bytes(inodes: set[int]) -> int:
    """Bytes of this process's memfd mappings whose file is one of `inodes`, from /proc/self/smaps.

    The inode decides, not the name: a name is shortened by the kernel, an inode is not.
    """
    total = 0
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            fields = line.split(None, 5)
            # Address lines are "start-end perms offset dev inode path"; counter lines end with kB.
            if len(fields) == 6 and "-" in fields[0] and fields[5].startswith("/memfd:"):
                if int(fields[4]) in inodes:
                    start, end = fields[0].split("-")
                    total += int(end, 16) - int(start, 16)
    return total


def resident_bytes() -> int:
    """Resident set size of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allocator_statistics(device: str) -> dict[str, int] | None:
    """What torch's allocator says of "cuda:N", in the words of Worker.set_allocator; None on a CPU, which has none."""
    if not device.startswith("cuda"):
        return None
    import torch

    stats = torch.cuda.memory_stats(device)
    return {
        "allocated": stats.get("allocated_bytes.all.current", 0),
        "reserved": stats.get("reserved_bytes.all.current", 0),
        "inactive_split": stats.get("inactive_split_bytes.all.current", 0),
        "retries": stats.get("num_alloc_retries", 0),
        "out_of_memory": stats.get("num_ooms", 0),
    }


class PeakMeter:
    """Measures the memory peak of one task.

    On "cpu" it is the growth of the resident set over its size at the start (the kernel's peak
    mark is set back first; where that is refused the mark covers the whole life of the process,
    so the figure is then an upper bound). On "cuda:N" it is torch's peak of allocated bytes, the
    weights included.
    """

    def __init__(self, device: str):
        self._device = device
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        else:
            try:
                with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
                    clear.write("5")
            except OSError:
                pass
            self._start = resident_bytes()

    def bytes(self) -> int:
        """Peak in bytes since the meter was made."""
        if self._device.startswith("cuda"):
            import torch

            return torch.cuda.max_memory_allocated(self._device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(0, peak - self._start)
