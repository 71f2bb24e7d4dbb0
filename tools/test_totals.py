#!/usr/bin/env python3
"""Adds up the results of the test runners. The last line is "N passed, N failed".

    tools/test_totals.py RUNNER:STATUS:JUNIT_FILE...

A runner without a test counts as one failure, and so does one whose exit status tells of a failure
that its file does not show. Skipped tests count as neither. Exit status 1 if anything failed.
"""

import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    """passed, failed or skipped, for one <testcase>."""
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    skipped = case.find("skipped")
    if case.get("status") == "disabled":
        return "skipped"
    if case.get("status") == "notrun":  # ctest: a test that asked to be skipped, or one that could not start
        asked = skipped is not None and (skipped.get("message") or "").startswith("SKIP_")
        return "skipped" if asked else "failed"
    return "skipped" if skipped is not None else "passed"


def read(path):
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return []
    return [(case.get("classname") or "", case.get("name") or "", outcome(case)) for case in root.iter("testcase")]


def main():
    passed = failed = 0
    for argument in sys.argv[1:]:
        runner, status, path = argument.split(":", 2)
        cases = read(path)
        mine = {kind: sum(1 for case in cases if case[2] == kind) for kind in ("passed", "failed", "skipped")}
        for group, name, kind in cases:
            if kind == "failed":
                print(f"{runner}: failed: {group + '::' if group and group != name else ''}{name}")
        # A suite that skipped all of its tests said why (LOCKSTEP_TORCH=skip); one without any test is a mistake.
        if mine["passed"] + mine["failed"] == 0 and not (mine["skipped"] and status == "0"):
            print(f"{runner}: executed nothing, which counts as a failure")
            mine["failed"] += 1
        elif status != "0" and mine["failed"] == 0:
            print(f"{runner}: ended with status {status} without naming a failed test")
            mine["failed"] += 1
        print(f"{runner}: {mine['passed']} passed, {mine['failed']} failed, {mine['skipped']} skipped")
        passed += mine["passed"]
        failed += mine["failed"]
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
