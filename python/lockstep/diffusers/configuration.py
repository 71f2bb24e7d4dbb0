"""The component "configuration": a model's tokenizers, configurations and other small files, as one segment.

The segment has the shape of the others (segments.py) with {"files": {name: {"offset", "bytes"}}} for
tensors; a name is a path below the model's folder, with slashes. The libraries read folders, so the
files are unpacked for the time of a load, into memory where the system has a file system of that kind.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from .errors import DATA_LOSS, RESOURCE_EXHAUSTED, TaskFailed
from .memfd import read_all
from .segments import check_seals, read_header

NAME = "configuration"

_PREFIX = "lockstep-configuration-"
_TMPFS = "/dev/shm"


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _stays_below(name: str) -> bool:
    """Whether the name is one of a file below whatever folder it is unpacked in."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def read(fd: int, size: int, sha256: str) -> dict[str, bytes]:
    """Return {name: content} of the segment's files, in order of name; owns `fd`, also when it raises.

    Nothing of it stays mapped. Raises TaskFailed: invalid_argument for a descriptor that is not a
    fully sealed memfd, data_loss for a header that does not describe the file, for a name that leads
    out of a folder, and when the contents, one after another, do not have the announced sha256.
    """
    try:
        check_seals(fd)
        held = os.fstat(fd).st_size
        if not 0 < size <= held:
            raise TaskFailed(DATA_LOSS, f"the segment has {held} bytes, {size} were announced")
        header, data_start = read_header(fd, size, "files")
        data = read_all(fd, size)
    finally:
        os.close(fd)
    files, digest = {}, hashlib.sha256()
    for name in header["files"]:
        if not _stays_below(name):
            raise TaskFailed(DATA_LOSS, f"the configuration file {name!r} is not below the model's folder")
    for name, entry in sorted(header["files"].items(), key=lambda each: os.fsencode(each[0])):
        offset, length = (entry.get("offset"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        if not _is_count(offset) or not _is_count(length):
            raise TaskFailed(DATA_LOSS, f"the configuration file {name!r} has no whole offset and length")
        if offset < data_start or offset > size or length > size - offset:
            raise TaskFailed(
                DATA_LOSS,
                f"the configuration file {name!r} covers bytes {offset} to {offset + length}, outside the segment",
            )
        files[name] = data[offset : offset + length]
        digest.update(files[name])
    if digest.hexdigest() != sha256.lower():
        raise TaskFailed(DATA_LOSS, f"the configuration's files have the sha256 {digest.hexdigest()}, not {sha256}")
    return files


def _claim(base: str) -> tuple[str, int]:
    """Return a new private folder in `base`, and a descriptor of it that holds its lock.

    The lock ends with the process, however it ends. That tells the folder of a living process from
    one that was left behind, also where processes of several containers share `base`.
    """
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # taken for a dead one's between the two calls
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return path, fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def remove_left_behind(base: str) -> None:
    """Remove the folders in `base` whose processes died in the middle of a load."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(base):
            if not entry.name.startswith(_PREFIX):
                continue
            with contextlib.suppress(OSError):  # in use, somebody else's, or gone
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(fd).st_uid == os.geteuid():
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)


def _write(folder: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = os.path.join(folder, *name.split("/"))
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)


@contextlib.contextmanager
def unpacked(files: dict[str, bytes]) -> Iterator[str]:
    """Within, the path of a private folder with the files; it is gone afterwards.

    A process that dies within leaves its folder to the next one that comes here, and at the latest to
    the machine's next start where it is in memory. Raises TaskFailed(resource_exhausted) when there
    is no room for it.
    """
    problem = None
    for base in dict.fromkeys((_TMPFS, tempfile.gettempdir())):
        if not os.access(base, os.W_OK | os.X_OK):
            continue
        remove_left_behind(base)
        folder, lock = _claim(base)
        try:
            try:
                _write(folder, files)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                problem = error
                continue
            yield folder
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    raise TaskFailed(RESOURCE_EXHAUSTED, f"there is no room to unpack the model's configuration: {problem}")
