#!/usr/bin/env bash
# The main job, end to end, for real: writes small models, starts the orchestrator and two workers, makes images,
# and checks what it claims. Fails on the first claim that does not hold.  usage: tools/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lockstep=build/lockstep
python=.venv/bin/python
dir=demo-data
server=

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: FAILED: %s\n' "$*" >&2; exit 1; }
ok() { printf '   ok: %s\n' "$*"; }
stop_server() {
  [ -n "$server" ] || return 0
  kill -TERM "$server" 2>/dev/null || true
  wait "$server" || true
  server=
}
trap stop_server EXIT
# Reads a field of a JSON document on standard input: a Python expression over `d`.
field() { "$python" -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

[ -x "$lockstep" ] || fail "build/lockstep is missing; run make build"
"$python" -c 'import torch, diffusers, spandrel' 2>/dev/null ||
  fail "PyTorch and diffusers are not installed (LOCKSTEP_TORCH=skip?); run tools/setup.sh"

rm -rf "$dir"
mkdir -p "$dir"
say "Writing three small models (real classes, seeded weights)"
"$lockstep" models make-tiny "$dir/models"

say "Starting the orchestrator and two workers"
"$lockstep" serve --data-dir "$dir/data" --models-dir "$dir/models" --port 0 2>"$dir/server.log" &
server=$!
for _ in $(seq 600); do
  url=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$dir/server.log")
  [ -n "$url" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$dir/server.log" >&2; server=; fail "the server ended"; }
  sleep 0.05
done
[ -n "$url" ] || fail "the server did not start listening; its log is $dir/server.log"
export LOCKSTEP_URL=$url
printf '   %s; the workers are importing PyTorch ' "$url"
for _ in $(seq 1200); do
  ready=$("$lockstep" status --json | field 'sum(w["state"] == "ready" for w in d["workers"])')
  [ "$ready" = 2 ] && break
  printf '.'
  sleep 0.5
done
echo
[ "$ready" = 2 ] || fail "the workers were not ready in time; their logs are in $dir/data/logs"

say "One prompt in, one image out"
"$lockstep" generate "a lighthouse at dusk" --size 128x128 --steps 8 --seed 7 -o "$dir/first.png" --json >"$dir/first.json"
request=$(field 'd["request_id"]' <"$dir/first.json")
"$lockstep" requests "$request" --json >"$dir/request.json"
[ "$(field 'd["state"]' <"$dir/request.json")" = completed ] || fail "the request did not complete"
operations=$(field '",".join(d["jobs"][0]["operations"])' <"$dir/request.json")
[ "$operations" = upscaling,safety_check ] || fail "upscaling and safety check were expected, $operations ran"
ok "upscaling and safety check ran"
"$python" - "$dir/first.png" <<'PY'
import sys
from PIL import Image
image = Image.open(sys.argv[1])
print(f"   ok: {image.width}x{image.height} PNG; its metadata says: {image.text['parameters'].splitlines()[-1]}")
assert "Seed: 7" in image.text["parameters"] and "lockstep" in image.text
PY

say "The weights in use are the shared cache"
mapped=0
for pid in $("$lockstep" status --json | field '" ".join(str(w["pid"]) for w in d["workers"])'); do
  mapped=$((mapped + $(grep -c 'r--s.*/memfd:lockstep:' "/proc/$pid/maps" || true)))
done
[ "$mapped" -ge 6 ] || fail "only $mapped components are mapped from sealed shared memory; 6 were expected"
# A sealed file refuses a writable mapping, whoever asks.
"$python" - "$server" <<'PY' || fail "a cache segment is not sealed"
import fcntl, os, sys
folder = f"/proc/{sys.argv[1]}/fd"
seals = [fcntl.fcntl(os.open(f"{folder}/{n}", os.O_RDONLY), fcntl.F_GET_SEALS) for n in os.listdir(folder)
         if os.readlink(f"{folder}/{n}").startswith("/memfd:lockstep:")]
assert seals and all(s & fcntl.F_SEAL_WRITE and s & fcntl.F_SEAL_SHRINK and s & fcntl.F_SEAL_GROW for s in seals), seals
PY
ok "$mapped components mapped read-only from sealed memfds (/proc/PID/maps)"

say "The same seed gives the same bytes, another seed other bytes"
sha() { sha256sum "$1" | cut -d' ' -f1; }
pixels() { "$python" -c 'import hashlib,sys
from PIL import Image
print(hashlib.sha256(Image.open(sys.argv[1]).tobytes()).hexdigest())' "$1"; }
"$lockstep" generate "a lighthouse at dusk" --size 128x128 --steps 8 --seed 7 -o "$dir/again.png" --json >/dev/null 2>>"$dir/generate.log"
"$lockstep" generate "a lighthouse at dusk" --size 128x128 --steps 8 --seed 8 -o "$dir/other.png" --json >/dev/null 2>>"$dir/generate.log"
[ "$(pixels "$dir/first.png")" = "$(pixels "$dir/again.png")" ] || fail "the same seed gave other pixels"
[ "$(pixels "$dir/first.png")" != "$(pixels "$dir/other.png")" ] || fail "another seed gave the same pixels"
ok "seed 7: $(pixels "$dir/first.png" | cut -c1-16), again: $(pixels "$dir/again.png" | cut -c1-16), seed 8: $(pixels "$dir/other.png" | cut -c1-16)"

say "The safety check tells a planted picture from a harmless one"
PYTHONPATH=python "$python" -m lockstep.diffusers.planted unsafe "$dir/unsafe.png" --size 256x256
PYTHONPATH=python "$python" -m lockstep.diffusers.planted safe "$dir/safe.png" --size 256x256
status=0
"$lockstep" check "$dir/unsafe.png" || status=$?
[ "$status" = 8 ] || fail "the planted unsafe picture was not refused (exit status $status)"
"$lockstep" check "$dir/safe.png" || fail "the harmless picture was refused"
ok "unsafe refused, safe passed"

say "Stopping, and replaying the journal"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
[ "$status" = 0 ] || fail "the server ended with status $status"
live=$(sed -n 's/.*journal ends at rev \([0-9]*\), digest \([0-9a-f]*\).*/rev \1, digest \2/p' "$dir/server.log")
replayed=$("$lockstep" journal verify --data-dir "$dir/data" | head -1)
[ -n "$live" ] && [ "$live" = "$replayed" ] || fail "in life: $live; replayed: $replayed"
ok "$replayed, in life and replayed"

say "Done"
cat <<TEXT
   $dir/first.png   the image (file $(sha "$dir/first.png" | cut -c1-16)…)
   $dir/server.log  what the orchestrator said; $dir/data/logs has the workers
   Now try: build/lockstep serve --data-dir demo-data/data --models-dir demo-data/models
TEXT
