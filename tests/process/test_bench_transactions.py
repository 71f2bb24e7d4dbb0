"""`lockstep bench transactions`: its rows stand beside their floor and beside the peers that are installed. What the
figures are is not tested."""

import glob
import json
import os
import pwd
import shutil
import subprocess

import pytest

from conftest import BINARY

LEAST = ["--commits", "1000", "--json"]


def measured(*options):
    run = subprocess.run([BINARY, "bench", "transactions", *LEAST, *options], capture_output=True, text=True,
                         timeout=300)
    assert run.returncode == 0, run.stderr
    return {row["name"]: row for row in json.loads(run.stdout)["rows"]}, run.stderr


def installed():
    """What of it is here, as the benchmark looks for it."""
    servers = [*sorted(glob.glob("/usr/lib/postgresql/*/bin")), *os.environ["PATH"].split(":"), "/usr/sbin"]
    beside = os.path.dirname(os.path.realpath(BINARY))
    peers = {"postgresql": "initdb", "etcd": "etcd", "rocksdb": "rocksdb_peer"}
    found = {name for name, program in peers.items() if shutil.which(program, path=":".join([*servers, beside]))}
    users = {user.pw_name for user in pwd.getpwall()}
    if os.geteuid() == 0 and "postgres" not in users:  # it refuses to run as root
        found.discard("postgresql")
    return found


@pytest.mark.parametrize("only", ["commit_1", "commit_64"])
def test_a_peer_that_is_not_installed_is_left_out_with_a_line(only, tmp_path):
    rows, said = measured("--only", only, "--peers", str(tmp_path))
    for name in [only, only + "_json"]:
        assert rows[name]["value"] > 0 and rows[name]["floor"] > 0
        assert "peers" not in rows[name]
        if only == "commit_64":
            assert rows[name]["target"] == pytest.approx(0.5 * rows[name]["floor"])
    for peer in ["postgresql", "etcd", "rocksdb"]:
        assert f"{peer} is left out: " in said


@pytest.mark.parametrize("only", ["commit_1", "commit_64"])
def test_a_peer_that_is_installed_answers(only):
    there = installed()
    if not there:
        pytest.skip("no peer is installed")
    rows, said = measured("--only", only)
    peers = rows[only]["peers"]
    assert peers.keys() == there, said
    assert rows[only + "_json"]["peers"] == peers
    assert all(value > 0 for value in peers.values())
    if only == "commit_64":
        times = {"postgresql": 5, "etcd": 5, "rocksdb": 2}
        assert rows[only]["target"] == pytest.approx(max(times[peer] * value for peer, value in peers.items()))
        share = 100 * rows[only]["value"] / rows[only]["floor"]
        assert rows["commit_64_of_floor"]["value"] == pytest.approx(share)
        assert rows["commit_64_of_floor"]["target"] == 50


def test_a_peer_that_breaks_fails_the_benchmark_instead_of_lowering_its_target(tmp_path):
    etcd = tmp_path / "etcd"
    etcd.write_text("#!/bin/sh\necho the disk is full\nexit 1\n")
    etcd.chmod(0o755)
    run = subprocess.run([BINARY, "bench", "transactions", *LEAST, "--only", "commit_64", "--peers", str(tmp_path)],
                         capture_output=True, text=True, timeout=300)
    assert run.returncode == 1 and run.stdout == ""
    assert "etcd ended before it answered: the disk is full" in run.stderr
