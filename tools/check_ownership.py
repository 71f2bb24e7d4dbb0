#!/usr/bin/env python3
"""Checks that every responsibility of §1.1-1.6 has a home, and that docs/ownership.md says what the program says.

    tools/check_ownership.py                      the rows: file and test exist, or "to come: what"
    tools/check_ownership.py --binary LOCKSTEP    also the tables of `LOCKSTEP ownership --json` and docs/ownership.md
    tools/check_ownership.py --binary LOCKSTEP --write     print docs/ownership.md anew
    tools/check_ownership.py --self-test          show on made-up rows that every kind of defect is found
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

SECTIONS = ["§1.1", "§1.2", "§1.3", "§1.4", "§1.5", "§1.6"]
DOMAINS = dict(zip(SECTIONS, ["Device", "Memory", "Model", "Processing", "Inference", "Postprocessing"]))
ROWS_IN_SECTION = {"orchestrator": 12, "worker": 8}
SYNC_POINTS = 24
TO_COME = "to come: "
# What lists of responsibilities like to forget: each must be found in a row, done or to come.
NOT_TO_BE_FORGOTTEN = ["access control", "error policy and retry", "calibration", "collection scheduling", "analytics",
                       "emergency procedures", "leak detection", "load balancing", "fallback",
                       "model compatibility verification for inference requests"]
CPP_TEST = re.compile(r"^TEST(?:_F|_P)?\((\w+),\s*(\w+)\)", re.M)
PYTHON_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.M)


def tests_of(root):
    """The names that a row may use: Suite.name, and test_file.py::test_name."""
    names = set()
    for folder in ["src", "sim", "bench", "tests"]:
        for path in (root / folder).rglob("*_test.cc"):
            names |= {f"{suite}.{name}" for suite, name in CPP_TEST.findall(path.read_text(encoding="utf-8"))}
    for folder in ["tests", "python"]:
        for path in (root / folder).rglob("test_*.py"):
            names |= {f"{path.name}::{name}" for name in PYTHON_TEST.findall(path.read_text(encoding="utf-8"))}
    return names


def home_problems(where, home, root, tests):
    if len(home) == 1:
        if not home[0].startswith(TO_COME) or not home[0][len(TO_COME):].strip():
            yield f"{where}: neither a file with its test nor \"{TO_COME}...\""
        return
    if len(home) != 2:
        yield f"{where}: neither a file with its test nor \"{TO_COME}...\""
        return
    file, test = home
    if not (root / file).is_file():
        yield f"{where}: there is no file {file}"
    if test not in tests:
        yield f"{where}: there is no test {test}"


def facts_in(root):
    text = (root / "src/ownership/facts.h").read_text(encoding="utf-8")
    body = re.search(r"enum class Fact \{(.*?)\};", text, re.S).group(1)
    return set(re.findall(r"\w+", body))


def problems_of(rows, root):
    tests = tests_of(root)
    facts = facts_in(root)
    counts = {}
    said = []
    for group in rows["group"]:
        key = (group["section"], group["side"])
        for fact, responsibility, *home in group["rows"]:
            counts[key] = counts.get(key, 0) + 1
            where = f"{group['section']} {group['side']}, \"{responsibility}\""
            said.append(responsibility.lower())
            if fact not in facts:
                yield f"{where}: there is no fact {fact}"
            yield from home_problems(where, home, root, tests)
    for section in SECTIONS:
        for side, wanted in ROWS_IN_SECTION.items():
            have = counts.pop((section, side), 0)
            if have != wanted:
                yield f"{section}: {have} rows of the {side}'s; the specification has {wanted}"
    for section, side in counts:
        yield f"{section}, {side}: no such part"
    for words in NOT_TO_BE_FORGOTTEN:
        if not any(words in each or all(word in each for word in words.split(" and ")) for each in said):
            yield f"no row speaks of {words}"
    points = rows["sync_points"]["rows"]
    if len({point for point, *_ in points}) != SYNC_POINTS or len(points) != SYNC_POINTS:
        yield f"{len(points)} sync points; the specification has {SYNC_POINTS}"
    for point, *home in points:
        yield from home_problems(f"sync point {point}", home, root, tests)


def home_text(home):
    return "| " + (home[0] if len(home) == 1 else f"`{home[0]}` | `{home[1]}`") + (" | |" if len(home) == 1 else " |")


def document(rows, tables):
    out = ["# Ownership", "",
           "Printed by `tools/check_ownership.py --write` from `src/ownership/table.cc` and `docs/ownership_rows.toml`; "
           "do not edit it here.", "",
           "Every fact has one side that writes it (§1.1-1.6). A frame that tells of a fact of the other side's is "
           "refused with `not_owner`, counted for each worker and fact, shown, and changes nothing. An event that is "
           "the sender's to send, and that nothing is done with in this version, is refused with `not_yet`. Neither "
           "ends the worker. The core asks these tables in `src/orchestrator/owner_gate.cc` and in "
           "`src/worker/step.cc`.", "",
           "## Facts", "",
           "| § | fact | written by | read by | journaled in | crosses by | what it says |",
           "|---|---|---|---|---|---|---|"]
    for row in tables["facts"]:
        readers = {"other_side": "the other side", "people": "people", "everyone": "the other side, people"}
        kept = ", ".join(f"`{table}`" for table in row["tables"]) or "volatile"
        events = ", ".join(f"`{event}`" for event in row["crosses_by"]) or "nothing; it stays where it is"
        people = "; people may change it" if row["people_may_change"] else ""
        out.append(f"| {row['section']} | `{row['fact']}` | {row['owner']}{people} | {readers[row['readers']]} "
                   f"| {kept} | {events} | {row['is']} |")
    out += ["", "## Critical sync points", "",
            "| § | sync point | from | events | file | test |", "|---|---|---|---|---|---|"]
    homes = {point: home for point, *home in rows["sync_points"]["rows"]}
    for row in tables["sync_points"]:
        events = ", ".join(f"`{event}`" for event in row["events"])
        out.append(f"| {row['section']} | `{row['sync_point']}` | {row['from']} | {events} "
                   + home_text(homes[row["sync_point"]]))
    done = sum(len(row) == 4 for group in rows["group"] for row in group["rows"])
    every = sum(len(group["rows"]) for group in rows["group"])
    out += ["", "## Responsibilities", "", f"{done} of {every} have a home; the others say what is to come.", ""]
    for section in SECTIONS:
        out += [f"### {section} {DOMAINS[section]}", "",
                "| side | part | responsibility | fact | file | test |", "|---|---|---|---|---|---|"]
        for group in rows["group"]:
            if group["section"] != section:
                continue
            for fact, responsibility, *home in group["rows"]:
                out.append(f"| {group['side']} | {group['name']} | {responsibility} | `{fact}` " + home_text(home))
        out.append("")
    return "\n".join(out[:-1]) + "\n"


def table_problems(rows, tables):
    said = [point for point, *_ in rows["sync_points"]["rows"]]
    enforced = [row["sync_point"] for row in tables["sync_points"]]
    if said != enforced:
        yield "the sync points of docs/ownership_rows.toml are not those of src/ownership/table.cc, in order"


def self_test():
    good = ["votes", "a load balancing row", "home.cc", "Suite.name"]

    def rows(**changes):
        made = [{"section": section, "side": side, "name": "", "rows": [list(good) for _ in range(count)]}
                for section in SECTIONS for side, count in ROWS_IN_SECTION.items()]
        spoken = [list(good) for _ in NOT_TO_BE_FORGOTTEN]
        for row, words in zip(spoken, NOT_TO_BE_FORGOTTEN):
            row[1] = words
        made[0]["rows"][:len(spoken)] = spoken
        points = [[f"point_{i}", "home.cc", "test_x.py::test_y"] for i in range(SYNC_POINTS)]
        result = {"group": made, "sync_points": {"rows": points}}
        if "row" in changes:
            made[1]["rows"][0] = changes["row"]
        if "point" in changes:
            points[0] = changes["point"]
        if changes.get("fewer"):
            made[2]["rows"].pop()
        if "forget" in changes:
            made[0]["rows"][NOT_TO_BE_FORGOTTEN.index(changes["forget"])][1] = "something else"
        return result

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ["src/ownership", "sim", "bench", "tests", "python"]:
            (root / name).mkdir(parents=True)
        (root / "home.cc").write_text("")
        (root / "src/ownership/facts.h").write_text("enum class Fact {\n  votes,\n};\n")
        (root / "src/suite_test.cc").write_text("TEST(Suite, name) {}\n")
        (root / "tests/test_x.py").write_text("def test_y():\n    pass\n")
        cases = [
            ("good rows", rows(), None),
            ("a row to come", rows(row=["votes", "x", "to come: a thing"]), None),
            ("a row with neither", rows(row=["votes", "x", ""]), "neither"),
            ("a row with a file and no test", rows(row=["votes", "x", "home.cc"]), "neither"),
            ("nothing to come", rows(row=["votes", "x", "to come: "]), "neither"),
            ("a file that is not there", rows(row=["votes", "x", "gone.cc", "Suite.name"]), "no file gone.cc"),
            ("a test that is not there", rows(row=["votes", "x", "home.cc", "Suite.gone"]), "no test Suite.gone"),
            ("a fact that is not there", rows(row=["gone", "x", "home.cc", "Suite.name"]), "no fact gone"),
            ("a sync point with neither", rows(point=["point_0", ""]), "neither"),
            ("a missing row", rows(fewer=True), "the specification has 12"),
            ("a missing sync point", rows(point=["point_1", "home.cc", "Suite.name"]), "24"),
            ("something forgotten", rows(forget="leak detection"), "leak detection"),
        ]
        failed = 0
        for name, made, wanted in cases:
            found = list(problems_of(made, root))
            good_case = not found if wanted is None else any(wanted in each for each in found)
            if not good_case:
                failed += 1
                print(f"self-test: {name}: found {found}")
    print(f"self-test: {len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="the program whose tables the document shows")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    root = Path(__file__).resolve().parent.parent
    rows = tomllib.loads((root / "docs/ownership_rows.toml").read_text(encoding="utf-8"))
    problems = list(problems_of(rows, root))
    if arguments.binary:
        tables = json.loads(subprocess.run([arguments.binary, "ownership", "--json"], check=True,
                                           capture_output=True, text=True).stdout)
        problems += table_problems(rows, tables)
        target = root / "docs/ownership.md"
        if not problems and arguments.write:
            target.write_text(document(rows, tables), encoding="utf-8")
        elif not problems and (not target.is_file() or target.read_text(encoding="utf-8") != document(rows, tables)):
            problems.append("docs/ownership.md is not what the tables say; tools/check_ownership.py --write prints it")
    for problem in problems:
        print(f"docs/ownership_rows.toml: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
