#!/usr/bin/env python3
"""Kills the orchestrator and its workers with SIGKILL while requests run, and checks what was promised.

    tools/kills.py [--kills 1000] [--minutes 45] [--seed N] [--models DIR] [--json] [--keep]
    tools/kills.py --self-test      shows on made-up records that each kind of violation is found

Real processes on loopback: `lockstep serve`, two workers that it starts and two that dial, four clients that ask again
under the same Idempotency-Key until they have an answer, and one reader of the event stream. The seed, printed first,
chooses whom and about when; the instant itself is the machine's. Every 50 kills everything comes to rest, and the
sentences below are checked; rounds that kill only one side show what the other side keeps of the dead.

--models is a folder with the tiny models (`lockstep models make-tiny`); without it they are made. Exit status 1 when a
sentence does not hold, or the minutes were over before so many kills; 2 when it cannot run. The last line sums up.
"""

import argparse
import collections
import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from kills_worker import start_ticks  # noqa: E402
from real_run import (DIALLED, LIMIT, SENTENCES, SPAWNED, Run, Violation, audit_events,  # noqa: E402
                      audit_follower, is_process, until)

ROUND = 50

RESTING = {
    "ledger": "at rest the ledger is what each worker maps, to the byte",
    "descriptors": "at rest no process has more descriptors than at the beginning",
    "memory_files": "at rest each memory file is in the cache or mapped as a loaded model",
}


def descriptors(pid):
    """kind -> count of the open descriptors, memory files apart."""
    kinds = collections.Counter()
    for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if not target.startswith("/memfd:"):
            kinds[re.sub(r":\[\d+\]", "", target) if ":" in target else "file"] += 1
    return kinds


def memory_files(pid):
    """inode -> (name, size) of each memory file that the process holds open (then its size is known) or maps."""
    found = {}
    folder = pathlib.Path(f"/proc/{pid}")
    for line in (folder / "maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/memfd:"):
            found[int(fields[4])] = (fields[5].split(" ")[0], 0)
    for path in (folder / "fd").iterdir():
        try:
            name = os.readlink(path)
            if name.startswith("/memfd:"):
                stat = os.stat(path)
                found[stat.st_ino] = (name.split(" ")[0], stat.st_size)
        except OSError:
            continue
    return found


class Soak(Run):
    name = "kills"
    sentences = SENTENCES | RESTING

    def __init__(self, options, folder):
        super().__init__(options, folder)
        self.kills = collections.Counter()
        self.base = None

    def faults(self):
        return sum(self.kills.values())

    # ---- killing ----

    def kill_orchestrator(self, recovering):
        process = self.orchestrator.process
        if process.poll() is not None:  # by itself
            return self.keep_running()
        doing = {does for _, does, _ in self.notes.living().values()}
        process.kill()
        process.wait()
        self.kills["orchestrator"] += 1
        self.moments["recovery"] += recovering
        for moment in ("loading", "inferring", "encoding"):
            self.moments[moment] += moment in doing and not recovering

    def kill_worker(self, name, recovering):
        found = self.notes.living().get(name)
        if found is None:
            return
        pid = found[0]
        path = self.folder / "notes" / str(pid)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            note = self.notes.read(path)
            if note is None or note[0] != name or not is_process(pid, note[2]):
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)
        until("a killed worker to end", lambda: not is_process(pid, note[2]))
        does = (self.notes.read(path) or note)[1]  # what it did when it died
        self.kills["spawned worker" if name in SPAWNED else "dialled worker"] += 1
        self.moments["recovery"] += recovering
        if not recovering and does in ("loading", "inferring", "encoding", "releasing", "starting"):
            self.moments[does] += 1

    def recovering(self):
        """Whether this life of the orchestrator has not been ready yet."""
        if self.was_ready:
            return False
        if self.orchestrator.process.poll() is None and self.orchestrator.listening():
            answer = self.ask("GET", "/readyz")
            self.was_ready = answer is not None and answer[0] == 200
        return not self.was_ready

    def kill_some(self, kind, count):
        """One round: `count` kills of the sides that `kind` names."""
        end = sum(self.kills.values()) + count
        self.was_ready = True
        while sum(self.kills.values()) < end and not self.out_of_time():
            sides = {"all": ("orchestrator", "worker", "worker", "both"), "workers": ("worker",),
                     "orchestrator": ("orchestrator",)}[kind]
            side = self.random.choice(sides)
            name = self.random.choice(SPAWNED + DIALLED)
            moment = self.random.choice((None, "loading", "inferring", "inferring", "encoding"))
            threading.Event().wait(self.random.uniform(0, 0.4))
            self.keep_running()
            if not self.recovering() and moment:
                self.await_moment(moment, name if side == "worker" else None)
            recovering = self.recovering()
            if side in ("worker", "both"):
                self.kill_worker(name, recovering)
            if side != "worker":
                self.kill_orchestrator(recovering)
                self.keep_running()
                self.was_ready = False
                # Half of the lives meet the next kill while they recover, at any point of it.
                if kind == "all" and self.random.random() < 0.5:
                    threading.Event().wait(self.random.uniform(0, 0.3))
                    if self.random.random() < 0.5:
                        self.kill_worker(self.random.choice(SPAWNED + DIALLED), self.recovering())
                    else:
                        self.kill_orchestrator(self.recovering())
                elif self.random.random() < 0.7:
                    until("a life to be ready", lambda: self.keep_running() or not self.recovering(), sentence="locks")
            done = sum(self.kills.values())
            if done % 10 == 0:
                print(f"kills: {done} kills, {len(self.answers)} requests answered", file=sys.stderr, flush=True)

    def await_moment(self, moment, name):
        """Waits a little for a worker (or any) to be in it; a moment that does not come is not waited for."""
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            living = self.notes.living()
            if any(does == moment for each, (_, does, _) in living.items() if name in (None, each)):
                return
            threading.Event().wait(0.003)

    # ---- rest ----

    def rest(self, last=False):
        """Lets everything come to rest and checks the sentences."""
        self.may_ask.clear()
        until("the clients to have their answers", lambda: self.keep_running() or self.asking == 0, 2 * LIMIT)

        def idle():
            self.keep_running()
            if not self.orchestrator.listening() or (answer := self.ask("GET", "/api/v1/status")) is None:
                return None
            status = json.loads(answer[1])
            workers = {w["worker_id"]: w for w in status["workers"]}
            good = all(n in workers and workers[n]["state"] == "ready" and not workers[n]["task"]
                       for n in SPAWNED + DIALLED)
            broken = [w["worker_id"] for w in status["workers"] if w["state"] == "broken"]
            if broken:
                raise Violation("defects", f"set aside: {broken}")
            living = self.notes.living()
            quiet = all(living.get(n, (0, "", 0))[1] == "idle" for n in SPAWNED + DIALLED)
            transactions = json.loads((self.ask("GET", "/api/v1/loads") or (0, b'{"loads":[1]}'))[1])["loads"]
            return good and quiet and status["queue"]["open"] == 0 and not transactions and status

        until("all workers to be ready and idle", idle)
        self.check_requests()
        self.check_memory()
        self.check_descriptors()
        if not last:
            self.may_ask.set()

    def check_memory(self):
        """Ledger, each worker's own account and the kernel's mappings; then who holds each memory file."""
        def differs():
            status, living, wrong = self.view("/api/v1/status"), self.notes.living(), []
            sizes = {m["model"]["model_id"]: m["model"]["bytes"] for m in status["models"]}
            held = {n: sorted(m["model"]["model_id"] for m in status["models"] for r in m["residencies"]
                              if r["worker_id"] == n) for n in SPAWNED + DIALLED}
            files = memory_files(self.orchestrator.process.pid)
            known = sum(size for _, size in files.values())
            if known != status["cache_used"]:
                wrong.append(("memory_files", f"the orchestrator holds {known} bytes, its cache says {status['cache_used']}"))
            for device in status["devices"]:
                name = device["worker_id"]
                if name not in living:
                    return [("ledger", f"{name} is not there")]
                pid, _, mapped = living[name]
                own = memory_files(pid)
                names = sorted({file.split(":", 2)[2].split("/")[0] for file, _ in own.values() if "lockstep:" in file})
                total = sum(sizes[m] for m in held[name])
                if not device["memory_allocated"] == total == mapped:
                    wrong.append(("ledger", f"{name}: ledger {device['memory_allocated']}, residencies {held[name]} of "
                                            f"{total}, its own account {mapped}"))
                if names != held[name] or any("lockstep:" not in file for file, _ in own.values()):
                    wrong.append(("memory_files", f"{name} holds {sorted(own.values())}, loaded is {held[name]}"))
            return wrong

        # A heartbeat may be on its way: only what stays is wrong.
        end = time.monotonic() + 20
        while (wrong := differs()) and time.monotonic() < end:
            threading.Event().wait(0.1)
        for sentence, what in wrong:
            self.violate(sentence, what)

    def check_descriptors(self):
        def counts():
            living = self.notes.living()
            return {"orchestrator": descriptors(self.orchestrator.process.pid)} | {
                name: descriptors(living[name][0]) for name in SPAWNED + DIALLED if name in living}

        if self.base is None:
            self.base = until("descriptors to settle", lambda: (a := counts()) == (threading.Event().wait(0.5), counts())[1] and a)
            return
        end = time.monotonic() + 20
        while True:
            now = counts()
            more = {who: dict(kinds - self.base[who]) for who, kinds in now.items()
                    if kinds.total() > self.base[who].total()}
            if not more or time.monotonic() > end:
                break
            threading.Event().wait(0.1)
        for who, kinds in more.items():
            self.violate("descriptors", f"{who} has {now[who].total()}, had {self.base[who].total()}: more {kinds}")

    # ---- from start to end ----

    def run(self):
        self.was_ready = True
        self.begin()
        self.rest()
        kinds = ("all", "workers", "all", "orchestrator")
        at = 0
        while (left := self.options.kills - sum(self.kills.values())) > 0 and not self.out_of_time():
            self.kill_some(kinds[at % 4], min(ROUND, left))
            at += 1
            self.rest(last=self.options.kills <= sum(self.kills.values()) or self.out_of_time())
        self.check_history()
        self.clients_end()
        self.finish()


def self_test():
    def event(rev, kind, subject, prompt=""):
        return {"rev": rev, "type": kind, "subject": subject, "body": {"inference": {"inference_parameters": {"prompt": prompt}}}}

    good = [event(1, "request_accepted", "r1", "k1"), event(2, "request_completed", "r1"),
            event(3, "request_accepted", "r2", "k2"), event(4, "request_failed", "r2")]
    cases = [
        ("a good run", set(), good, {"k1": "r1", "k2": "r2"}),
        ("a lost request", {"ends"}, good[:3], {}),
        ("two ends", {"once"}, [*good, event(5, "request_completed", "r1")], {}),
        ("two acceptances", {"once"}, [*good, event(5, "request_accepted", "r1", "k1")], {}),
        ("an end of nothing", {"once"}, good[1:], {}),
        ("one key, two requests", {"one_request"},
         [*good, event(5, "request_accepted", "r3", "k1"), event(6, "request_completed", "r3")], {}),
        ("an answer that history forgot", {"one_request"}, good, {"k3": "r3"}),
    ]
    for what, expected, events, prompts in cases:
        found = {sentence for sentence, _ in audit_events(events, prompts)}
        assert found == expected, (what, found)
    assert not list(audit_follower(good, good)) and not list(audit_follower(good, good[2:]))
    for wrong in (good[:1] + good[2:], [*good[:2], good[1], *good[2:]], [good[1], good[0], *good[2:]],
                  [*good[:3], event(4, "request_completed", "r9"), good[3]]):
        assert {s for s, _ in audit_follower(wrong, good)} == {"follower"}, wrong
    mine = os.getpid()
    before = descriptors(mine)
    fd = os.memfd_create("lockstep:test/x")
    os.truncate(fd, 4096)
    read, write = os.pipe()
    assert ("/memfd:lockstep:test/x", 4096) in memory_files(mine).values()
    assert (descriptors(mine) - before).total() == 2
    for each in (fd, read, write):
        os.close(each)
    assert is_process(mine, start_ticks(mine)) and not is_process(mine, start_ticks(mine) + 1)
    print("kills: every kind of violation is found")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=45, help="no kill after that; fewer than asked is a failure")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--models", help="a folder with tiny-sdxl")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    options.seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-kills-"))
    print(f"kills: seed {options.seed}, folder {folder}", file=sys.stderr, flush=True)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here
    began = time.monotonic()
    soak = Soak(options, folder)
    try:
        soak.run()
    except Violation as error:
        soak.violate(error.sentence, f"{error}; {soak.orchestrator.words() if soak.orchestrator.process else ''}")
    finally:
        soak.end_all()
    kills = sum(soak.kills.values())
    report = {"seed": options.seed, "kills": kills, "asked": options.kills, "by_kind": dict(soak.kills),
              "moments": dict(soak.moments), "orchestrator_lives": soak.orchestrator.life,
              "requests": len(soak.answers), "completed": soak.completed,
              "failed": soak.failed, "cut_connections": soak.cuts["connection"],
              "replayed": soak.replays["answers"], "events_followed": len(soak.followed),
              "seconds": round(time.monotonic() - began), "violations": soak.violations,
              "sentences": list(soak.sentences.values())}
    if options.json:
        print(json.dumps(report))
    if not soak.violations and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"kills: logs and data are in {folder}", file=sys.stderr)
    short = "" if kills >= options.kills else f" (of {options.kills}: the time was up)"
    print(f"kills: {kills} kills{short} ({', '.join(f'{n} {k}' for k, n in sorted(soak.kills.items()))}; "
          f"{', '.join(f'{n} {k}' for k, n in sorted(soak.moments.items()))}), {report['requests']} requests, "
          f"{report['completed']} completed, {report['failed']} failed, {len(soak.violations)} violations, "
          f"{report['seconds']} s, seed {options.seed}", file=sys.stderr if options.json else sys.stdout)
    return 1 if soak.violations or kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
