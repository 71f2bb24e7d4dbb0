#!/usr/bin/env bash
# Builds the release preset and runs every test. The last line is always "N passed, N failed".
#
#   tools/test.sh [ctest options...]     e.g. tools/test.sh -R journal
#
# The simulator runs its two minutes beside the other C++ tests and python/tests, on another core; what it said comes
# when both are done.
#
# The tests find what they need in LOCKSTEP_BUILD_DIR (build/release) and LOCKSTEP_BINARY (build/lockstep).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

results="$root/build/test-results"
totalled=no
beside=
finish() {
  local status=$?
  if [ -n "$beside" ] && kill -0 "$beside" 2>/dev/null; then
    pkill -P "$beside" || true
    kill "$beside" || true
  fi
  if [ "$totalled" = no ]; then
    echo "test: stopped before the tests could run" >&2
    echo "0 passed, 1 failed"
  fi
  exit "$status"
}
trap finish EXIT

tools/setup.sh
tools/build.sh release

export LOCKSTEP_BUILD_DIR="$root/build/release"
export LOCKSTEP_BINARY="$root/build/lockstep"
export PYTHONPATH="$root/build/release/python:$root/python${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONDONTWRITEBYTECODE=1
rm -rf "$results"
mkdir -p "$results"

# The tests of one label, or all without it, that the options choose.
tests() {
  ctest --preset release -N "$@" | sed -n 's/^Total Tests: //p'
}
suites=()
if [ "$(tests -L '^beside$' "$@")" != 0 ]; then
  ctest --preset release --output-on-failure -L '^beside$' --output-junit "$results/simulator.xml" "$@" \
    >"$results/simulator.log" 2>&1 &
  beside=$!
fi
# With the simulator alone there is nothing else to run; with nothing at all it is a mistake.
if [ -z "$beside" ] || [ "$(tests -LE '^beside$' "$@")" != 0 ]; then
  echo "test: ctest"
  ctest_status=0
  ctest --preset release --output-on-failure --no-tests=error -LE '^beside$' --output-junit "$results/ctest.xml" "$@" ||
    ctest_status=$?
  suites+=("ctest:$ctest_status:$results/ctest.xml")
fi

# One run for each folder: they have helpers of the same names.
for folder in python/tests tests/process; do
  name="${folder%/tests}"
  name="${name#tests/}"
  # Processes are timed there: they have the cores to themselves.
  if [ "$folder" = tests/process ] && [ -n "$beside" ]; then
    echo "test: simulator"
    simulator_status=0
    wait "$beside" || simulator_status=$?
    beside=
    cat "$results/simulator.log"
    suites+=("simulator:$simulator_status:$results/simulator.xml")
  fi
  echo "test: $folder"
  pytest_status=0
  # Only a hang reaches this limit of one test: then the run ends with what every thread was doing, instead of never.
  .venv/bin/python -m pytest -q -p no:cacheprovider -o faulthandler_timeout=1800 -o faulthandler_exit_on_timeout=true \
    --junitxml "$results/$name.xml" "$folder" || pytest_status=$?
  suites+=("$name:$pytest_status:$results/$name.xml")
done

totalled=yes
python3 tools/test_totals.py "${suites[@]}"
