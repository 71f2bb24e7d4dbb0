#!/usr/bin/env python3
"""Does the net catch? Applies each bug of tools/mutants/mutants.toml to a copy of the tree, builds it, and shows which
oracle of the simulator, or which test, catches it. One that nothing catches is a hole.

    tools/mutants/run.py                     every mutant; exit status 1 when one survives or cannot be tried
    tools/mutants/run.py --only NAME         this one; may be given more than once
    tools/mutants/run.py --list              their names and what they break
    tools/mutants/run.py --table FILE        the table of docs/simulator.md, from what --json printed
    tools/mutants/run.py --check             only that each text to be replaced stands in its file exactly once
    tools/mutants/run.py --self-test         show on a made-up tree that every kind of failure is found

The copy lies in build/mutants and is kept, so that the next run builds only what changed. The tree itself is never
touched. The unchanged copy is tried first, with the same seeds and tests: a net that catches everything proves nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FIELDS = {"name", "rule", "file", "old", "new"}
OPTIONAL = {"test"}
SEEDS = (5, 20, 60, 200)  # how far each round goes; the next begins where it ended
EXHAUSTIVE = ["sim", "--exhaustive", "--depth", "1", "--every", "4"]  # after the first round: what needs its scripts
RUN_LIMIT = 900  # seconds for one round

VIOLATION = re.compile(r"^seed (\d+) at (\d+) ms: (.*)$", re.MULTILINE)
CHECK_FAILED = re.compile(r"check failed: (.*) \((?:.*/)?((?:src|sim)/\S+)\)")
OF_A_SCRIPT = re.compile(r"script ([\w-]+)(?:, .*?)?: (.*)", re.DOTALL)
A_TEST = re.compile(r"^TEST(?:_F)?\((\w+), (\w+)\)", re.MULTILINE)
FAILED_TEST = re.compile(r"^\[  FAILED  \] ([\w./]+)", re.MULTILINE)


def read(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]


def problems_of(mutants, root):
    """What is wrong with the list itself, without building anything."""
    tests = None
    names = set()
    for number, mutant in enumerate(mutants, start=1):
        name = mutant.get("name", f"number {number}")
        missing = FIELDS - mutant.keys()
        if missing or mutant.keys() - FIELDS - OPTIONAL:
            yield (f"{name}: the fields are {sorted(mutant)}; needed are {sorted(FIELDS)}, "
                   f"and perhaps {sorted(OPTIONAL)}")
            continue
        if name in names:
            yield f"{name}: there are two of this name"
        names.add(name)
        if mutant["old"] == mutant["new"]:
            yield f"{name}: it changes nothing"
        file = root / mutant["file"]
        if not file.is_file():
            yield f"{name}: there is no file {mutant['file']}"
            continue
        count = file.read_text(encoding="utf-8").count(mutant["old"])
        if count != 1:
            yield f"{name}: its old text stands {count} times in {mutant['file']}, not once: {mutant['old']!r}"
        if "test" in mutant:
            tests = tests_of(root) if tests is None else tests
            for test in mutant["test"].split(":"):
                if test not in tests:
                    yield f"{name}: there is no test {test}"


def tests_of(root):
    found = set()
    for folder in ("src", "tests", "sim"):
        for file in sorted((root / folder).rglob("*_test.cc")):
            found |= {f"{suite}.{test}" for suite, test in A_TEST.findall(file.read_text(encoding="utf-8"))}
    return found


class Copy:
    """The copy of the tree and its build."""

    def __init__(self, place):
        self.tree = place / "tree"
        self.build = self.tree / "build" / "release"
        self.environment = os.environ | {"CCACHE_BASEDIR": str(self.tree), "CCACHE_NOHASHDIR": "1"}

    def sync(self):
        """As the tree is, whatever an earlier run left; files that are the same keep their times."""
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True).stdout.decode()
        wanted = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
        for name in sorted(wanted):
            source, target = ROOT / name, self.tree / name
            data = source.read_bytes()
            if target.is_file() and target.read_bytes() == data:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(source.stat().st_mode & 0o777)
        for file in sorted(self.tree.rglob("*")):
            name = file.relative_to(self.tree).as_posix()
            if file.is_file() and not name.startswith("build/") and name not in wanted:
                file.unlink()

    def configure(self):
        done = subprocess.run(["cmake", "-S", str(self.tree), "-B", str(self.build), "-G", "Ninja",
                               "-DCMAKE_BUILD_TYPE=Release", "-DLOCKSTEP_PYTHON=OFF"],
                              env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"mutants: the copy cannot be configured:\n{done.stdout}{done.stderr}")

    def make(self, target):
        """None, or why it cannot be built."""
        done = subprocess.run(["ninja", "-C", str(self.build), target], env=self.environment, capture_output=True,
                              text=True, errors="replace")
        if done.returncode == 0:
            return None
        errors = [line for line in done.stdout.splitlines() if "error:" in line]
        return errors[0] if errors else done.stdout[-2000:]

    def simulate(self, first, last):
        """What catches in these seeds: (oracle, seed), or None."""
        done = self.run([str(self.build / "lockstep"), "sim", "--seeds", f"{first}..{last}"])
        if done is None:
            return f"not done after {RUN_LIMIT} s", first
        found = VIOLATION.search(done.stderr)
        if found:
            return found.group(3), int(found.group(1))
        if done.returncode >= 0:
            return None if done.returncode == 0 else (done.stderr.strip()[-300:], first)
        if first == last:
            check = CHECK_FAILED.search(done.stderr)
            return (f"check failed: {check.group(1)} ({check.group(2)})" if check
                    else f"it ended by signal {-done.returncode}"), first
        for seed in range(first, last + 1):  # which one it was, it could not say
            caught = self.simulate(seed, seed)
            if caught:
                return caught
        return None

    def exhaust(self):
        """What catches in a script that is ended everywhere: its first violation, or None."""
        done = self.run([str(self.build / "lockstep"), *EXHAUSTIVE])
        if done is None:
            return f"not done after {RUN_LIMIT} s"
        if done.returncode == 0:
            return None
        said = [line for line in done.stderr.splitlines() if line.startswith("script ")]
        check = CHECK_FAILED.search(done.stderr)
        if check:
            return f"check failed: {check.group(1)} ({check.group(2)})"
        return said[0] if said else done.stderr.strip()[-300:] or f"exit status {done.returncode}"

    def test(self, names):
        """The tests among `names` that fail."""
        done = self.run([str(self.build / "lockstep_tests"), f"--gtest_filter={names}"])
        if done is None:
            return [f"not done after {RUN_LIMIT} s"]
        if done.returncode == 0 and " 0 tests" not in done.stdout:
            return []
        return sorted(set(FAILED_TEST.findall(done.stdout))) or [f"exit status {done.returncode}"]

    def run(self, command):
        try:
            return subprocess.run(command, cwd=self.tree, capture_output=True, text=True, errors="replace",
                                  timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            return None

    def apply(self, mutant):
        file = self.tree / mutant["file"]
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")


def rounds(seeds):
    first = 1
    for last in seeds:
        yield first, last
        first = last + 1


def try_one(copy, mutant, seeds):
    """What became of it, as a row of the report."""
    begin = time.monotonic()
    row = {"name": mutant["name"], "rule": mutant["rule"], "file": mutant["file"]}
    copy.apply(mutant)
    by_test = "test" in mutant
    broken = copy.make("lockstep_tests" if by_test else "lockstep")
    row["build_s"] = round(time.monotonic() - begin, 1)
    if broken:
        row |= {"state": "broken", "caught_by": broken}
    elif by_test:
        failed = copy.test(mutant["test"])
        wanted = mutant["test"].split(":")
        row |= {"state": "caught" if set(wanted) <= set(failed) else "survived", "caught_by": ", ".join(failed)}
    else:
        row |= {"state": "survived", "caught_by": f"nothing in {seeds[-1]} seeds"}
        for first, last in rounds(seeds):
            caught = copy.simulate(first, last)
            if caught:
                row |= {"state": "caught", "caught_by": caught[0], "seed": caught[1]}
                break
            said = copy.exhaust() if first == 1 else None
            if said:
                row |= {"state": "caught", "caught_by": said}
                break
    row["seconds"] = round(time.monotonic() - begin, 1)
    return row


def line_of(row):
    seed = f", seed {row['seed']}" if "seed" in row else ""
    return f"{row['state']:<9} {row['name']}: {row['caught_by']}{seed} ({row['seconds']} s)"


def document(rows):
    """The table of docs/simulator.md; where no seed met it, the last column names the script, or says that it is a test."""
    out = ["| mutant | caught by | seed |", "|---|---|---|"]
    for row in rows:
        caught, seed = row["caught_by"], row.get("seed")
        script = OF_A_SCRIPT.match(caught)
        if seed is None and script:
            seed, caught = f"script `{script.group(1)}`", script.group(2)
        elif seed is None:
            seed, caught = ("test", f"`{caught}`") if row["state"] == "caught" else (row["state"], caught)
        out.append(f"| `{row['name']}` | {caught.replace('||', 'or')} | {seed} |")
    return "\n".join(out)


def clean(copy, chosen, seeds):
    """The net must be quiet without a mutant. None, or what it says."""
    by_tests = [mutant["test"] for mutant in chosen if "test" in mutant]
    targets = ["lockstep"] if len(by_tests) < len(chosen) else []
    targets += ["lockstep_tests"] if by_tests else []
    for target in targets:
        broken = copy.make(target)
        if broken:
            return f"it cannot be built: {broken}"
    if "lockstep" in targets:
        for first, last in rounds(seeds):
            caught = copy.simulate(first, last)
            if caught:
                return f"seed {caught[1]}: {caught[0]}"
        said = copy.exhaust()
        if said:
            return said
    if by_tests:
        failed = copy.test(":".join(by_tests))
        if failed:
            return f"these tests fail: {', '.join(failed)}"
    return None


def work(mutants, chosen, arguments):
    os.nice(10)
    seeds = [int(each) for each in arguments.seeds.split(",")]
    say = (lambda *_: None) if arguments.json else (lambda text: print(text, flush=True))
    copy = Copy(ROOT / "build" / "mutants")
    copy.sync()
    copy.configure()
    begin = time.monotonic()
    wrong = clean(copy, chosen, seeds)
    if wrong:
        sys.exit(f"mutants: the net catches what is no mutant: {wrong}")
    say(f"mutants: without a mutant nothing is caught ({time.monotonic() - begin:.0f} s)")
    rows = []
    for mutant in chosen:
        try:
            row = try_one(copy, mutant, seeds)
        finally:
            copy.sync()
        rows.append(row)
        say(line_of(row))
    caught = sum(row["state"] == "caught" for row in rows)
    if arguments.json:
        print(json.dumps({"mutants": rows, "caught": caught, "of": len(rows)}, indent=1))
    say(f"{caught} caught, {sum(row['state'] == 'survived' for row in rows)} survived, "
        f"{sum(row['state'] == 'broken' for row in rows)} cannot be built")
    return 0 if rows and caught == len(rows) else 1


def self_test():
    failed = 0

    def expect(name, good):
        nonlocal failed
        if not good:
            failed += 1
            print(f"self-test: {name}")

    good = {"name": "a", "rule": "S1", "file": "src/a.cc", "old": "x = 1;", "new": "x = 2;"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "src").mkdir()
        (root / "tests").mkdir()
        (root / "src/a.cc").write_text("x = 1;\ny = 1;\ny = 1;\n")
        (root / "src/a_test.cc").write_text("TEST(Suite, fails) {}\n")
        cases = [
            ("a good one", [good], None),
            ("with a test", [good | {"test": "Suite.fails"}], None),
            ("a stale text", [good | {"old": "x = 3;"}], "a: its old text stands 0 times"),
            ("a text that is there twice", [good | {"old": "y = 1;"}], "stands 2 times"),
            ("no such file", [good | {"file": "src/b.cc"}], "no file src/b.cc"),
            ("no such test", [good | {"test": "Suite.passes"}], "no test Suite.passes"),
            ("no change", [good | {"new": "x = 1;"}], "changes nothing"),
            ("one name twice", [good, good], "two of this name"),
            ("a field that is missing", [{"name": "a"}], "needed are"),
            ("a field that nobody reads", [good | {"seed": 3}], "the fields are"),
        ]
        for name, mutants, wanted in cases:
            found = list(problems_of(mutants, root))
            expect(f"{name}: found {found}", not found if wanted is None else any(wanted in each for each in found))

        def lockstep(script):
            copy = Copy(root)
            for program in ("lockstep", "lockstep_tests"):
                path = copy.build / program
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("#!/bin/sh\n" + script)
                path.chmod(0o755)
            return copy

        expect("a clean run", lockstep("exit 0").simulate(1, 5) is None)
        caught = lockstep("echo 'seed 4 at 12 ms: a job is lost' >&2; exit 1").simulate(1, 5)
        expect(f"a violation: {caught}", caught == ("a job is lost", 4))
        says = 'echo "lockstep: check failed: a == b (../../src/x.cc:3)" >&2; kill -ABRT $$'
        caught = lockstep(f'case "$3" in 3..3|1..5) {says};; esac').simulate(1, 5)
        expect(f"a check that failed: {caught}", caught == ("check failed: a == b (src/x.cc:3)", 3))
        expect("tests that pass", lockstep("echo '[==========] Running 1 tests'").test("A.b") == [])
        expect("a filter that finds no test", lockstep("echo 'Running 0 tests'").test("A.b") != [])
        failing = lockstep("echo '[  FAILED  ] A.b (0 ms)'; exit 1").test("A.b")
        expect(f"a test that fails: {failing}", failing == ["A.b"])
        rows = [{"name": "a", "state": "caught", "caught_by": "a == b || c", "seed": 3},
                {"name": "b", "state": "caught", "caught_by": "script refused, sync:7,effect:2: it is told: no"},
                {"name": "c", "state": "caught", "caught_by": "Suite.fails"},
                {"name": "d", "state": "survived", "caught_by": "nothing in 200 seeds"}]
        wanted = ["| `a` | a == b or c | 3 |", "| `b` | it is told: no | script `refused` |",
                  "| `c` | `Suite.fails` | test |", "| `d` | nothing in 200 seeds | survived |"]
        found = document(rows).splitlines()[2:]
        expect(f"a table: {found}", found == wanted)
        expect("rounds", list(rounds((5, 20))) == [(1, 5), (6, 20)])
    print(f"self-test: {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", default=[])
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="how far each round of seeds goes")
    parser.add_argument("--json", action="store_true", help="one object for programs, when all are done")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", metavar="FILE", help="print the table of a report that --json made")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if arguments.table:
        print(document(json.loads(Path(arguments.table).read_text(encoding="utf-8"))["mutants"]))
        return 0
    mutants = read(Path(__file__).resolve().parent / "mutants.toml")
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant['name']:<36} {mutant['rule']}")
        return 0
    problems = list(problems_of(mutants, ROOT))
    for problem in problems:
        print(f"tools/mutants/mutants.toml: {problem}")
    if problems or arguments.check:
        return 1 if problems else 0
    unknown = set(arguments.only) - {mutant["name"] for mutant in mutants}
    if unknown:
        sys.exit(f"mutants: there is no mutant {', '.join(sorted(unknown))}; --list shows them")
    chosen = [mutant for mutant in mutants if not arguments.only or mutant["name"] in arguments.only]
    return work(mutants, chosen, arguments)


if __name__ == "__main__":
    sys.exit(main())
