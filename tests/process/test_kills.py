"""Recovery by real kills, in short (design §1): `make soak` does a thousand. And that its checks can fail."""

import json
import os
import subprocess
import sys

from conftest import LIMIT, ROOT


def kills(*arguments):
    run = subprocess.run([sys.executable, str(ROOT / "tools/kills.py"), *arguments], capture_output=True, text=True,
                         timeout=2 * LIMIT, env=os.environ)
    return run, run.stdout + run.stderr


def test_nothing_is_lost_or_done_twice_and_nothing_is_left_over_kills_of_both_sides(models):
    run, words = kills("--kills", "12", "--seed", "5", "--models", str(models), "--json")
    assert run.returncode == 0, words
    report = json.loads(run.stdout)
    assert report["violations"] == [] and report["kills"] >= 12, words
    assert report["by_kind"]["orchestrator"] >= 1 and sum(report["by_kind"].values()) == report["kills"], words
    # Everything that was asked has its end, and the history has nothing else.
    assert report["requests"] == report["completed"] + report["failed"] > 12, words
    assert report["cut_connections"] > 0 and report["replayed"] > 0, words


def test_each_kind_of_violation_is_found():
    run, words = kills("--self-test")
    assert run.returncode == 0 and "every kind of violation is found" in words, words
