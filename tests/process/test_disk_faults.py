"""A disk that fails below real processes, in short (`make soak` does more rounds). And that its checks can fail."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import LIMIT, ROOT, talking, until

TOOL = str(ROOT / "tools/disk_faults.py")
PREFIX = "lockstep-disk-"  # of its folder, which is in the name of everything that it mounts


def disk_faults(*arguments):
    run = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=3 * LIMIT,
                         env=os.environ)
    if run.returncode == 77:
        pytest.skip(run.stderr.strip().splitlines()[-1])
    return run, run.stdout + run.stderr


def loops():
    """The loop devices that have a file."""
    return {str(path) for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")}


def left(folder):
    """What of a run is still mounted or is a process."""
    commands = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            pass
    mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
    return [each for each in [*mounts, *commands] if folder in each]


def test_nothing_acknowledged_is_lost_on_a_disk_that_fails(models):
    run, words = disk_faults("--faults", "writes,cut,image", "--rounds", "3", "--seed", "11", "--models", str(models),
                             "--json")
    assert run.returncode == 0, words
    report = json.loads(run.stdout)
    assert report["violations"] == [] and report["by_fault"] == {"writes": 1, "cut": 1, "image": 1}, words
    assert report["requests"] == report["completed"] + report["failed"] > 12, words
    assert report["cut_connections"] > 0 and report["file_system_checks"]["clean"] > 0, words


def test_a_disk_that_lies_about_flushes_is_found_out(models):
    run, words = disk_faults("--faults", "lie", "--rounds", "1", "--seed", "12", "--models", str(models), "--json")
    assert run.returncode == 1, words
    found = {each["sentence"] for each in json.loads(run.stdout)["violations"]}
    assert any("nothing that recovery does not know" in sentence for sentence in found), words
    assert "one key is one request" in found, words
    shutil.rmtree(re.search(rf"the disk are in (\S+{PREFIX}\S+)", words).group(1))


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(models, ended_by):
    before = loops()
    folder, said, words = None, "", ""
    with talking(sys.executable, TOOL, "--rounds", "1000", "--models", models, "--faults", "slow",
                 of="stderr") as process:
        for said in process.stderr:
            words += said
            folder = next((word for word in said.split() if PREFIX in word), folder)
            if "round 1," in said or "not run" in said:
                break
        if "not run" in said:
            process.wait(LIMIT)
            pytest.skip(said.strip())
        assert folder, words
        until("its disk to be there", lambda: left(folder) and loops() - before)
        process.send_signal(ended_by)
        process.wait(LIMIT)
    until("everything of it to be gone", lambda: not left(folder) and not loops() - before)
    assert ended_by == signal.SIGKILL or not pathlib.Path(folder).exists()
    shutil.rmtree(folder, ignore_errors=True)


def test_where_it_cannot_run_it_says_why():
    code = "import os, sys; os.geteuid = lambda: 1000; import disk_faults; sys.exit(disk_faults.main())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT,
                         env=os.environ | {"PYTHONPATH": str(ROOT / "tools")})
    assert run.returncode == 77 and run.stderr == "disk_faults: not run: it needs root\n", run.stdout + run.stderr


def test_the_disk_loses_what_it_should_and_unclear_words_are_found():
    run, words = disk_faults("--self-test")
    assert run.returncode == 0 and "unclear words are found" in words, words
