#!/usr/bin/env python3
"""The main job on a CUDA device, with claims that are checked: same seed same pixels, a killed worker, a killed server.

    tools/gpu/end_to_end.py [--binary build/lockstep] [--json]      PYTHONPATH must hold python/
"""

import argparse
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from PIL import Image

LIMIT = 180  # seconds for anything that is waited for


def until(what, check, pause=0.02):
    begin = time.monotonic()
    while True:
        value = check()
        if value:
            return value, time.monotonic() - begin
        if time.monotonic() - begin > LIMIT:
            raise TimeoutError(f"waited {LIMIT} s for {what}")
        time.sleep(pause)


class Server:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.url = binary, folder, ""
        with open(f"{folder}/lockstep.toml", "w", encoding="utf-8") as file:
            file.write(f'[workers]\ncommand = ["{sys.executable}", "-m", "lockstep.diffusers"]\n'
                       '[[worker]]\nname = "gpu"\nkind = "cuda"\nmemory = "20GB"\n')  # fmt: skip

    def start(self):
        log = f"{self.folder}/server.log"
        with open(log, "a", encoding="utf-8") as file:
            begin = file.tell()
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", f"{self.folder}/lockstep.toml", "--data-dir", f"{self.folder}/data",
                 "--models-dir", f"{self.folder}/models", "--port", "0"], stderr=file)  # fmt: skip

        def address():
            if self.process.poll() is not None:
                raise OSError("the server ended: " + open(log, encoding="utf-8").read()[-2000:])
            with open(log, encoding="utf-8") as file:
                file.seek(begin)
                return re.search(r"listening on (http://\S+)\n", file.read())

        self.url = until("the server to listen", address)[0].group(1)

    def get(self, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return json.load(answer)

    def worker(self):
        return self.get("/api/v1/workers")["workers"][0]

    def ready(self):
        return until("the worker to be ready", lambda: self.worker()["state"] == "ready")[1]

    def image(self, seed):
        """The digest of the pixels (the file's own names the request too), and the seconds it took."""
        begin = time.monotonic()
        body = {"prompt": "a lighthouse at dusk", "size": "256x256", "steps": 8, "seed": seed, "response_format": "url"}
        answer = self.get("/v1/images/generations", body)
        seconds = time.monotonic() - begin
        with urllib.request.urlopen(answer["data"][0]["url"], timeout=LIMIT) as file:
            return hashlib.sha256(Image.open(io.BytesIO(file.read())).tobytes()).hexdigest(), seconds

    def device_bytes(self):
        diagnostics = self.get("/api/v1/devices")["devices"][0].get("diagnostics") or {}
        return diagnostics.get("process_memory"), diagnostics.get("memory_used")


def used_at_the_driver():
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--binary", default="build/lockstep")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rows, failed = [], []

    def row(name, value, unit="s"):
        rows.append({"name": name, "value": value, "unit": unit})
        print(f"{name:44} {value if isinstance(value, (str, bool, int)) else f'{value:.3f}'} {unit}", flush=True)

    def claim(name, holds):
        row(name, bool(holds), "")
        if not holds:
            failed.append(name)

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([options.binary, "models", "make-tiny", f"{folder}/models"], check=True, stdout=subprocess.DEVNULL)
        empty = used_at_the_driver()
        server = Server(options.binary, folder)
        server.start()
        try:
            row("start until the worker is ready", server.ready())
            first, seconds = server.image(7)
            row("first image, three models loaded for it", seconds)
            again, seconds = server.image(7)
            row("the same image again", seconds)
            claim("same seed, same pixels", first == again)
            claim("other seed, other pixels", server.image(8)[0] != first)
            mine, _ = until("a reading of the device", lambda: server.device_bytes()[0])
            row("memory of the worker, by NVML", mine >> 20, "MiB")
            device = server.get("/api/v1/devices")["devices"][0]
            row("readings", json.dumps(device["diagnostics"]), "")
            row("memory of its models, by the ledger", device["memory_allocated"] >> 20, "MiB")

            # A worker that dies in the middle of an image.
            pid = server.worker()["pid"]
            job = {"prompt": "x", "size": "512x512", "steps": 400, "seed": 9}
            request = server.get("/v1/images/generations", job, {"Prefer": "respond-async"})["request_id"]
            view = lambda: server.get("/api/v1/requests/" + request)  # noqa: E731
            until("the image to be begun", lambda: view()["jobs"][0]["percent"] > 0, 0.005)
            os.kill(pid, signal.SIGKILL)
            _, seconds = until("its end to be proven", lambda: server.worker()["incarnation"] > 1, 0.002)
            row("from the kill to the next incarnation's spawn", seconds)
            _, seconds = until("the driver to have its bytes back", lambda: used_at_the_driver() <= empty + 64)
            row("after that, bytes back at the driver", seconds)
            until("the image", lambda: view()["state"] != "accepted")
            claim("its image is made by the next incarnation", view()["state"] == "completed")

            # A server that dies: the worker stays, with its models.
            before = server.worker()
            server.process.kill()
            server.process.wait()
            server.start()
            row("server killed: until its worker is back", server.ready())
            claim("it is the same process", server.worker()["pid"] == before["pid"])
            third, seconds = server.image(7)
            row("first image after the restart", seconds)
            claim("same seed, same pixels, another incarnation", third == first)
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(LIMIT)
        replay = subprocess.run([options.binary, "journal", "verify", "--data-dir", f"{folder}/data"],
                                capture_output=True, text=True, timeout=LIMIT)  # fmt: skip
        claim("the journal verifies", replay.returncode == 0)
        _, seconds = until("the driver to have all bytes back", lambda: used_at_the_driver() <= empty + 64)
        row("stopped: all bytes back at the driver after", seconds)
        if failed:
            print(open(f"{folder}/server.log", encoding="utf-8").read()[-4000:], file=sys.stderr)
    if options.json:
        print(json.dumps({"bench": "gpu_end_to_end", "rows": rows, "failed": failed}))
    print("failed: " + ", ".join(failed) if failed else "every claim holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
