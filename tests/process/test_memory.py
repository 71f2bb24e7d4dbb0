"""Memory that people govern (§1.2, §2.2): the pools and who holds what, and a policy that is effective at once."""

import json
import sys

from conftest import Server, cli, until

ASKING = """
import json, pathlib, sys, threading
from lockstep.worker import Worker

worker = Worker.from_environment()
worker.ready()
folder = pathlib.Path(sys.argv[1])

def answer(name, outcome):
    while (found := worker.memory_answer(name)) is None or found["outcome"] != outcome:
        threading.Event().wait(0.01)
    (folder / "new").write_text(json.dumps(found))
    (folder / "new").rename(folder / f"{name}.{outcome}")
    return found

worker.ask_memory("first", 600 << 20, "inference")
held = answer("first", "granted")
worker.ask_memory("second", 600 << 20, "inference")
answer("second", "queued")
worker.ask_memory("huge", 4 << 30, "inference")
answer("huge", "denied")
while not (folder / "go").exists():
    threading.Event().wait(0.01)
worker.release_memory(held["reservation"]["allocation_id"])
answer("second", "granted")
worker.run()
"""


def pool(server, name):
    return next(p for p in server.get("/api/v1/memory")["pools"] if p["pool"] == name)


def held(server, name, purpose):
    return next((p["used"] for p in pool(server, name)["purposes"] if p["purpose"] == purpose), 0)


def test_a_policy_is_confirmed_kept_and_effective_at_once(server):
    server.config = '[[worker]]\nname = "one"\n'
    server.start()
    device = server.get("/api/v1/devices")["devices"][0]["device_id"]
    assert server.finished(server.submit(prompt="a lighthouse"))["state"] == "completed"
    cached = held(server, "system_ram", "model_cache")
    assert cached > 0 and held(server, device, "model") > 0
    ram = until("RAM to be sampled", lambda: "used_share" in (p := pool(server, "system_ram")) and p)
    assert 0 < ram["used_share"] <= 1

    cli(server, "memory", "policy", "set", "max_model_cache_size=8GB", "vram_reservation_limit=1KB")
    policy = until("the worker to confirm",
                   lambda: (p := server.get("/api/v1/memory/policy"))["confirmed_by"] == {"one": 1} and p)
    assert policy["max_model_cache_size"] == "8GB"
    assert pool(server, device)["limited_by"] == "vram_reservation_limit"

    # Nothing fits below a limit of one KiB: the request ends with the limit, and is never granted.
    failed = server.finished(server.submit(prompt="a lighthouse"))
    assert failed["state"] == "failed" and "the largest has 1KB" in json.dumps(failed), failed
    status, answer = server.request("PUT", "/api/v1/memory/policy", {})
    assert status == 200 and "max_model_cache_size" not in answer, answer
    assert server.finished(server.submit(prompt="a lighthouse"))["state"] == "completed"

    for body, word in (({"max_model_cache_size": "0B"}, "above 0"), ({"max_model_cache": "1GB"}, "unknown"),
                       ({"emergency_cleanup_threshold": 2}, "emergency_cleanup_threshold")):
        status, answer = server.request("PATCH", "/api/v1/memory/policy", body)
        assert status == 400 and word in json.dumps(answer), answer

    cli(server, "memory", "policy", "set", "vram_reservation_limit=6GB")
    server.stop()
    server.start()
    assert server.get("/api/v1/memory/policy")["vram_reservation_limit"] == "6GB"
    assert "system_ram" in cli(server, "memory", "show").stdout
    history = until("a sample of memory", lambda: (h := cli(server, "memory", "history").stdout) and "system_ram" in h and h)
    assert "hour (" in history and "on average" in history, history
    assert {"system_ram"} <= {p["pool"] for p in json.loads(cli(server, "memory", "history", "--json").stdout)["pools"]}

    cli(server, "memory", "policy", "set", "system_reserve=1000TB")  # more than there is: nothing is left to the cache
    ram = server.get("/api/v1/memory")["pools"][0]
    assert (ram["limit"], ram["limited_by"]) == (0, "system_reserve"), ram
    metrics = server.request("GET", "/metrics", raw=True)[1].decode()
    assert "\nlockstep_cache_limit_bytes 0\n" in metrics, metrics


def test_a_worker_asks_for_memory_and_gets_one_final_answer(tmp_path):
    program = tmp_path / "asking.py"
    program.write_text(ASKING)
    (tmp_path / "models").mkdir()
    server = Server(tmp_path, tmp_path / "models",
                    f"[workers]\ncommand = {json.dumps([sys.executable, str(program), str(tmp_path)])}\n"
                    '[[worker]]\nname = "one"\nmemory = "1GB"\n')
    server.start()
    try:
        denied = until("the huge request to be denied", (tmp_path / "huge.denied").exists)
        assert denied
        reason = json.loads((tmp_path / "huge.denied").read_text())["reason"]
        assert "memory_budget" in reason and "4GB" in reason, reason
        grants = server.get("/api/v1/memory")["grants"]
        assert [g["request_id"] for g in grants] == ["first"], grants
        (tmp_path / "go").touch()
        until("the queued request to be granted", (tmp_path / "second.granted").exists)
        grants = server.get("/api/v1/memory")["grants"]
        assert [g["request_id"] for g in grants] == ["second"], grants
    finally:
        server.stop()
    server.start(wait_ready=False)
    try:
        assert not [g for g in server.get("/api/v1/memory")["grants"] if g["incarnation"] == 1]
    finally:
        server.stop()
