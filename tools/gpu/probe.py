#!/usr/bin/env python3
"""Says what of this machine lockstep's workers can rely on: kernel, driver, and each mechanism tried for real.

    tools/gpu/probe.py [--json]

One line for each: works, fails (with the error), or absent (there is no GPU, no torch, no such file). The exit status
is 0 whatever it finds; it is 1 when a mechanism that needs no GPU fails. Python's standard library is enough; torch is
used where it is installed.
"""

import ctypes
import fcntl
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import subprocess
import sys

MAKE = "--make"  # how this program starts itself to be the other process
READ_ONLY_REGISTRATION = 8  # cudaHostRegisterReadOnly
ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Absent(Exception):
    """What would be tried is not on this machine."""


def torch_with_gpu():
    try:
        import torch
    except ImportError:
        raise Absent("torch is not installed") from None
    if not torch.cuda.is_available():
        raise Absent("torch sees no CUDA device")
    return torch


def sealed(size):
    """A sealed memory file of `size` bytes, filled; the caller closes it."""
    fd = os.memfd_create("lockstep:probe", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    block = os.urandom(1 << 20)
    for offset in range(0, size, len(block)):
        os.pwrite(fd, block[: size - offset], offset)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    return fd


def from_another_process(size):
    """The same, made by a process that has ended since and passed the descriptor over a socket."""
    ours, theirs = socket.socketpair()
    child = subprocess.Popen([sys.executable, __file__, MAKE, str(size), str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    if child.wait() != 0 or len(fds) != 1:
        raise OSError("no descriptor arrived")
    return fds[0]


def memfd_seals():
    fd = sealed(1 << 20)
    try:
        os.pwrite(fd, b"x", 0)
    except PermissionError:
        return "a sealed file refuses writes"
    finally:
        os.close(fd)
    raise OSError("a sealed file was written to")


def sealing_with_a_writable_mapping():
    fd = os.memfd_create("lockstep:probe", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    window = mmap.mmap(fd, 4096)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    except OSError as error:
        return f"refused while a writable mapping exists ({error.strerror}): unmap, then seal"
    finally:
        window.close()
        os.close(fd)
    raise OSError("sealing succeeded beside a writable mapping")


def descriptor_passing():
    os.close(from_another_process(4096))
    return "SCM_RIGHTS over a Unix socket, from a process that has ended"


def process_handles():
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    handle = os.pidfd_open(child.pid)
    try:
        if select.select([handle], [], [], 0)[0]:
            raise OSError("the handle of a living process is readable")
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], 10)[0]:
            raise OSError("the handle did not become readable after the end")
        return "pidfd_open, signal, and the end by poll"
    finally:
        child.kill()
        child.wait()
        os.close(handle)


def memory_pressure():
    try:
        with open("/proc/pressure/memory", encoding="ascii") as file:
            return file.readline().strip()
    except FileNotFoundError:
        raise Absent("/proc/pressure/memory is not there") from None


def cgroup_memory():
    try:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            group = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group}/memory.max", encoding="ascii") as file:
            return f"memory.max of {group} is {file.read().strip()}"
    except (OSError, StopIteration):
        raise Absent("this process is in no cgroup (v2) with a memory limit file") from None


def read_only_registration():
    torch = torch_with_gpu()
    size = 64 << 20
    fd = from_another_process(size)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    torch.cuda.init()
    runtime = torch.cuda.cudart()
    code = int(runtime.cudaHostRegister(address, size, READ_ONLY_REGISTRATION))
    if code:
        raise OSError(f"cudaHostRegister with the read-only flag gives CUDA error {code}")
    host = torch.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype=torch.uint8)
    device = torch.empty(size, dtype=torch.uint8, device="cuda").copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    equal = torch.equal(device.cpu(), torch.frombuffer(bytearray(os.pread(fd, size, 0)), dtype=torch.uint8))
    runtime.cudaHostUnregister(address)
    os.close(fd)
    if not equal:
        raise OSError("the copy differs from its source")
    return "a sealed file of another process, copied to the GPU and equal"


def nvml_process_bytes():
    torch = torch_with_gpu()
    held = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise Absent(str(error)) from None

    class Process(ctypes.Structure):
        _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu", ctypes.c_uint), ("ci", ctypes.c_uint)]

    device, count = ctypes.c_void_p(), ctypes.c_uint(64)
    found = (Process * 64)()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        raise OSError("NVML does not start")
    code = nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), found)
    if code:
        raise OSError(f"NVML error {code}")
    pids = [found[i].pid for i in range(count.value)]
    mine = [found[i].used for i in range(count.value) if found[i].pid == os.getpid()]
    del held
    if not mine:
        raise OSError(f"this process ({os.getpid()}) is not among {pids}: another pid namespace?")
    return f"{mine[0] >> 20} MiB for this process, which holds 256 MiB"


def gpu():
    torch = torch_with_gpu()
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name(0)}, {free >> 20} of {total >> 20} MiB free, torch {torch.__version__}"


def driver():
    try:
        with open("/proc/driver/nvidia/version", encoding="ascii") as file:
            return file.readline().strip()
    except FileNotFoundError:
        pass
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        raise Absent("no NVIDIA driver") from None


def limits():
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"locked memory {'unlimited' if locked < 0 else locked}, open files {files}, user {os.getuid()}"


# name, what tries it, whether it can only work with a GPU
MECHANISMS = [
    ("limits", limits, False),
    ("memfd seals", memfd_seals, False),
    ("seal beside a mapping", sealing_with_a_writable_mapping, False),
    ("descriptor passing", descriptor_passing, False),
    ("process handles", process_handles, False),
    ("memory pressure", memory_pressure, False),
    ("cgroup memory", cgroup_memory, False),
    ("NVIDIA driver", driver, True),
    ("GPU", gpu, True),
    ("read-only registration", read_only_registration, True),
    ("NVML process bytes", nvml_process_bytes, True),
]


def probe():
    rows = [
        {"name": "kernel", "result": "works", "detail": f"{platform.release()} ({platform.machine()})"},
        {"name": "runtime", "result": "works", "detail": f"{' '.join(platform.libc_ver())}, Python {platform.python_version()}"},
    ]
    for name, attempt, needs_gpu in MECHANISMS:
        try:
            rows.append({"name": name, "result": "works", "detail": attempt()})
        except Absent as why:
            rows.append({"name": name, "result": "absent", "detail": str(why)})
        except Exception as error:  # whatever it is, the next line is still wanted
            result = "fails" if not needs_gpu else "fails on the GPU"
            rows.append({"name": name, "result": result, "detail": f"{type(error).__name__}: {error}"})
    return rows


def main():
    if sys.argv[1:2] == [MAKE]:
        fd = sealed(int(sys.argv[2]))
        socket.send_fds(socket.socket(fileno=int(sys.argv[3])), [b"x"], [fd])
        return 0
    rows = probe()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"probe": rows}))
    else:
        for row in rows:
            print(f"{row['name']:24} {row['result']:18} {row['detail']}")
    return 1 if any(row["result"] == "fails" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
