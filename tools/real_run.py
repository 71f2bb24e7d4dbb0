"""What tools/kills.py and tools/disk_faults.py have in common: a real orchestrator, real workers and clients, and what
was promised to them.

Real processes on loopback: `lockstep serve`, two workers that it starts and two that dial, four clients that ask again
under the same Idempotency-Key until they have an answer, and one reader of the event stream.
"""

import collections
import fcntl
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from kills_worker import NOTE, picture  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.get("LOCKSTEP_BINARY", str(ROOT / "build/lockstep"))
MARK = "LOCKSTEP_REAL_RUN"  # in the environment of every process of a run, so that none can hide
LIMIT = 90  # seconds; a wait this long is a violation
SPAWNED, DIALLED = ("own_0", "own_1"), ("guest_0", "guest_1")
MODELS = ("tiny-sdxl", "tiny-sdxl-b")  # a device holds one of them: every change is a load
SIDE = 64
PASSING = (429, 503)  # asked again, unless it is how the request of this key has ended

SENTENCES = {
    "ends": "every accepted request ends completed or failed with a reason",
    "one_request": "one key is one request",
    "same_bytes": "one key has the same bytes every time",
    "right_bytes": "an output is the picture of its prompt and seed",
    "once": "each request is accepted once and ends once, over all lives",
    "follower": "a reader that resumes gets each committed event once, and nothing that recovery does not know",
    "processes": "no process is left",
    "locks": "no lock is left, and a new start works at once",
    "journal": "the journal replays to the state that was live",
    "defects": "no orchestrator ends by itself, and no worker is set aside",
}


class Violation(Exception):
    def __init__(self, sentence, what):
        super().__init__(what)
        self.sentence = sentence


def until(what, check, limit=LIMIT, sentence="ends"):
    """Calls check() until it returns something true, which it returns."""
    end = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise Violation(sentence, f"waited {limit} s for {what}")
        threading.Event().wait(0.02)


# ---- what was promised, over records alone ----


def audit_events(events, prompts):
    """`events` as the history tells them; `prompts` has key -> request id. Yields (sentence, what is wrong)."""
    accepted, ended, keys = collections.Counter(), collections.defaultdict(list), collections.defaultdict(set)
    for event in events:
        if event["type"] == "request_accepted":
            accepted[event["subject"]] += 1
            keys[event["body"]["inference"]["inference_parameters"]["prompt"]].add(event["subject"])
        elif event["type"] in ("request_completed", "request_failed"):
            ended[event["subject"]].append(event["type"])
    for request, times in accepted.items():
        if times != 1:
            yield "once", f"{request} was accepted {times} times"
        if len(ended[request]) != 1:
            yield ("once" if ended[request] else "ends"), f"{request} ended {len(ended[request])} times: {ended[request]}"
    for request in ended:
        if request not in accepted:
            yield "once", f"{request} ended and was never accepted"
    for key, requests in keys.items():
        if len(requests) != 1:
            yield "one_request", f"key {key} was carried out as {sorted(requests)}"
    for key, request in prompts.items():
        if keys.get(key) != {request}:
            yield "one_request", f"key {key} was answered with {request}; the history has {sorted(keys.get(key, ()))}"


def audit_follower(followed, events):
    """The durable events that a reader gathered through all lives against the history that the server still has, which
    is the newest part of it. Yields as above."""
    def names(some):
        return [(e["rev"], e["type"], e["subject"]) for e in some if "rev" in e]

    known = names(events)
    mine = [name for name in names(followed) if not known or name[0] >= known[0][0]]
    if mine != known:
        extra = list((collections.Counter(mine) - collections.Counter(known)))[:5]
        missing = list((collections.Counter(known) - collections.Counter(mine)))[:5]
        yield "follower", f"{len(mine)} events, expected {len(known)}; extra {extra}, missing {missing}"
    revs = [name[0] for name in names(followed)]
    if revs != sorted(revs):
        yield "follower", "its revs go back"


# ---- processes ----


class Notes:
    """What each worker does at this instant, by its own account."""

    def __init__(self, folder):
        self.folder = folder

    def living(self):
        """name -> (pid, what it does, bytes mapped), of processes that live; reaps those that nobody else would."""
        found = {}
        for path in list(self.folder.iterdir()):
            note = self.read(path)
            if note is None:
                continue
            name, does, ticks, mapped = note
            pid = int(path.name)
            if is_process(pid, ticks):
                found[name] = (pid, does, mapped)
            else:
                reap(pid)
                path.unlink(missing_ok=True)
        return found

    @staticmethod
    def read(path):
        try:
            name, does, ticks, mapped = NOTE.unpack(path.read_bytes())
        except (OSError, ValueError):
            return None
        except Exception:  # struct.error: it is being made
            return None
        return (name.rstrip(b"\0").decode(), does.rstrip(b"\0").decode(), ticks, mapped) if ticks else None


def is_process(pid, ticks):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return stat[0] not in "ZX" and int(stat[19]) == ticks
    except (OSError, IndexError):
        return False


GUESTS = set()  # pids that a Popen waits for


def reap(pid):
    """Orphans come to this process (PR_SET_CHILD_SUBREAPER)."""
    if pid in GUESTS:
        return
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def of_this_run(mark):
    """pid -> command of each living process of the run, this one excepted."""
    found = {}
    for path in pathlib.Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                pass
    return found


class Orchestrator:
    def __init__(self, folder, models, environment, data):
        self.folder, self.environment, self.data = folder, environment, data
        self.life, self.port, self.url, self.process = 0, "0", "", None
        self.config = folder / "lockstep.toml"
        command = [sys.executable, str(ROOT / "tools/kills_worker.py"), str(folder / "notes")]
        tables = "".join(f'[[worker]]\nname = "{name}"\nmemory = "12MB"\n' for name in SPAWNED)
        self.config.write_text(
            f'data_dir = "{self.data}"\nmodels_dir = "{models}"\n[http]\nhistory_events = 1000000\n'
            f'history_bytes = "512MB"\n[storage]\nlow_water = "0B"\nreserve = "0B"\n[breaker]\ndeaths = 1000\n[workers]\ncommand = {json.dumps(command)}\n{tables}')

    def begin(self):
        self.life += 1
        self.log = self.folder / f"server-{self.life}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([BINARY, "serve", "--config", str(self.config), "--port", self.port],
                                            stderr=log, stdin=subprocess.DEVNULL, env=self.environment)
        GUESTS.add(self.process.pid)

    def listening(self):
        found = re.search(r"listening on (http://\S+)", self.log.read_text())
        if found:
            self.url = found.group(1)
            self.port = self.url.rsplit(":", 1)[1]
        return bool(found)

    def words(self):
        return "\n".join(self.log.read_text().splitlines()[-15:])


class Guest:
    """A worker that dials. It is started again when it has ended, by whatever."""

    def __init__(self, name, orchestrator):
        self.name, self.orchestrator, self.process = name, orchestrator, None

    def keep(self):
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            GUESTS.discard(self.process.pid)
        data = self.orchestrator.data
        if not (data / "worker.secret").exists():
            return
        with open(self.orchestrator.folder / f"{self.name}.log", "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tools/kills_worker.py"), str(self.orchestrator.folder / "notes"),
                 str(data / "workers.sock"), self.name, str(data / "worker.secret")],
                stdout=log, stderr=log, env=self.orchestrator.environment)
        GUESTS.add(self.process.pid)


# ---- clients ----


class Run:
    """One run. Who derives from it makes the faults: what they are called, how many there were, and when all rests."""

    name = "real_run"
    sentences = SENTENCES

    def __init__(self, options, folder, data=None):
        self.options, self.folder = options, folder
        self.random = random.Random(options.seed)
        self.end = time.monotonic() + 60 * options.minutes
        (folder / "notes").mkdir()
        environment = {**os.environ, MARK: str(folder), "PYTHONDONTWRITEBYTECODE": "1",
                       "PYTHONPATH": f"{ROOT}/python:{os.environ.get('PYTHONPATH', '')}"}
        self.notes = Notes(folder / "notes")
        self.orchestrator = Orchestrator(folder, self.models(), environment, data or folder / "data")
        self.guests = [Guest(name, self.orchestrator) for name in DIALLED]
        self.lock = threading.Lock()
        self.may_ask = threading.Event()  # cleared while everything comes to rest
        self.over = threading.Event()
        self.asking = 0
        self.violations = []
        self.answers = {}  # key -> (request id, plan, status, bytes)
        self.fresh = []  # keys since the last rest
        self.followed, self.place, self.pending = [], "0", []
        self.moments, self.replays, self.cuts = (collections.Counter() for _ in range(3))
        self.completed = self.failed = 0
        self.threads = []

    def faults(self):
        """How many there were until now."""
        raise NotImplementedError

    def models(self):
        made = self.options.models and pathlib.Path(self.options.models)
        if not made:
            made = self.folder / "made"
            subprocess.run([BINARY, "models", "make-tiny", str(made)], check=True, stdout=subprocess.DEVNULL)
        if not (made / "tiny-sdxl").is_dir():
            print(f"{self.name}: {made} has no tiny-sdxl; `lockstep models make-tiny` makes it", file=sys.stderr)
            raise SystemExit(2)
        folder = self.folder / "models"
        folder.mkdir()
        for name in MODELS:
            (folder / name).symlink_to((made / "tiny-sdxl").resolve())
        return folder

    def violate(self, sentence, what):
        with self.lock:
            self.violations.append({"sentence": self.sentences[sentence], "what": what, "after": self.faults()})
        print(f"{self.name}: VIOLATION: {self.sentences[sentence]}: {what}", file=sys.stderr, flush=True)

    def ask(self, method, path, body=None, headers=None):
        """(status, bytes, headers), or None when nobody answered."""
        request = urllib.request.Request(self.orchestrator.url + path, data=body, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            try:
                return error.code, error.read(), error.headers
            except OSError:
                return None
        except Exception:  # refused, reset, cut in the middle: all the same to one who asks again
            return None

    def view(self, path):
        answer = until(f"an answer to {path}", lambda: (a := self.ask("GET", path)) and a[0] == 200 and a)
        return json.loads(answer[1])

    def post(self, key, plan):
        headers = {"Idempotency-Key": key} | ({"Prefer": "respond-async"} if plan["later"] else {})
        body = {"prompt": key, "size": f"{SIDE}x{SIDE}", "response_format": "url",
                **{name: plan[name] for name in ("model", "n", "steps", "seed")}}
        return self.ask("POST", "/v1/images/generations", json.dumps(body).encode(), headers)

    def carry_out(self, key, plan):
        """Asks until there is an answer that is final, through whatever dies meanwhile."""
        named = set()

        def again():
            answer = self.post(key, plan)
            if answer is None:
                self.cuts["connection"] += 1
                return None
            status, body, headers = answer
            if headers.get("Idempotency-Replayed"):
                self.replays["answers"] += 1
            if status == 409 and b"still_running" in body:
                if headers.get("Location"):
                    named.add(headers["Location"].rsplit("/", 1)[1])
                return None
            if status in PASSING and not headers.get("Idempotency-Replayed"):
                return None
            return answer

        status, body, _ = until(f"an answer to {key}", again)
        said = json.loads(body)
        if status in (200, 202):
            named.add(said["request_id"] if status == 202 else said["lockstep"]["request_id"])
        elif status not in (500, 504, *PASSING):
            return self.violate("ends", f"{key} was answered with {status}: {body[:300]!r}")
        if len(named) > 1:
            self.violate("one_request", f"{key} was told of {sorted(named)}")
        with self.lock:
            self.answers[key] = (next(iter(named), None), plan, status, body)
            self.fresh.append(key)

    def client(self, number):
        chance = random.Random(self.options.seed * 1000 + number)
        at = 0
        while not self.over.is_set():
            if not self.may_ask.wait(0.2):
                continue
            with self.lock:
                self.asking += 1
            at += 1
            plan = {"model": chance.choice(MODELS), "n": chance.choice((1, 1, 2)), "steps": chance.randint(2, 20),
                    "seed": chance.randrange(1 << 40), "later": chance.random() < 0.3}
            try:
                self.carry_out(f"key-{number}-{at}", plan)
            except Violation as error:
                self.violate(error.sentence, str(error))
            except Exception:
                self.violate("ends", traceback.format_exc())
            finally:
                with self.lock:
                    self.asking -= 1

    def follow(self):
        """Reads the event stream through all lives, and takes a commit when its id came: it is whole then."""
        while not self.over.is_set():
            try:
                request = urllib.request.Request(f"{self.orchestrator.url}/api/v1/events",
                                                 headers={"Last-Event-ID": self.place})
                with urllib.request.urlopen(request, timeout=LIMIT) as stream:
                    self.pending, fields = [], {}
                    for raw in stream:
                        line = raw.decode().rstrip("\n")
                        if line:
                            name, _, value = line.partition(": ")
                            fields[name] = value
                            continue
                        if "data" in fields:
                            event = json.loads(fields["data"])
                            if event["type"] in ("compacted", "resync_required"):
                                self.cuts[event["type"]] += 1
                            if "rev" in event:
                                self.pending.append(event)
                        if "id" in fields:
                            self.followed += self.pending
                            self.pending, self.place = [], fields["id"]
                        fields = {}
            except Exception:  # cut; it comes back with its place
                self.over.wait(0.05)

    def keep_running(self):
        """Starts what is not there; a death that nobody ordered is a violation."""
        process = self.orchestrator.process
        if process.poll() is not None:
            if process.returncode != -signal.SIGKILL:
                self.violate("defects", f"the orchestrator ended with {process.returncode}: {self.orchestrator.words()}")
            GUESTS.discard(process.pid)
            self.orchestrator.begin()
        for guest in self.guests:
            guest.keep()

    def check_requests(self):
        fresh, self.fresh = self.fresh, []
        for key in fresh:
            request, plan, status, body = self.answers[key]
            again = until(f"{key} to be answered again", lambda: self.post(key, plan))
            if status in (200, 202) and (again[0], again[1]) != (status, body):
                self.violate("same_bytes", f"{key}: {status} {body[:200]!r}, again {again[0]} {again[1][:200]!r}")
            if request is None:
                continue  # failed before a view had its name; the history has it
            answer = until(f"an answer to {request}", lambda: (a := self.ask("GET", f"/api/v1/requests/{request}")) and
                           a[0] in (200, 404) and a)
            if answer[0] == 404:
                self.violate("ends", f"{request} of {key} was acknowledged and is not known")
                continue
            view = json.loads(answer[1])
            if view["state"] == "failed" and view["failure"]["message"]:
                self.moments[f"failed: {view['failure']['code']}"] += 1
                continue
            if view["state"] != "completed":
                self.violate("ends", f"{request} of {key} is {view['state']}: {json.dumps(view)[:500]}")
                continue
            for index, job in enumerate(view["jobs"]):
                sha, expected = job["output"]["sha256"], picture(key, plan["seed"] + index, SIDE)
                answer = until("an output", lambda: self.ask("GET", f"/api/v1/outputs/{sha}.png"))
                if answer[1] != expected or hashlib.sha256(answer[1]).hexdigest() != sha:
                    self.violate("right_bytes", f"{request} of {key}, image {index}: {sha}, status {answer[0]} "
                                                f"{answer[1][:300]!r}")

    # ---- from start to end ----

    def begin(self):
        """The first start; then the clients ask."""
        self.orchestrator.begin()
        until("the first start", self.orchestrator.listening)
        until("the models to be found", lambda: len(self.view("/v1/models")["data"]) == len(MODELS))
        self.threads = [threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(4)]
        self.threads.append(threading.Thread(target=self.follow, daemon=True))
        for thread in self.threads:
            thread.start()
        self.may_ask.set()
        until("work to be done by everybody", lambda: self.keep_running() or len(self.answers) >= 12)

    def clients_end(self):
        self.over.set()
        for thread in self.threads[:-1]:  # the reader ends with its stream
            thread.join(LIMIT)

    def out_of_time(self):
        if len(self.violations) >= 20:
            raise Violation("defects", "twenty violations are enough")
        return time.monotonic() > self.end

    def check_history(self):
        _, text, _ = until("the history", lambda: self.ask("GET", "/api/v1/events?follow=false"))
        events = [json.loads(block.split("data: ", 1)[1].split("\n", 1)[0]) for block in text.decode().split("\n\n")
                  if "data: " in block]
        events = [event for event in events if "rev" in event]
        last = events[-1]["rev"]
        until("the reader to have everything", lambda: int(self.place) >= last, sentence="follower")
        followed = [event for event in self.followed if event["rev"] <= last]
        if self.cuts["compacted"] or self.cuts["resync_required"]:
            self.violate("follower", f"a gap in what it was told: {dict(self.cuts)}")
        for sentence, what in audit_follower(followed, events):
            self.violate(sentence, what)
        # The reader has all of it since the first start; the server keeps only the newest part.
        prompts = {key: request for key, (request, *_) in self.answers.items() if request}
        for sentence, what in audit_events(followed, prompts):
            self.violate(sentence, what)
        self.completed = sum(event["type"] == "request_completed" for event in followed)
        self.failed = sum(event["type"] == "request_failed" for event in followed)

    def stop(self):
        """Asks the orchestrator to end; its workers end with it."""
        process = self.orchestrator.process
        process.send_signal(signal.SIGTERM)
        status = process.wait(LIMIT)
        GUESTS.discard(process.pid)
        if status != 0:
            self.violate("defects", f"a stop ended with {status}: {self.orchestrator.words()}")

    def finish(self):
        self.stop()
        for guest in self.guests:
            if guest.process is not None:
                guest.process.kill()
                guest.process.wait()
                GUESTS.discard(guest.process.pid)
        self.no_process()
        self.no_lock()
        self.verify()
        # A new start at once: everything that was there is free.
        self.orchestrator.begin()
        until("a new start to be ready", lambda: self.orchestrator.listening() and
              (a := self.ask("GET", "/readyz")) and a[0] == 200, sentence="locks")
        self.stop()
        self.no_process()
        self.verify()

    def no_process(self):
        def nobody():
            self.notes.living()
            return not of_this_run(str(self.folder))
        try:
            until("the processes to end", nobody, 60, "processes")
        except Violation:
            self.violate("processes", f"left: {of_this_run(str(self.folder))}")

    def no_lock(self):
        data = self.orchestrator.data
        for path in [data / "lock", *(data / "workers").glob("*.lock")]:
            with open(path, "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    self.violate("locks", f"{path.name} is held")

    def verify(self):
        done = subprocess.run([BINARY, "journal", "verify", "--json", "--data-dir", str(self.orchestrator.data)],
                              capture_output=True, text=True, env=self.orchestrator.environment)
        log = self.orchestrator.log.read_text()
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        if not found or f"rev {found['rev']}, digest {found['digest']}" not in log:
            self.violate("journal", f"verify says {done.stdout}{done.stderr}; the log: {self.orchestrator.words()}")

    def end_all(self):
        """Whatever happened, nothing of this run stays."""
        self.over.set()
        for pid in of_this_run(str(self.folder)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for guest in [self.orchestrator, *self.guests]:
            if guest.process is not None:
                guest.process.wait()
