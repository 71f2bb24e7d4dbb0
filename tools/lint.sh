#!/usr/bin/env bash
# Checks the format, the rooms, the text of the tree, and runs the static analyser over src/ and sim/.
# Each check runs even if an earlier one found something.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
tools/setup.sh --dev
failed=()

check() {
  local name="$1"
  shift
  echo "lint: $name"
  "$@" || failed+=("$name")
}

# shellcheck disable=SC2317  # called through check
format() { tools/sources.sh | xargs -r -P "$(nproc)" -n 20 clang-format-19 --dry-run -Werror; }

# The analyser reads the compiler's own command lines, so only files of the build are looked at.
# shellcheck disable=SC2317
analyse() {
  tools/build.sh release >/dev/null || return 1
  python3 - build/release/compile_commands.json <<'PY' >build/release/analyse.txt
import json, os, sys
folder = os.getcwd() + "/"
files = {os.path.normpath(os.path.join(entry["directory"], entry["file"])) for entry in json.load(open(sys.argv[1]))}
names = sorted(name.removeprefix(folder) for name in files if name.startswith(folder))
print("\n".join(name for name in names if name.startswith(("src/", "sim/")) and name.endswith(".cc")))
PY
  xargs -r -P "$(nproc)" -n 1 clang-tidy-19 --quiet -p build/release \
    --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-optimization-argument \
    <build/release/analyse.txt 2>build/release/analyse.err || {
    grep -E 'error:' build/release/analyse.err || true
    return 1
  }
}

check "format" format
check "rooms" python3 tools/check_rooms.py
check "text" python3 tools/tidy_test.py
check "analyser" analyse

if [ "${#failed[@]}" -gt 0 ]; then
  echo "lint: failed: ${failed[*]}" >&2
  exit 1
fi
echo "lint: all clean"
