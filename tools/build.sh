#!/usr/bin/env bash
# Configures and builds one CMake preset.
#
#   tools/build.sh [preset [target...]]     release (default), debug, tsan or portable
#
# The build lies in build/<preset>; the release preset also leaves the program at build/lockstep.
# LOCKSTEP_JOBS sets the number of compilers that run at once (default: one per core, 1.5 GiB of memory each).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

preset="${1:-release}"
shift || true
binary_dir="build/$preset"

for tool in cmake ninja c++; do
  command -v "$tool" >/dev/null || {
    echo "build: $tool is missing; run 'make setup' first" >&2
    exit 1
  }
done

jobs() {
  local by_memory cores
  cores="$(nproc)"
  by_memory="$(awk '/^MemAvailable:/ { print int($2 / (1536 * 1024)) }' /proc/meminfo)"
  if [ "$by_memory" -lt 1 ]; then by_memory=1; fi
  echo $((cores < by_memory ? cores : by_memory))
}

options=()
if [ -x .venv/bin/python ]; then
  options+=("-DPython_EXECUTABLE=$root/.venv/bin/python")
fi

mkdir -p "$binary_dir"
if ! cmake --preset "$preset" "${options[@]}" >"$binary_dir/configure.log" 2>&1; then
  cat "$binary_dir/configure.log" >&2
  echo "build: configuring the preset '$preset' failed" >&2
  exit 1
fi

targets=()
if [ "$#" -gt 0 ]; then
  targets=(--target "$@")
fi
cmake --build "$binary_dir" --parallel "${LOCKSTEP_JOBS:-$(jobs)}" "${targets[@]}"

if [ "$preset" = release ] && [ -x "$binary_dir/lockstep" ]; then
  ln -sfn release/lockstep build/lockstep
  echo "build: build/lockstep is ready"
fi
