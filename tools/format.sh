#!/usr/bin/env bash
# Formats every C++ file of the tree in place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh --dev
tools/sources.sh | xargs -r -P "$(nproc)" -n 20 clang-format-19 -i
