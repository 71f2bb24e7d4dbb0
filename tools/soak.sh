#!/usr/bin/env bash
# The long tests: the formal model of commit, many simulator seeds, small scripts ended at every point, a thousand kills
# of real processes, faults of a disk below them, then every C++ test under the address and undefined sanitizers.
#
#   tools/soak.sh [first..last] [kills] [rounds]     the seeds, default 1..2000; the kills, default 1000; the rounds of
#                                                    disk faults, default 20
#
# The reports are left in build/soak: sim.json, exhaustive.json, kills.json, disk_faults.json.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
seeds="${1:-1..2000}"
kills="${2:-1000}"
rounds="${3:-20}"
report=build/soak/sim.json

tools/setup.sh

echo "soak: the formal model of commit, and that its checks can fail"
tools/model/check.sh --all

tools/build.sh release
mkdir -p "${report%/*}"

echo "soak: simulating the seeds $seeds"
status=0
build/lockstep sim --seeds "$seeds" --json >"$report" || status=$?
python3 - "$report" "$status" <<'PY'
import json, sys
path, status = sys.argv[1], int(sys.argv[2])
try:
    report = json.load(open(path, encoding="utf-8"))
except (OSError, ValueError) as error:
    sys.exit(f"soak: the simulator left no report (status {status}): {error}")
violations = report.get("violations", [])
for violation in violations[:20]:
    print("soak: violation:", json.dumps(violation, ensure_ascii=False))
print(f"soak: {report.get('runs', 0)} runs, {report.get('simulated_s', 0)} s simulated, "
      f"{sum(report.get('faults', {}).values())} faults, {len(violations)} violations")
sys.exit(1 if violations or status or not report.get("runs") else 0)
PY

echo "soak: the small scope, ended at every point, for at most 40 minutes"
build/lockstep sim --exhaustive --wall 2400 --json >build/soak/exhaustive.json

# A violation does not hide what the sanitizers find: the status is kept for the end.
killed=0
faulted=0
if .venv/bin/python -c 'import torch, diffusers' 2>/dev/null; then
  echo "soak: $kills kills of real processes"
  LOCKSTEP_BINARY="$root/build/lockstep" PYTHONPATH="$root/build/release/python:$root/python" \
    .venv/bin/python tools/kills.py --kills "$kills" --json >build/soak/kills.json || killed=$?
  echo "soak: $rounds rounds of disk faults below real processes"
  LOCKSTEP_BINARY="$root/build/lockstep" PYTHONPATH="$root/build/release/python:$root/python" \
    .venv/bin/python tools/disk_faults.py --rounds "$rounds" --json >build/soak/disk_faults.json || faulted=$?
  # It said why it cannot run on this machine; that is no failure.
  [ "$faulted" != 77 ] || { faulted=0 && echo "soak: no disk faults below real processes"; }
else
  echo "soak: no kills of real processes, no disk faults below them: the tiny models are made with PyTorch, which is not installed"
fi

echo "soak: every C++ test under the address and undefined sanitizers"
tools/build.sh debug
ctest --preset debug --output-on-failure --no-tests=error
[ "$faulted" = 0 ] || echo "soak: the disk faults found violations: build/soak/disk_faults.json" >&2
[ "$killed" = 0 ] || { echo "soak: the kills found violations: build/soak/kills.json" >&2; exit 1; }
[ "$faulted" = 0 ] || exit 1
echo "soak: done"
