#!/usr/bin/env python3
"""Checks that every file includes only what its room may see.

The ranks, the third-party rules and the exceptions (each with its reason) are in tools/room_ranks.json.

    tools/check_rooms.py                 check this tree; one line per violation, exit status 1 if any
    tools/check_rooms.py --self-test     show on a made-up tree that every kind of violation is found
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

SUFFIXES = {".h", ".cc", ".hpp", ".cpp", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def glob_regex(pattern):
    """`**` crosses folders, `*` does not."""
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts) + r"\Z")


def matches(path, patterns):
    return any(glob_regex(pattern).match(path) for pattern in patterns)


class Rooms:
    def __init__(self, root, policy):
        self.root = Path(root)
        self.ranks = policy["ranks"]
        self.outside_src = policy["outside_src"]
        self.generated = policy["generated"]
        self.line_limits = policy["line_limits"]
        self.third_party = policy["third_party"]
        self.exceptions = policy["exceptions"]
        self.used = set()
        self.problems = []

    # -- names

    def room_of(self, path):
        """The room of a file or of an include, written from src/ (or from the top for sim/, bench/, ...)."""
        parts = path.split("/")
        if len(parts) < 2:
            return None
        if parts[0] == "domains":
            return "/".join(parts[:2]) if len(parts) > 2 else None
        return parts[0]

    def files(self):
        for top in ["src", *self.outside_src]:
            for path in sorted((self.root / top).rglob("*")):
                if path.suffix in SUFFIXES and path.is_file():
                    yield path.relative_to(self.root).as_posix()

    def room_of_file(self, file):
        return self.room_of(file.removeprefix("src/"))

    # -- rules

    def report(self, file, line, rule):
        self.problems.append(f"{file}:{line}: {rule}")

    def excepted(self, file, include):
        for index, entry in enumerate(self.exceptions):
            if glob_regex(entry["file"]).match(file) and include.startswith(entry["include"]):
                self.used.add(index)
                return True
        return False

    def check_own(self, file, line, room, include):
        if any(include.startswith(prefix) for prefix in self.generated) or self.excepted(file, include):
            return
        target = self.room_of(include)
        if target is None:
            self.report(file, line, f'"{include}" has no room: write includes from the source root')
        elif target not in self.ranks:
            self.report(file, line, f'"{include}": room {target} has no rank in tools/room_ranks.json')
        elif target == room:
            return
        elif room.startswith("domains/") and target.startswith("domains/"):
            self.report(file, line, f"{room} includes {target}: no domain sees another; "
                                    "what needs both is an operation")
        elif self.ranks[target] >= self.ranks[room]:
            self.report(file, line, f"{room} (rank {self.ranks[room]}) includes {target} "
                                    f"(rank {self.ranks[target]}): only lower ranks are allowed")

    def check_third_party(self, file, line, include):
        for rule in self.third_party:
            if not any(include == header or include.startswith(header) for header in rule["headers"]):
                continue
            if matches(file, rule["allowed"]) or self.excepted(file, include):
                continue
            where = ", ".join(rule["allowed"]) or "nowhere"
            self.report(file, line, f"<{include}>: {rule['name']} is allowed in: {where} ({rule['reason']})")

    def check_file(self, file):
        room = self.room_of_file(file)
        text = (self.root / file).read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        limit = self.line_limits.get(file)
        if limit is not None and len(lines) > limit:
            self.report(file, limit + 1, f"{len(lines)} lines; this file only chains the rooms "
                                         f"and stays within {limit}")
        if room is None:
            self.report(file, 1, "lies in no room")
            return
        if room not in self.ranks:
            self.report(file, 1, f"room {room} has no rank in tools/room_ranks.json")
            return
        for number, text_line in enumerate(lines, start=1):
            found = INCLUDE.match(text_line)
            if not found:
                continue
            quoted, angled = found.groups()
            if angled is not None and self.room_of(angled) in self.ranks:
                self.report(file, number, f"<{angled}>: our own headers are included with quotes")
                self.check_own(file, number, room, angled)
            elif quoted is not None and not self.is_third_party(quoted):
                self.check_own(file, number, room, quoted)
            else:
                self.check_third_party(file, number, angled if quoted is None else quoted)

    def is_third_party(self, include):
        return any(include.startswith(header) for rule in self.third_party for header in rule["headers"])

    def check(self):
        count = 0
        for file in self.files():
            self.check_file(file)
            count += 1
        for entry in self.exceptions:
            if not entry.get("reason"):
                self.report("tools/room_ranks.json", 1, f"exception for {entry['file']} has no reason")
        return count


def load_policy(root):
    with open(Path(root) / "tools" / "room_ranks.json", encoding="utf-8") as file:
        return json.load(file)


# ---- self-test --------------------------------------------------------------------------------------------

# file -> (text, what the report must say; None: the file is fine)
CASES = {
    "src/base/result.h": ("#include <expected>\n", None),
    "src/env/clock.h": ('#include "base/result.h"\n', None),
    "src/env/real/loop.cc": ('#include <boost/asio.hpp>\n#include "env/clock.h"\n', None),
    "src/http/server.cc": ("#include <boost/beast/http.hpp>\n", None),
    "src/journal/sqlite_store.cc": ("#include <sqlite3.h>\n", None),
    "src/server/main.cc": ('#include "sim/command.h"\n#include <CLI/CLI.hpp>\n', None),
    "src/state/table_test.cc": ('#include "tests/support/text.h"\n', None),
    "src/operations/device_memory.cc": ('#include "domains/device/types.h"\n'
                                        '#include "domains/memory/types.h"\n', None),
    "src/orchestrator/step.cc": ("\n" * 300, None),
    "sim/world/clock.cc": ('#include "env/clock.h"\n#include "sim/world/clock.h"\n', None),
    "src/base/up.h": ('#include "env/clock.h"\n', "base (rank 0) includes env (rank 1)"),
    "src/liveness/side.h": ('#include "transactions/saga.h"\n', "liveness (rank 3) includes transactions (rank 3)"),
    "src/env/real/events.cc": ('#include "events/envelope.h"\n', "env (rank 1) includes events (rank 1)"),
    "src/base/unknown.h": ('\n#include "cellar/wine.h"\n', "unknown.h:2: "),
    "src/base/bare.h": ('#include "result.h"\n', "write includes from the source root"),
    "src/base/angled.h": ("#include <base/result.h>\n", "with quotes"),
    "src/cellar/wine.h": ("\n", "room cellar has no rank"),
    "src/loose.h": ("\n", "lies in no room"),
    "src/domains/device/cross.cc": ('#include "domains/memory/types.h"\n', "no domain sees another"),
    "src/env/real/loop.h": ("#include <boost/asio/ip/tcp.hpp>\n", "loop.h:1: <boost/asio/ip/tcp.hpp>"),
    "src/runtime/loop.cc": ("#  include <boost/beast.hpp>\n", "loop.cc:1: <boost/beast.hpp>"),
    "src/events/codec.cc": ("#include <boost/json.hpp>\n", "allowed in: bench/boost_json.cc"),
    "src/http/json.cc": ("#include <boost/json/src.hpp>\n", "json.cc:1: <boost/json/src.hpp>"),
    "src/journal/recovery.cc": ("#include <sqlite3.h>\n", "recovery.cc:1: <sqlite3.h>"),
    "src/runtime/quoted.cc": ('#include "sqlite3.h"\n', "quoted.cc:1: <sqlite3.h>"),
    "src/runtime/log.cc": ("#include <spdlog/spdlog.h>\n", "log.cc:1: <spdlog/spdlog.h>"),
    "src/worker/config.cc": ("#include <toml++/toml.h>\n", "config.cc:1: <toml++/toml.h>"),
    "src/worker/args.cc": ("#include <CLI/CLI.hpp>\n", "args.cc:1: <CLI/CLI.hpp>"),
    "src/worker/helper.cc": ('#include "tests/support/text.h"\n', "worker (rank 6) includes tests (rank 11)"),
    "src/cli/sim.cc": ('#include "sim/command.h"\n', "cli (rank 7) includes sim (rank 9)"),
}


def run_tree(policy, files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        rooms = Rooms(folder, policy)
        rooms.check()
        return rooms.problems


def self_test(policy):
    failures = []

    def expect(condition, text):
        if not condition:
            failures.append(text)

    problems = run_tree(policy, {name: text for name, (text, _) in CASES.items()})
    for name, (_, wanted) in CASES.items():
        mine = [problem for problem in problems if problem.startswith(name + ":")]
        if wanted is None:
            expect(not mine, f"{name} is fine, yet: {mine}")
        else:
            expect(any(wanted in problem for problem in mine), f"{name} was not caught ({wanted}): {mine}")

    problems = run_tree(policy, {"src/orchestrator/step.cc": "\n" * 301})
    expect(any("301 lines" in problem for problem in problems), f"a long step.cc was not caught: {problems}")

    unexplained = dict(policy, exceptions=[{"file": "src/base/*", "include": "env/", "reason": ""}])
    problems = run_tree(unexplained, {"src/base/up.h": '#include "env/clock.h"\n'})
    expect(any("has no reason" in problem for problem in problems), f"a bare exception passed: {problems}")

    for failure in failures:
        print(f"self-test: {failure}")
    print(f"check_rooms self-test: {len(CASES) + 2 - len(failures)} of {len(CASES) + 2} cases as expected")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()

    policy = load_policy(arguments.root)
    if arguments.self_test:
        return self_test(policy)
    rooms = Rooms(arguments.root, policy)
    count = rooms.check()
    for problem in rooms.problems:
        print(problem)
    if count == 0:
        print("check_rooms: no source file found")
        return 1
    print(f"check_rooms: {count} files, {len(rooms.problems)} violations")
    return 1 if rooms.problems else 0


if __name__ == "__main__":
    sys.exit(main())
