#!/usr/bin/env bash
# Measures lockstep on a machine with an NVIDIA GPU: what the machine can do, the worker's tests, the main job from end
# to end, and how fast a component of 5 GB gets into the GPU.
#
#   tools/gpu/run.sh [BUNDLE]
#
# BUNDLE is a folder that tools/portable.sh made (on another machine, where this one lacks the packages to build with);
# without it, `make build` comes first. The Python is the first python3 that has torch. Every step has a limit of its
# own, and one that fails does not keep the others from being run. With OUT set, logs and figures are left in that
# folder.
#
# Without -e, therefore: what failed is collected, and the exit status is 1 at the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bundle="${1:-}"
out="${OUT:-$(mktemp -d)}"
python="${PYTHON:-python3}"
failed=()

step() { # name, limit in seconds, command...
  local name="$1" limit="$2" began=$SECONDS
  shift 2
  printf '\n== %s\n' "$name"
  timeout -k 5 "$limit" "$@" 2>&1 | tee "$out/$name.log" | tail -40
  local status="${PIPESTATUS[0]}"
  printf -- '-- %s: status %s, %s s\n' "$name" "$status" "$((SECONDS - began))"
  [ "$status" = 0 ] || failed+=("$name")
}

step probe 60 "$python" tools/gpu/probe.py
if [ -n "$bundle" ]; then
  lockstep="$bundle/lockstep"
  # The binding belongs to the Python it is used by, so it is built here, without the orchestrator.
  step binding 300 bash -c "cmake -S . -B build/binding -G Ninja -DCMAKE_BUILD_TYPE=Release -DLOCKSTEP_ORCHESTRATOR=OFF \
    -DLOCKSTEP_TESTS=OFF -DPython_EXECUTABLE=\$(command -v $python) && cmake --build build/binding --target lockstep_native"
else
  lockstep=build/lockstep
  step build 1800 make build
fi
export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}" LOCKSTEP_HOME="$PWD"
step version 20 "$lockstep" --version
step worker_tests 240 "$python" -m pytest -q -p no:cacheprovider python/tests/test_cuda.py
step end_to_end 300 "$python" tools/gpu/end_to_end.py --binary "$lockstep" --json
step load 240 "$python" tools/gpu/load.py --json

printf '\n== all steps\n'
if [ "${#failed[@]}" -gt 0 ]; then
  echo "failed: ${failed[*]}; logs are in $out"
  exit 1
fi
echo "every step passed; logs are in $out"
