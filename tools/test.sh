#!/usr/bin/env bash
# Builds the release preset and runs every test. The last line is always "N passed, N failed".
#
#   tools/test.sh [ctest options...]     e.g. tools/test.sh -R journal
#
# The tests find what they need in LOCKSTEP_BUILD_DIR (build/release) and LOCKSTEP_BINARY (build/lockstep).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

results="$root/build/test-results"
totalled=no
finish() {
  local status=$?
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

echo "test: ctest"
ctest_status=0
ctest --preset release --output-on-failure --no-tests=error --output-junit "$results/ctest.xml" "$@" || ctest_status=$?

# One run for each folder: they have helpers of the same names.
suites=("ctest:$ctest_status:$results/ctest.xml")
for folder in python/tests tests/process; do
  name="${folder%/tests}"
  name="${name#tests/}"
  echo "test: $folder"
  pytest_status=0
  .venv/bin/python -m pytest -q -p no:cacheprovider --junitxml "$results/$name.xml" "$folder" || pytest_status=$?
  suites+=("$name:$pytest_status:$results/$name.xml")
done

totalled=yes
python3 tools/test_totals.py "${suites[@]}"
