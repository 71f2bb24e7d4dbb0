#!/usr/bin/env bash
# Prints the C++ files of this tree, tracked or new, one per line. tools/lint.sh and tools/format.sh read it.
#
#   tools/sources.sh [folder...]     default: src sim bench tests python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "$#" -eq 0 ]; then set -- src sim bench tests python; fi

git ls-files --cached --others --exclude-standard -- "$@" |
  grep -E '\.(h|cc)$' |
  while IFS= read -r file; do
    if [ -f "$file" ]; then printf '%s\n' "$file"; fi
  done | sort
