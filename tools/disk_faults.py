#!/usr/bin/env python3
"""Runs the orchestrator on a disk that fails, and checks what was promised.

    tools/disk_faults.py [--rounds 20] [--minutes 20] [--seed N] [--models DIR] [--faults LIST] [--json] [--keep]
    tools/disk_faults.py --self-test    shows that the disk loses what it should, and what words are unclear

The data directory is on ext4 on a loop device on a disk of ours (tools/disk_device.py, through /dev/fuse): what was
not flushed is really lost when the power goes. That needs root, and nothing that is not on every Linux machine. Real
processes and requests as in tools/kills.py; each round has one fault while requests run:

    writes    some or all writes fail with EIO          full      the file system has no room
    flushes   some or all flushes fail with EIO         slow      every write and flush takes long
    cut       everything is killed and what was not flushed is lost, or some sectors of it are
    kill      the orchestrator is killed, the next one goes on in the same mount, then a cut
    image     one that a killed orchestrator stored, but for the sync of the folder, is made again, then a cut

After writes, flushes and full, half of the rounds go on in the same mount, and half of those end with a cut. Then
everything comes to rest, and the sentences below are checked; between rounds the file system is checked and mounted
anew. `lie` is no fault of a round but the proof that the checks can fail: flushes do nothing, and then comes a cut.

Exit status 1 when a sentence does not hold; 77 and one line when it cannot run here. All of it lives in its own
mount and process namespaces, so nothing stays, whatever happens. The seed is printed first; the last line sums up.
"""

import argparse
import collections
import ctypes
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from disk_device import SECTOR, Disk  # noqa: E402
from kills_worker import picture  # noqa: E402
from real_run import GUESTS, LIMIT, MODELS, SENTENCES, SIDE, Run, Violation, of_this_run, until  # noqa: E402

NOT_RUN = 77
LAYER = "ext4 on a loop device on tools/disk_device.py (FUSE)"
DISK_BYTES = 96 << 20
FAULTS = ("writes", "flushes", "full", "slow", "cut", "kill", "image")
MORE = {
    "clear": "an orchestrator that met an error of the disk ended with a sentence that names the file and the error",
    "starts": "after the fault a start works without help, and nothing durable is lost",
    "slow": "a slow disk ends no orchestrator",
}
# As the system and SQLite call what the disk did.
ERRORS = re.compile(r"Input/output error|disk I/O error|No space left on device|database or disk is full|"
                    r"Read-only file system|readonly database|unable to open database file|"
                    r"Structure needs cleaning|Bad message")  # ext4, of what it could not read
NO_SENTENCE = re.compile(r"check failed|terminate called|Assertion|Segmentation|Sanitizer")
LOST = re.compile(r"checksum|is missing; the next is|integrity check|malformed|not a database|digest")


def is_clear(status, words, folder):
    """Whether an end with this status and last words is one that a person can act upon."""
    last = next((line for line in reversed(words.splitlines()) if line), "")
    return status > 0 and not NO_SENTENCE.search(words) and folder in last and bool(ERRORS.search(last))


# ---- the disk ----


class Missing(Exception):
    """This machine cannot do it."""


class Mounted:
    """The disk, its file system and where that is mounted."""

    def __init__(self, folder, seed):
        self.image, self.file, self.top, self.seed = folder / "disk.img", folder / "disk", folder / "top", seed
        self.device, self.log, self.starts, self.checks = None, folder / "disk.log", 0, collections.Counter()
        self.top.mkdir()
        self.file.touch()
        with open(self.image, "wb") as file:
            file.truncate(DISK_BYTES)
        self.power_on()
        self.do("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4",
                "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.file)

    def do(self, *command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            raise Missing(f"{' '.join(map(str, command))}: {done.stderr.strip()}")

    def power_on(self):
        self.starts += 1
        with open(self.log, "a") as log:
            self.device = subprocess.Popen(
                [sys.executable, str(pathlib.Path(__file__).with_name("disk_device.py")), str(self.image),
                 str(self.file), f"{self.seed}/{self.starts}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        if self.device.stdout.readline() != "ready\n":
            raise Missing(f"the disk does not start: {self.log.read_text().strip()}")

    def tell(self, line):
        self.device.stdin.write(line + "\n")
        self.device.stdin.flush()
        return int(self.device.stdout.readline().split()[1])

    def mount(self):
        self.do("mount", "-t", "ext4", "-o", "loop,data=ordered,errors=remount-ro", self.file, self.top)

    def unmount(self):
        """What a process may still hold a moment is waited for; the loop device goes with the mount."""
        def let_go():
            return subprocess.run(["umount", str(self.top)], capture_output=True).returncode == 0

        def no_loop():
            return not any(path.read_text().strip() == str(self.file)
                           for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"))

        until("the file system to be let go", let_go, 30, "processes")
        until("the loop device to be let go", no_loop, 30, "processes")

    def power_off(self):
        if self.device is not None:
            self.device.stdin.close()
            self.device.wait(LIMIT)
            self.device = None
            subprocess.run(["umount", str(self.file)], capture_output=True)

    def check(self):
        """As a machine does when it starts: what is not clean is mended without questions."""
        done = subprocess.run(["fsck.ext4", "-f", "-p", str(self.file)], capture_output=True, text=True)
        self.checks[{0: "clean", 1: "mended"}.get(done.returncode, "mended by force")] += 1
        if done.returncode > 1:
            print(f"disk_faults: fsck: {done.stdout}{done.stderr}", file=sys.stderr, flush=True)
            subprocess.run(["fsck.ext4", "-f", "-y", str(self.file)], capture_output=True)

    def can_be_written(self):
        probe = self.top / "probe"
        try:
            with open(probe, "wb", buffering=0) as file:
                file.write(b"probe")
                os.fsync(file.fileno())
            probe.unlink()
            return True
        except OSError:
            return False


# ---- rounds ----


class DiskRun(Run):
    name = "disk_faults"
    sentences = SENTENCES | MORE

    def __init__(self, options, folder):
        self.disk = Mounted(folder, options.seed)
        super().__init__(options, folder, self.disk.top / "data")
        self.rounds, self.ends, self.after = (collections.Counter() for _ in range(3))
        self.failing = None  # the fault whose errors may be met now

    def faults(self):
        return sum(self.rounds.values())

    def keep_running(self):
        """Starts what is not there. Who ended by itself must have met the fault, and said so."""
        process = self.orchestrator.process
        if process.poll() is not None:
            words, status = self.orchestrator.words(), process.returncode
            GUESTS.discard(process.pid)
            started = self.orchestrator.listening()
            if LOST.search(words.splitlines()[-1] if words else ""):
                self.violate("starts", f"ended with {status}: {words}")
            elif self.failing not in ("writes", "flushes", "full"):
                self.violate("slow" if self.failing == "slow" else "starts", f"ended with {status}: {words}")
            elif not is_clear(status, words, str(self.orchestrator.data)):
                self.violate("clear", f"ended with {status}: {words}")
            self.ends[f"{'ended' if started else 'refused to start'}, {self.failing}"] += 1
            self.out_of_time()
            threading.Event().wait(0.2)  # as whoever looks after it would
            self.orchestrator.begin()
        for guest in self.guests:
            guest.keep()

    def ready(self):
        self.keep_running()
        return self.orchestrator.listening() and (a := self.ask("GET", "/readyz")) and a[0] == 200

    def go_on(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keep_running()
            threading.Event().wait(0.05)

    def kill(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_everything(self):
        while left := of_this_run(str(self.folder)):
            self.kill(left)
            threading.Event().wait(0.02)
        for each in (self.orchestrator, *self.guests):
            if each.process is not None:
                each.process.wait(LIMIT)
                GUESTS.discard(each.process.pid)
        self.notes.living()  # reaps the others

    def cut_power(self, at_once=False):
        """Nobody says anything after the disk stopped: what was said before is what counts. Mostly it stops in a flush:
        then there is something to lose, and somebody waits for it."""
        running = of_this_run(str(self.folder))
        if not at_once and self.random.random() < 0.7:
            self.disk.tell("freeze-in-flush")
            end = time.monotonic() + 2
            while not self.disk.tell("frozen") and time.monotonic() < end:
                threading.Event().wait(0.002)
            self.moments["cut in a flush"] += self.disk.tell("frozen")
        self.disk.tell("freeze")
        self.kill(running)
        # Who waits for the disk can die when it answers.
        self.moments["sectors lost"] += self.disk.tell(f"cut {self.random.choice((0, self.random.random()))}")
        self.kill_everything()
        self.disk.unmount()
        self.disk.power_off()
        self.disk.power_on()
        self.disk.mount()  # replays the journal of the file system
        self.disk.unmount()
        self.disk.check()
        self.disk.mount()
        self.failing = None
        self.orchestrator.begin()

    def remount(self):
        self.kill_everything()
        self.disk.unmount()
        self.disk.check()
        self.disk.mount()
        self.failing = None
        self.orchestrator.begin()

    def fault(self, what):
        chance = self.random
        before_a_cut = {"cut": lambda: None, "kill": self.die_in_place, "image": self.find_left_over, "lie": self.lie}
        if what in before_a_cut:
            before_a_cut[what]()
            return self.cut_power(at_once=what == "image")
        self.failing, life = what, self.orchestrator.life
        filler = self.disk.top / "filler"
        if what == "full":
            with open(filler, "wb", buffering=0) as file:
                for size in (1 << 20, 4096):
                    try:
                        while os.write(file.fileno(), bytes(size)):
                            pass
                    except OSError:
                        pass
        else:
            self.disk.tell({"writes": f"write {chance.choice((1, 0.3, 0.05))}",
                            "flushes": f"flush {chance.choice((1, 0.3))}",
                            "slow": f"slow {chance.uniform(0.02, 0.3)}"}[what])
        self.go_on(chance.uniform(0.5, 4))
        if what == "full":
            filler.unlink()
        else:
            self.disk.tell("none")
        if self.orchestrator.life == life and self.orchestrator.process.poll() is None:
            self.ends[f"went on, {what}"] += 1
        # Where ext4 gave up it lets nobody write until it is mounted anew.
        if what == "slow" or (self.disk.can_be_written() and chance.random() < 0.5):
            self.go_on_in_place(what)
            if what == "slow" or chance.random() < 0.5:
                return
            self.after[f"{what}, then a cut"] += 1
            return self.cut_power()
        self.after[f"{what}, mounted anew"] += 1
        self.remount()

    def die_in_place(self):
        """A killed orchestrator leaves what the system remembers and the disk has not: the next one goes on with it."""
        process = self.orchestrator.process
        process.kill()
        process.wait(LIMIT)
        GUESTS.discard(process.pid)
        self.orchestrator.begin()
        before = len(self.answers)
        until("a start after a kill", self.ready, sentence="starts")
        until("work to be done after a kill", lambda: self.keep_running() or len(self.answers) >= before + 4)

    def find_left_over(self):
        """An image as a process leaves it that was killed while it stored it, just before the folder was synced. Then
        the same image is made, and told of: it must be on disk. Others would sync it as well, so there are none."""
        self.silence()
        key = f"left-over-{self.faults()}"
        plan = {"model": MODELS[0], "n": 1, "steps": 2, "seed": self.faults(), "later": False}
        image = picture(key, plan["seed"], SIDE)
        name = hashlib.sha256(image).hexdigest()
        folder = self.orchestrator.data / "outputs" / name[:2]
        folder.mkdir(exist_ok=True)
        part = folder / f"{name}.part"
        with open(part, "wb", buffering=0) as file:
            file.write(image)
            os.fsync(file.fileno())
        part.rename(folder / f"{name}.png")
        self.carry_out(key, plan)

    def lie(self):
        self.disk.tell("lie")
        before = len(self.answers)
        until("work to be done", lambda: self.keep_running() or len(self.answers) >= before + 12)

    def go_on_in_place(self, what):
        """A start on what the system still remembers of a disk that failed."""
        if self.orchestrator.process.poll() is not None:
            self.keep_running()
        self.failing = None
        before = len(self.answers)
        until("a start in the same mount", self.ready, sentence="starts")
        until("work to be done there", lambda: self.keep_running() or len(self.answers) >= before + 8)
        self.after[f"{what}, the same mount"] += 1

    def rest(self):
        """Lets everything come to rest, and checks the sentences."""
        until("a start after the fault", self.ready, sentence="starts")
        self.silence()
        self.check_requests()

    def silence(self):
        """Nobody asks, and nothing is done."""
        self.may_ask.clear()
        until("the clients to have their answers", lambda: self.keep_running() or self.asking == 0, 2 * LIMIT)

        def quiet():
            self.keep_running()
            answer = self.orchestrator.listening() and self.ask("GET", "/api/v1/status")
            return answer and json.loads(answer[1])["queue"]["open"] == 0

        until("the queue to be empty", quiet)

    def anew(self):
        self.stop()
        self.kill_everything()
        self.verify()
        self.disk.unmount()
        self.disk.check()
        self.disk.mount()
        self.orchestrator.begin()
        until("a start between rounds", self.ready, sentence="starts")
        self.may_ask.set()

    def run(self):
        self.disk.mount()
        self.begin()
        order = []
        while self.faults() < self.options.rounds and not self.out_of_time():
            if not order:
                order = list(self.options.faults)
                self.random.shuffle(order)
            what = order.pop()
            self.go_on(self.random.uniform(0.2, 1.5))
            before = len(self.violations)
            self.fault(what)
            self.rest()
            self.anew()
            self.rounds[what] += 1
            self.moments["clean rounds"] += len(self.violations) == before
            print(f"disk_faults: round {self.faults()}, {what}: {len(self.answers)} requests answered",
                  file=sys.stderr, flush=True)
        self.rest()
        self.check_history()
        self.clients_end()
        self.finish()

    def end_all(self):
        self.over.set()
        if self.disk.device is not None and self.disk.device.poll() is None:
            self.disk.tell("none")
        self.kill_everything()
        subprocess.run(["umount", "-l", str(self.disk.top)], capture_output=True)
        self.disk.power_off()


# ---- the command ----


def interrupted(number, _):
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one would stop the tidying up
    sys.exit(128 + number)


def in_own_namespaces(work):
    """Does it in mount and process namespaces that end with it: what is mounted or runs there cannot outlive it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000 | 0x20000000) != 0:  # CLONE_NEWNS, CLONE_NEWPID
        raise Missing(f"no namespaces of its own: {os.strerror(ctypes.get_errno())}")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, interrupted)
            libc.mount(None, b"/", None, 0x4000 | 0x40000, None)  # MS_REC, MS_PRIVATE
            libc.mount(b"proc", b"/proc", b"proc", 0, None)
            status = work()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else print(end.code, file=sys.stderr) or 1
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: os.kill(child, signal.SIGTERM))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def what_is_missing():
    if os.geteuid() != 0:
        return "it needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"there is no {path}"
    for program in ("mkfs.ext4", "fsck.ext4", "mount", "umount"):
        if not shutil.which(program):
            return f"there is no {program}"
    return None


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image"
        image.write_bytes(bytes(64 * SECTOR))

        def cut(disk, share=0):
            lost = disk.obey(f"cut {share}")
            assert disk.read(0, SECTOR) is None and not disk.write(0, b"x") and not disk.flush()
            return lost, Disk(image, 1)

        disk = Disk(image, 1)
        disk.obey("lie")  # writes nothing back of its own accord
        assert disk.write(0, b"a" * SECTOR) and disk.flush()
        lost, disk = cut(disk)
        assert lost == 1 and disk.read(0, SECTOR) == bytes(SECTOR), "a lying flush kept something"
        assert disk.write(0, b"b" * 2 * SECTOR) and disk.flush() and disk.write(SECTOR, b"c" * 8 * SECTOR)
        assert disk.read(SECTOR, 1) == b"c", "what was written is not read"
        lost, disk = cut(disk, 0.5)
        assert 0 < lost < 8 and disk.read(0, SECTOR) == b"b" * SECTOR, "a cut lost what was flushed, or took no half"
        disk.obey("write 1")
        assert not disk.write(0, b"d" * SECTOR) and disk.read(0, SECTOR) == b"b" * SECTOR and disk.obey("count") == 1
        disk.obey("flush 1")
        assert disk.write(0, b"d" * SECTOR) and not disk.flush() and disk.read(0, 1) == b"d"
        disk.obey("none")
        assert disk.flush() and cut(disk)[1].read(0, 1) == b"d", "a flush after one that failed kept nothing"
    good = "journal /top/data/journal.db: cannot append: disk I/O error; stopping, nothing has been said"
    assert is_clear(70, good, "/top/data") and is_clear(70, f"info x\n{good}\n", "/top/data")
    for status, words in ((0, good), (-6, good), (70, ""), (70, "disk I/O error"), (70, "journal /top/data/journal.db"),
                          (70, f"{good}\ninfo and on"), (70, f"check failed: done\n{good}")):
        assert not is_clear(status, words, "/top/data"), (status, words)
    print("disk_faults: the disk loses what it should, and unclear words are found")


def carry_out(options, folder):
    print(f"disk_faults: {LAYER}; seed {options.seed}, folder {folder}", file=sys.stderr, flush=True)
    began, run = time.monotonic(), None
    try:
        run = DiskRun(options, folder)
        run.run()
    except Violation as error:
        run.violate(error.sentence, f"{error}; {run.orchestrator.words() if run.orchestrator.process else ''}")
    finally:
        if run is not None:
            run.end_all()
    report = {"layer": LAYER, "seed": options.seed, "rounds": run.faults(), "asked": options.rounds,
              "by_fault": dict(run.rounds), "after": dict(run.after), "ends": dict(run.ends),
              "moments": dict(run.moments), "file_system_checks": dict(run.disk.checks),
              "orchestrator_lives": run.orchestrator.life, "requests": len(run.answers), "completed": run.completed,
              "failed": run.failed, "cut_connections": run.cuts["connection"], "replayed": run.replays["answers"],
              "seconds": round(time.monotonic() - began), "violations": run.violations,
              "sentences": list(run.sentences.values())}
    if options.json:
        print(json.dumps(report))
    short = "" if run.faults() >= options.rounds else f" (of {options.rounds}: the time was up)"
    print(f"disk_faults: {run.faults()} rounds{short} ({', '.join(f'{n} {k}' for k, n in sorted(run.rounds.items()))}), "
          f"{report['requests']} requests, {report['completed']} completed, {report['failed']} failed, "
          f"{len(run.violations)} violations, {report['seconds']} s, seed {options.seed}",
          file=sys.stderr if options.json else sys.stdout)
    return 1 if run.violations or not run.faults() else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=20, help="no round begins after that; what fits is done")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--models", help="a folder with tiny-sdxl")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, with commas; also: lie")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and the disk")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    options.faults = options.faults.split(",")
    if unknown := set(options.faults) - {*FAULTS, "lie"}:
        parser.error(f"--faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}, lie")
    options.seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if missing := what_is_missing():
        print(f"disk_faults: not run: {missing}", file=sys.stderr)
        return NOT_RUN
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-disk-"))

    def work():
        try:
            return carry_out(options, folder)
        except Missing as error:
            print(f"disk_faults: not run: {error}", file=sys.stderr)
            return NOT_RUN

    try:
        status = in_own_namespaces(work)
    except Missing as error:
        print(f"disk_faults: not run: {error}", file=sys.stderr)
        status = NOT_RUN
    if status == 1 or options.keep:
        print(f"disk_faults: logs and the disk are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
