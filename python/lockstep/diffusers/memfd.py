"""Sealed anonymous files: how results leave the worker."""

import fcntl
import os

ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

# The kernel refuses longer names.
_NAME_BYTES = 249


def sealed(name: str, *parts) -> int:
    """Return the descriptor of a new sealed memfd that holds `parts` (bytes-like) one after another.

    The caller owns the descriptor. Raises OSError when memory runs out; nothing is left open then.
    """
    short = name.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore").replace("\0", " ")
    fd = os.memfd_create(short, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_all(fd: int, size: int) -> bytes:
    """Return a private copy of the first `size` bytes of `fd`, fewer when the file ends before.

    Reads at absolute offsets: the shared file position of a passed descriptor does not matter.
    """
    parts, offset = [], 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
