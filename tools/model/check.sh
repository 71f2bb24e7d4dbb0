#!/usr/bin/env bash
# Checks tools/model/commit.pml, the formal model of commit, with Spin: every configuration, one line for each.
#
#   tools/model/check.sh             every configuration
#   tools/model/check.sh --broken    leaves one rule out after the other; fails when the checker does not notice
#   tools/model/check.sh --all       both
#   tools/model/check.sh --self-test the same as --broken: that the checks can fail
#
# On a violation the steps that lead to it are printed and the exit status is 1; 2 when Spin is missing. One core, at
# low priority; 6 GB of memory at most. docs/decisions/0060-a-formal-model-of-commit.md says what is checked.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
model="$root/tools/model/commit.pml"
memory_mb=5500

configurations=no
broken=no
case "${1:-}" in
  "") configurations=yes ;;
  --broken | --self-test) broken=yes ;;
  --all) configurations=yes broken=yes ;;
  -h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *)
    echo "model: unknown argument '$1' (see --help)" >&2
    exit 2
    ;;
esac

for program in spin gcc; do
  command -v "$program" >/dev/null || {
    echo "model: '$program' is not installed; tools/setup.sh installs it (package spin, or build-essential)" >&2
    exit 2
  }
done

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$model" .

# $1 how: exact, quick, sampled or liveness. $2 macros for the model. Leaves pan's report in report; 1 when it has an error.
#
# sampled   the visited states are bits of a hash and the order is random, for a minute at most: a large space in
#           bounded time and memory. It misses states; a violation that it finds is one.
# quick     as exact; making the checker takes longer than what it has to do, so it is not optimised
verify() {
  local how="$1" macros="$2" build=(-O2) options=(-m1000000 -n)
  case "$how" in
    exact) build+=(-DSAFETY -DCOLLAPSE) ;;
    quick) build=(-O0 -DSAFETY -DCOLLAPSE) ;;
    sampled)
      build+=(-DSAFETY -DBITSTATE -DT_RAND -DP_RAND)
      options+=(-w32 -k3 -Q1)
      ;;
    liveness)
      build+=(-DCOLLAPSE)
      macros+=" -DLIVENESS"
      options+=(-a -f)
      ;;
  esac
  rm -f pan pan.* commit.pml.trail report
  # shellcheck disable=SC2086  # a list of macros
  spin $macros -a commit.pml >spin.log 2>&1 || {
    cat spin.log >&2
    return 2
  }
  gcc -w "${build[@]}" "-DMEMLIM=$memory_mb" -o pan pan.c
  nice -n 10 ./pan "${options[@]}" >report 2>&1 || true
  grep -q '^State-vector' report || {
    cat report >&2
    return 2
  }
  [ ! -e commit.pml.trail ]
}

# One number of pan's report, or "-".
number() { sed -nE "s/$1/\1/p" report | head -n1 | grep . || echo -; }

# Whether pan stopped before it had seen everything.
unfinished() { grep -qE 'reached -DMEMLIM|max search depth too small|Search not completed|timeout' report; }

line() { # name, how, seconds, result
  printf 'model: %-48s %-8s %8s states, depth %3s, %3s s: %s\n' "$1" "$2" \
    "$(number '^ *([0-9.e+]+) states, stored.*')" "$(number '^State-vector .* depth reached ([0-9]+).*')" "$3" "$4"
}

show_trail() { # macros
  echo "model: the steps that lead to it; the last lines say which sentence is broken" >&2
  # shellcheck disable=SC2086
  spin $1 -t -p commit.pml 2>&1 | grep -vE 'goto|DO\]|\[else\]|break\]' >&2 || true
}

failed=0

check() { # name, how, macros
  local began=$SECONDS result=holds status=0
  verify "$2" "$3" || status=$?
  if [ "$status" -eq 1 ]; then
    result="VIOLATED: $(grep -m1 '^pan:1:' report | cut -c1-90)"
  elif [ "$status" -ne 0 ]; then
    result="could not be checked"
  elif unfinished && [ "$2" != sampled ]; then
    result="not finished: out of memory or depth"
    status=3
  fi
  line "$1" "$2" "$((SECONDS - began))" "$result"
  [ "$status" -eq 0 ] || failed=1
  [ "$status" -ne 1 ] || show_trail "$3"
}

breaks() { # rule, what is left out, macros
  local began=$SECONDS status=0 result
  verify quick "$3 -DBROKEN_$1" || status=$?
  # A channel of the model that is too short says nothing about the rule.
  if [ "$status" -eq 1 ] && ! grep -q '^pan:1:.*q_full' report; then
    result="caught: $(sed -nE 's/^pan:1: assertion violated +(.*) \(at depth.*/\1/p' report | cut -c1-60)"
  else
    result="NOT CAUGHT"
    failed=1
  fi
  line "without: $2" quick "$((SECONDS - began))" "$result"
}

budgets() { # crashes, deaths, cuts, late, vetoes
  echo "-DCRASHES=$1 -DDEATHS=$2 -DCUTS=$3 -DLATE=$4 -DVETOES=$5"
}

if [ "$configurations" = yes ]; then
  check "1 worker, as the code is; 2 transactions" exact "-DN=1 -DTX=2 -DAS_CODE $(budgets 1 1 1 1 1)"
  check "1 worker, as the code is; 2 crashes" exact "-DN=1 -DTX=2 -DAS_CODE $(budgets 2 1 1 1 1)"
  check "2 workers, every fault" exact "-DN=2 -DTX=1 $(budgets 1 1 1 1 1)"
  check "2 workers, 2 transactions, a crash and a cut" exact "-DN=2 -DTX=2 $(budgets 1 0 1 0 0)"
  check "2 workers, 2 transactions, a death and a veto" exact "-DN=2 -DTX=2 $(budgets 0 1 0 0 1)"
  check "3 workers, a crash and a cut" exact "-DN=3 -DTX=1 $(budgets 1 0 1 0 0)"
  check "3 workers, a death and a cut" exact "-DN=3 -DTX=1 $(budgets 0 1 1 0 0)"
  check "2 workers, 2 transactions, every fault" sampled "-DN=2 -DTX=2 $(budgets 1 1 1 1 1)"
  check "3 workers, 2 transactions, every fault" sampled "-DN=3 -DTX=2 $(budgets 2 1 1 1 1)"
  check "1 worker, every fault" liveness "-DN=1 -DTX=1 $(budgets 1 1 1 1 1)"
  check "2 workers, a crash" liveness "-DN=2 -DTX=1 $(budgets 1 0 0 0 0)"
fi

if [ "$broken" = yes ]; then
  all="-DN=2 -DTX=1 $(budgets 1 1 1 1 0)"
  breaks FORCED_WRITE "effects wait for the disk" "-DN=2 -DTX=1 $(budgets 0 0 0 0 0)"
  breaks TOMBSTONE "an abort leaves a tombstone" "$all"
  breaks EPOCH "other epochs are refused" "$all"
  breaks INCARNATION "other incarnations are refused" "$all"
  breaks UNKNOWN "an unknown transaction was aborted" "$all"
  breaks SILENCE "whoever asks is answered" "$all"
  breaks TIMER "no timer resolves what is in doubt" "$all"
  breaks DROP_INTENTS "a lost participant ends a transaction" "$all"
  breaks REUNION "a lost decision ends the worker" "$all"
  breaks REPLAY "the replay comes before answers" "$all"
  breaks END "a decision stays until acknowledged" "$all"
  breaks UNCOMMIT "decided means decided" "$all"
  breaks TRANSACTION_ID "a transaction id never comes again" "-DN=1 -DTX=1 $(budgets 1 1 1 1 0)"
  # What the code may do with one worker in a transaction, and could not with two.
  breaks COME_BACK "a return ends a transaction" "$all"
fi

exit "$failed"
