#!/usr/bin/env bash
# The long runs of the simulator on as many processors as there are: seeds, and every end of the exhaustive mode.
#
#   tools/spread_sim.sh [FIRST LAST]     default: seeds 1 to 20000
#
# LOCKSTEP_BINARY names the program. With OUT set, the objects that each process printed are left in that folder. Ends
# with 1 when any process found a violation.
# Without -e: a piece that fails does not keep the others from being run; what each of them printed is judged at the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

first="${1:-1}"
last="${2:-20000}"
if [ "$first" -gt "$last" ]; then
  echo "spread_sim: the seeds $first to $last are none" >&2
  exit 2
fi
export binary="${LOCKSTEP_BINARY:-build/lockstep}" out="${OUT:-$(mktemp -d)}"
jobs="$(nproc)"
failed=0

rm -f "$out"/{ends,seeds}-*.{json,log}
part_of_ends() { "$binary" sim --exhaustive --part "$1" --json >"$out/ends-${1%/*}.json" 2>"$out/ends-${1%/*}.log"; }
piece_of_seeds() { "$binary" sim --seeds "$1" --json >"$out/seeds-$1.json" 2>"$out/seeds-$1.log"; }
export -f part_of_ends piece_of_seeds

began=$SECONDS
seq 1 "$jobs" | xargs -P "$jobs" -I{} bash -c "part_of_ends {}/$jobs || true"
echo "ends: $((SECONDS - began)) s on $jobs processors"
began=$SECONDS
for ((i = first; i <= last; i += 250)); do echo "$i..$((i + 249 < last ? i + 249 : last))"; done |
  xargs -P "$jobs" -I{} bash -c "piece_of_seeds {} || true"  # what it found, and met over all pieces, is judged below
echo "seeds: $((SECONDS - began)) s on $jobs processors"

python3 - "$out" <<'PY' || failed=1
import json
import pathlib
import sys


def reports(kind):
    """What each process printed; one that printed nothing has left its last words beside it."""
    for path in sorted(pathlib.Path(sys.argv[1]).glob(f"{kind}-*.json")):
        try:
            yield json.loads(path.read_text())
        except ValueError:
            print(f"{path.name} is no report: {path.with_suffix('.log').read_text()[-500:]}")
            sys.exit(1)


ends, seeds = list(reports("ends")), list(reports("seeds"))
violations = [each for report in ends + seeds for each in report["violations"]]
for each in violations[:20]:
    print("violation:", json.dumps(each, ensure_ascii=False))
pairs = sum(script["pairs"] for report in ends for script in report["scripts"])
print(f"ends: {sum(report['runs'] for report in ends)} runs, {pairs} with two ends, "
      f"whole: {all(report['whole'] for report in ends)}")
total = {key: sum(report[key] for report in seeds) for key in ("runs", "simulated_s", "transactions")}
faults = {name: sum(report["faults"][name] for report in seeds) for name in seeds[0]["faults"]}
never = [name for name, count in faults.items() if count == 0]
print(f"seeds: {total['runs']} runs, {total['simulated_s']:.0f} simulated s, {total['transactions']} transactions, "
      f"{sum(faults.values())} faults of {len(faults)} kinds, never met: {', '.join(never) or 'none'}")
print(f"violations: {len(violations)}")
sys.exit(1 if never or violations else 0)
PY
exit "$failed"
