#!/usr/bin/env bash
# The long tests: the formal model of commit, many simulator seeds, small scripts ended at every point, a thousand kills
# of real processes, faults of a disk below them, then every C++ test under the address and undefined sanitizers.
#
#   tools/soak.sh [first..last] [kills] [rounds]     the seeds, default 1..20000; the kills, default 1000; the rounds of
#                                                    disk faults, default 20
#
# The reports are left in build/soak: sim/, kills.json, disk_faults.json. On two processors the seeds take an hour and a
# half, the points a quarter of one.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
seeds="${1:-1..20000}"
kills="${2:-1000}"
rounds="${3:-20}"

tools/setup.sh

echo "soak: the formal model of commit, and that its checks can fail"
tools/model/check.sh --all

tools/build.sh release
mkdir -p build/soak/sim

echo "soak: the small scope, ended at every point, and the seeds $seeds"
simulated=0
OUT="$root/build/soak/sim" tools/spread_sim.sh "${seeds%..*}" "${seeds#*..}" || simulated=$?

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
[ "$killed" = 0 ] || { echo "soak: the kills found violations, or were too few: build/soak/kills.json" >&2; exit 1; }
[ "$faulted" = 0 ] || exit 1
[ "$simulated" = 0 ] || { echo "soak: the simulator found violations: build/soak/sim" >&2; exit 1; }
echo "soak: done"
