#!/usr/bin/env python3
"""A disk with a write cache and faults, as one file: what the kernel's loop device and ext4 stand on.

    disk_device.py IMAGE FILE SEED      serves FILE through /dev/fuse, with what IMAGE holds; root only

IMAGE has what is durable. A write goes into the cache, a flush makes everything in the cache durable, and now and then
the device writes something back of its own accord, as disks do. It says "ready", then obeys lines on its standard
input and answers each with "ok" and a number:

    none              no fault from here on
    write SHARE       this share of the writes fails with EIO and changes nothing
    flush SHARE       this share of the flushes fails with EIO; what was in the cache stays there
    slow SECONDS      every write and flush is answered so much later
    lie               flushes are answered and keep nothing
    freeze            nothing is answered any more
    freeze-in-flush   the same, from the next flush on, which is not carried out
    frozen            whether it is: 1 or 0
    cut SHARE         the power is gone: this share of the sectors in the cache, drawn by the seed, became durable, the
                      others are lost, and every call fails from here on; the number of lost sectors
    count             how many writes and flushes failed

It ends with its standard input.
"""

import ctypes
import errno
import os
import pathlib
import random
import select
import stat
import struct
import sys

SECTOR = 512
WRITE_MAX = 1 << 20
ROOT_INODE = 1
GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 3, 4, 14, 15, 16, 17, 18, 20, 25, 26
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
NO_ANSWER = (FORGET, INTERRUPT, BATCH_FORGET)
IN = struct.Struct("<IIQQIIIHH")  # length, what, unique, inode, uid, gid, pid, ...
OUT = struct.Struct("<IiQ")


class Disk:
    """The sectors, and what a fault does to them."""

    def __init__(self, image, seed):
        self.file = os.open(image, os.O_RDWR)
        self.bytes = bytearray(os.pread(self.file, os.fstat(self.file).st_size, 0))
        self.dirty = set()
        self.random = random.Random(seed)
        self.failing = {"write": 0.0, "flush": 0.0}
        self.failed = 0
        self.slow, self.lies, self.dead = 0.0, False, False
        self.frozen, self.freezes_in_flush = False, False

    def keep(self, sectors):
        for sector in sectors:
            at = sector * SECTOR
            os.pwrite(self.file, self.bytes[at:at + SECTOR], at)
        self.dirty.difference_update(sectors)

    def fails(self, what):
        fails = self.dead or self.random.random() < self.failing[what]
        self.failed += fails
        return fails

    def read(self, at, size):
        return None if self.dead else bytes(self.bytes[at:at + size])

    def write(self, at, data):
        if self.fails("write") or at + len(data) > len(self.bytes):
            return False
        sectors = range(at // SECTOR, (at + len(data) + SECTOR - 1) // SECTOR)
        if not self.lies and self.random.random() < 0.1:  # so that a cut may find an older version of what was written twice
            self.keep(self.dirty.intersection(sectors))
        self.bytes[at:at + len(data)] = data
        self.dirty.update(sectors)
        return True

    def flush(self):
        if self.fails("flush"):
            return False
        if not self.lies:
            self.keep(list(self.dirty))
        return True

    def obey(self, line):
        word, *rest = line.split()
        share = float(rest[0]) if rest else 0.0
        if word in ("count", "frozen"):
            return self.failed if word == "count" else int(self.frozen)
        if word == "freeze-in-flush":
            self.freezes_in_flush = True
            return 0
        if word == "cut":
            self.keep([sector for sector in sorted(self.dirty) if self.random.random() < share])
            self.dead, self.frozen, self.freezes_in_flush, self.slow = True, False, False, 0.0
            return len(self.dirty)
        self.failing = {"write": 0.0, "flush": 0.0}
        self.slow, self.frozen, self.lies = 0.0, word == "freeze", self.lies or word == "lie"
        if word == "slow":
            self.slow = share
        elif word in self.failing:
            self.failing[word] = share
        elif word not in ("none", "freeze", "lie"):
            raise SystemExit(f"disk_device: {line!r} is no command")
        return 0


class Served:
    """The disk as a file of the kernel's: one inode, the root of its own file system."""

    def __init__(self, disk, path):
        self.disk = disk
        self.held = None  # the flush in which the disk froze
        self.fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fuse},rootmode={stat.S_IFREG:o},user_id=0,group_id=0,max_read={WRITE_MAX}".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"lockstep-disk", os.fsencode(path), b"fuse", 0, options) != 0:
            raise SystemExit(f"disk_device: cannot mount on {path}: {os.strerror(ctypes.get_errno())}")
        # Not one of those that keep the file system above mounted: when all are killed, the last of them unmounts it and
        # waits for this disk, which must not be itself.
        if libc.unshare(0x00020000) != 0 or libc.mount(None, b"/", None, 0x4000 | 0x40000, None) != 0:
            raise SystemExit(f"disk_device: no mount namespace of its own: {os.strerror(ctypes.get_errno())}")

    def attributes(self):
        size = len(self.disk.bytes)
        return struct.pack("<QII", 1, 0, 0) + struct.pack(
            "<QQQQQQIIIIIIIIII", ROOT_INODE, size, size // SECTOR, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o600, 1, 0, 0, 0,
            4096, 0)

    def answer(self, what, body):
        """An error number below zero, or the bytes of the answer."""
        disk = self.disk
        if what == INIT:
            _, minor, readahead, _ = struct.unpack_from("<IIII", body)
            flags = 1 << 0 | 1 << 5 | 1 << 22  # asynchronous reads, big writes, max_pages
            return struct.pack("<IIIIHHIIHHI", 7, min(minor, 31), readahead, flags, 16, 12, WRITE_MAX, 1,
                               WRITE_MAX // 4096, 0, 0) + bytes(28)
        if what in (GETATTR, SETATTR):
            return self.attributes()
        if what == OPEN:
            return struct.pack("<QII", 0, 1, 0)  # direct: the kernel keeps no second copy
        if what in (RELEASE, FLUSH):
            return b""
        if what == STATFS:
            return struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24)
        if what in (WRITE, FSYNC) and disk.slow:
            select.select([], [], [], disk.slow)
        if what == READ:
            _, at, size = struct.unpack_from("<QQI", body)
            data = disk.read(at, size)
            return -errno.EIO if data is None else data
        if what == WRITE:
            _, at, size = struct.unpack_from("<QQI", body)
            return struct.pack("<II", size, 0) if disk.write(at, body[40:40 + size]) else -errno.EIO
        if what == FSYNC:
            return b"" if disk.flush() else -errno.EIO
        return -errno.ENOSYS

    def one(self):
        """One call of the kernel's. False: the file is no longer mounted."""
        try:
            call = os.read(self.fuse, WRITE_MAX + 8192)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):  # ENOENT: the caller gave up meanwhile
                return True
            return False
        _, what, unique, *_ = IN.unpack_from(call)
        if what in NO_ANSWER:
            return True
        if what == FSYNC and self.disk.freezes_in_flush:
            self.disk.frozen, self.held = True, unique
            return True
        self.say(unique, self.answer(what, memoryview(call)[IN.size:]))
        return True

    def say(self, unique, said):
        error, body = (said, b"") if isinstance(said, int) else (0, said)
        try:
            os.write(self.fuse, OUT.pack(OUT.size + len(body), error, unique) + body)
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise

    def let_go(self):
        """The flush in which it froze has failed, since that ended with a cut."""
        if self.held is not None and not self.disk.frozen:
            self.say(self.held, -errno.EIO)
            self.held = None


def main():
    image, path, seed = sys.argv[1:]
    disk = Disk(image, seed)
    served = Served(disk, pathlib.Path(path))
    print("ready", flush=True)
    commands = ""
    while True:
        ready, _, _ = select.select([sys.stdin] if disk.frozen else [sys.stdin, served.fuse], [], [])
        if sys.stdin in ready:
            data = os.read(sys.stdin.fileno(), 4096).decode()
            if not data:
                return
            *lines, commands = (commands + data).split("\n")
            for line in lines:
                said = disk.obey(line)
                served.let_go()
                print("ok", said, flush=True)
        elif not served.one():
            return


if __name__ == "__main__":
    main()
