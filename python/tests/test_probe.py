"""The probe of tools/gpu, on whatever machine this is."""

import json
import subprocess
import sys
from pathlib import Path

PROBE = Path(__file__).resolve().parents[2] / "tools" / "gpu" / "probe.py"


def test_what_needs_no_gpu_works_here_and_the_rest_is_told_as_it_is():
    done = subprocess.run([sys.executable, PROBE, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["probe"]}
    for name in ("memfd seals", "seal beside a mapping", "descriptor passing", "process handles"):
        assert rows[name]["result"] == "works", rows[name]
    if rows["NVIDIA driver"]["result"] == "absent":
        for name in ("GPU", "read-only registration", "NVML process bytes"):
            assert rows[name]["result"] == "absent" and rows[name]["detail"], rows[name]
