#!/usr/bin/env bash
# Prepares this machine and this checkout: system packages, then a Python environment in .venv.
#
#   tools/setup.sh          what building, testing and the demo need
#   tools/setup.sh --dev    also the formatter and the linter (clang 19)
#
# Safe to run again at any time: what is already there is left alone, and then it takes under a second.
#
#   LOCKSTEP_TORCH=cpu|cuda|skip   which PyTorch build (default: cpu without an NVIDIA driver, else cuda)
#                                  skip: only what building and testing the binding needs
#   PYTHON=/path/to/python3        the interpreter to make .venv from (default: /usr/bin/python3)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="$root/.venv"
stamp="$venv/lockstep.stamp"
log="$venv/lockstep-setup.log"
began=$SECONDS

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

dev=no
for argument in "$@"; do
  case "$argument" in
    --dev) dev=yes ;;
    -h | --help)
      sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown argument '$argument' (see --help)" ;;
  esac
done

# Two set-ups of one checkout take turns.
exec 9<"${BASH_SOURCE[0]}"
flock 9

# ---- system packages ----------------------------------------------------------------------------------

installed() {
  dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# Boost is packaged under its version: 1.81 on Debian 12, 1.83 on Ubuntu 24.04 and later.
boost_package() {
  local version
  for version in 1.81 1.83; do
    if installed "libboost$version-dev"; then
      echo "libboost$version-dev"
      return
    fi
  done
  local id=""
  if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091  # the system's own file
    id="$(. /etc/os-release && echo "${ID:-}:${VERSION_ID:-}")"
  fi
  case "$id" in
    debian:12) echo libboost1.81-dev ;;
    *) echo libboost1.83-dev ;;
  esac
}

system_packages() {
  local wanted=(
    build-essential cmake ninja-build ccache pkg-config
    "$(boost_package)" libssl-dev libsqlite3-dev liblz4-dev libspdlog-dev libfmt-dev libtomlplusplus-dev libcli11-dev
    prometheus-cpp-dev
    libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev
    python3 python3-dev python3-venv
    spin
  )
  if [ "$dev" = yes ]; then
    wanted+=(clang-19 clang-format-19 clang-tidy-19)
  fi

  if ! command -v dpkg-query >/dev/null; then
    say "this is not a Debian-based system; please provide the counterparts of: ${wanted[*]}"
    return
  fi

  # One query for all of them; only what is not installed is looked at further.
  local present package missing=()
  present="$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)"
  for package in "${wanted[@]}"; do
    grep -qx "installed $package" <<<"$present" || missing+=("$package")
  done
  if [ "${#missing[@]}" -eq 0 ]; then
    say "system packages: all ${#wanted[@]} are there"
    return
  fi

  local as_root=()
  local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "packages are missing, and this is neither root nor is sudo there. As root, run:
  $line"
    as_root=(sudo)
  fi
  say "system packages: installing ${missing[*]} (compiler, libraries and Python headers to build with, the model checker)"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq ||
    die "the package lists could not be fetched: is there a network? The command was: apt-get update"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "packages could not be installed: is there a network, and does this release carry them? As root, run:
  $line"
}

# ---- which PyTorch ------------------------------------------------------------------------------------

nvidia_driver() {
  [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }
}

torch_mode() {
  case "${LOCKSTEP_TORCH:-}" in
    cpu | cuda | skip) echo "$LOCKSTEP_TORCH" ;;
    "") if nvidia_driver; then echo cuda; else echo cpu; fi ;;
    *) die "LOCKSTEP_TORCH is '$LOCKSTEP_TORCH'; it takes cpu, cuda or skip" ;;
  esac
}

# ---- the Python environment ---------------------------------------------------------------------------

# pip, with its full output in the log and the lines that tell of progress on the screen.
pip() {
  echo "pip $*" >>"$log"
  "$venv/bin/python" -m pip --disable-pip-version-check --no-input --retries 2 "$@" 2>&1 | tee -a "$log" |
    { grep --line-buffered -E '^ *(Downloading|Installing collected|Successfully)' || true; } |
    { cut -c1-110 || true; }
}

# Whether the newest pip run failed for want of a network. $1: lines of the log before that run.
no_network() {
  tail -n "+$(($1 + 1))" "$log" | grep -qE \
    'NewConnectionError|NameResolutionError|name resolution|Network is unreachable|Connection refused|ConnectTimeout|ReadTimeout|timed out|ProxyError'
}

log_lines() { wc -l <"$log"; }

pip_failed() {
  if no_network "$1"; then
    die "Python packages could not be fetched: the package index cannot be reached. \
Connect to a network, or point pip at a local index, and run this again. Details: .venv/${log##*/}"
  fi
  tail -n 5 "$log" >&2
  die "pip failed; the whole output is in .venv/${log##*/}"
}

# The version of PyTorch in .venv, with its build (2.15.0, 2.15.0+cpu), or nothing.
torch_installed() {
  "$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true
}

pinned() { sed -n "s/^$1==//p" python/requirements.txt; }

install_python_packages() {
  local mode="$1" before
  if [ "$mode" = skip ]; then
    say "python: the packages that building and testing the binding needs (LOCKSTEP_TORCH=skip)"
    before="$(log_lines)"
    pip install --progress-bar off -r python/requirements-build.txt || pip_failed "$before"
    return
  fi
  local present
  present="$(torch_installed)"
  if [ "$mode" = cpu ] && [ "${present%+*}" = "$(pinned torch)" ]; then
    say "python: PyTorch $present is there already and works without a GPU; keeping it"
  elif [ "$mode" = cpu ]; then
    say "python: no NVIDIA driver, or LOCKSTEP_TORCH=cpu; asking for PyTorch's CPU build"
    before="$(log_lines)"
    if ! pip install --progress-bar off "torch==$(pinned torch)+cpu" "torchvision==$(pinned torchvision)+cpu"; then
      no_network "$before" && pip_failed "$before"
      say "python: the package index in use does not offer the CPU build; taking the plain one"
      say "python: that one brings GPU libraries: about 6 GB on disk, and it works without a GPU"
    fi
  else
    if [ "${present#*+}" = cpu ]; then
      say "python: removing PyTorch's CPU build, which cannot use the GPU"
      before="$(log_lines)"
      pip uninstall -y torch torchvision || pip_failed "$before"
    fi
    say "python: PyTorch's plain build with its GPU libraries (about 6 GB on disk)"
  fi
  before="$(log_lines)"
  pip install --progress-bar off -r python/requirements.txt || pip_failed "$before"
}

check_imports() {
  "$venv/bin/python" - "$1" <<'PY'
import importlib, sys
names = ["pytest", "nanobind", "scikit_build_core"]
if sys.argv[1] != "skip":
    names += ["torch", "torchvision", "diffusers", "transformers", "accelerate", "safetensors", "spandrel"]
found = []
for name in names:
    module = importlib.import_module(name)
    found.append(f"{name} {getattr(module, '__version__', '?')}")
print("python", sys.version.split()[0], "· " + " · ".join(found))
PY
}

python_environment() {
  local python="${PYTHON:-/usr/bin/python3}"
  command -v "$python" >/dev/null || python=python3
  command -v "$python" >/dev/null || die "no Python 3 found; set PYTHON to one"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$python" --version) is too old; Python 3.10 or later is needed (set PYTHON to one)"

  local mode key
  mode="$(torch_mode)"
  key="$({
    echo "$mode"
    "$python" --version
    cat python/requirements-build.txt python/requirements.txt
  } | sha256sum | cut -d' ' -f1)"

  if [ -f "$stamp" ] && [ "$(head -n1 "$stamp")" = "$key" ] && "$venv/bin/python" -c pass 2>/dev/null; then
    say "python: .venv is up to date ($(tail -n1 "$stamp"))"
    return
  fi

  if [ -e "$venv" ] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "python: .venv is unfinished or broken; making it anew"
    rm -rf "$venv"
  fi
  if [ ! -e "$venv" ]; then
    say "python: making .venv with $("$python" --version)"
    "$python" -m venv "$venv" || die "the environment could not be made; is python3-venv installed?"
  fi
  rm -f "$stamp"
  : >"$log"
  install_python_packages "$mode"

  say "python: checking that everything can be imported"
  local versions
  versions="$(check_imports "$mode")" ||
    die "a package does not import; remove .venv and run this again. pip's output is in .venv/${log##*/}"
  printf '%s\n%s\n' "$key" "$versions" >"$stamp"
  say "$versions"
}

system_packages
python_environment
say "done in $((SECONDS - began)) s"
