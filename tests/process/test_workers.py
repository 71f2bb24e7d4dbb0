"""Workers that do not start, and workers that flood (§3.7): set aside with a reason, restarted by a person, bounded."""

import json
import pathlib
import sys

from conftest import BINARY, Server, cli, talking, until

FAST = '[breaker]\ndeaths = 3\ntrial = "0s"\n[[worker]]\nname = "only"\n'


def config(program, *arguments, more=FAST):
    return f"[workers]\ncommand = {json.dumps([sys.executable, str(program), *map(str, arguments)])}\n" + more


def serve(tmp_path, text):
    (tmp_path / "models").mkdir()
    server = Server(tmp_path, tmp_path / "models", text)
    server.start(wait_ready=False)
    return server


def test_a_worker_that_never_starts_is_set_aside_and_a_person_brings_it_back(tmp_path):
    program = tmp_path / "worker.py"
    program.write_text("import sys\nprint('line one')\nsys.exit('the package torch is missing')\n")
    server = serve(tmp_path, config(program))
    try:
        worker = until("the worker to be set aside",
                       lambda: (w := server.workers()["only"])["state"] == "broken" and w)
        assert worker["incarnation"] == 3 and "it died 3 times" in worker["broken_because"], worker
        assert "exit status 1" in worker["broken_because"] and "torch is missing" in worker["last_words"], worker
        status, ready = server.request("GET", "/readyz")
        assert status == 503 and "only is set aside" in ready["reason"], ready
        device = server.get("/api/v1/devices")["devices"][0]
        assert device["availability"] == "offline" and "set aside" in device["reason"], device
        assert "broken" in cli(server, "workers", "list").stdout
        shown = cli(server, "workers", "show", "only").stdout
        assert "the package torch is missing" in shown and "lockstep workers restart only" in shown, shown
        events = cli(server, "events", "--json", "--type", "worker_set_aside").stdout.splitlines()
        assert len(events) == 1 and "torch is missing" in json.loads(events[0])["body"]["last_words"]

        # Its log, dead as it is; and nobody else's.
        logged = cli(server, "workers", "logs", "only", "-n", "2").stdout
        assert logged == "line one\nthe package torch is missing\n"
        assert cli(server, "workers", "logs", "only", "-n", "100").stdout.count("line one") == 3
        for name in ("other", "..", "only.log", "%2e%2e%2fserver", "only%00"):
            assert server.request("GET", f"/api/v1/workers/{name}/logs")[0] == 404
        for query, words in (("lines=x", "lines is"), ("lines=99999999", "at most"), ("after=1", "after is"),
                             ("line=1", "line is unknown")):
            code, answer = server.request("GET", f"/api/v1/workers/only/logs?{query}")
            assert code == 400 and words in answer["error"]["message"], answer
        cli(server, "workers", "logs", "other", code=3)

        program.write_text("import time\nprint('mended', flush=True)\ntime.sleep(600)\n")
        assert "being started" in cli(server, "workers", "restart", "only").stdout
        until("the mended worker to write", lambda: "mended" in cli(server, "workers", "logs", "only").stdout)
        assert server.workers()["only"]["incarnation"] == 4
        with talking(BINARY, "workers", "logs", "only", "-n", "1", "-f", "--url", server.url) as follower:
            assert follower.stdout.readline() == "mended\n"
            with open(server.folder / "data/logs/only.log", "a") as log:
                log.write("and more\n")
            assert follower.stdout.readline() == "and more\n"
        cli(server, "workers", "restart", "nobody", code=3)
    finally:
        server.stop()  # and its worker, which would sleep on


def test_a_worker_that_floods_its_log_does_not_fill_the_disk(tmp_path):
    total = 192 << 20
    program = tmp_path / "worker.py"
    program.write_text("import os\nline = b'x' * 1023 + b'\\n'\n"
                       f"for i in range({total} // len(line)):\n    os.write(1, line)\n"
                       "os.write(1, b'the last line\\n')\nimport time\ntime.sleep(600)\n")
    server = serve(tmp_path, config(program, more='[logs]\nworker_limit = "1MB"\n[[worker]]\nname = "only"\n'))
    logs = pathlib.Path(server.folder / "data/logs")
    try:
        def last_line():
            # It ends with the last line: all of it was written, whatever was kept.
            return "the last line" in server.request("GET", "/api/v1/workers/only/logs?lines=1", raw=True)[1].decode()
        until("the flood to be over", last_line)
        kept = until("the log to be cut", lambda: (s := sum(f.stat().st_size for f in logs.iterdir())) <= 2 << 20 and s)
        assert kept > 0
        assert server.request("GET", "/livez")[0] == 200
        until("it to be told", lambda: "its newest 1MB are in" in server.log.read_text())
    finally:
        server.stop()
