"""The main path on real processes: a prompt, an image, the safety check, bad input (§2.5, §2.6)."""

import base64
import hashlib
import io
import json
import urllib.error
import urllib.request

from PIL import Image

from conftest import BINARY, LIMIT, ROOT, cli, lockstep, run
from manners import let_go, with_manners


def test_an_image_comes_in_the_format_that_is_asked_for(server, tmp_path):
    """§1.6: through the worker's encoder, the store and the web; and by the command line."""
    server.start()
    body = {"prompt": "a castle", "size": "64x64", "steps": 2, "seed": 11, "response_format": "url"}
    for format, quality, suffix in [("jpeg", "medium", "jpg"), ("webp", "lossless", "webp")]:
        status, answer = server.request(
            "POST", "/v1/images/generations", {**body, "output_format": format, "output_quality": quality})
        assert status == 200 and answer["output_format"] == format, answer
        url = answer["data"][0]["url"]
        assert url.endswith(f".{suffix}")
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            content = response.read()
            assert response.headers["Content-Type"] == f"image/{format}"
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size) == (format.upper(), (256, 256))
        sha256 = hashlib.sha256(content).hexdigest()
        assert (server.folder / f"data/outputs/{sha256[:2]}/{sha256}.{suffix}").read_bytes() == content
        assert server.request("GET", f"/api/v1/outputs/{sha256}.png")[0] == 404

    command = ["generate", "a castle", "--size", "64x64", "--steps", "2"]
    cli(server, *command, "-o", tmp_path / "a.jpg", "--quality", "low")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"
    refused = cli(server, *command, "--format", "jpeg", "--quality", "lossless", code=2)
    assert "jpeg cannot be" in refused.stderr, refused


def test_one_prompt_one_image_and_every_bad_input(server, tmp_path):
    server.start()
    body = {"prompt": "a castle", "size": "64x64", "steps": 3, "seed": 11, "response_format": "b64_json"}
    status, answer = server.request("POST", "/v1/images/generations", body)
    assert status == 200, answer
    png = base64.b64decode(answer["data"][0]["b64_json"])
    image = Image.open(io.BytesIO(png))
    assert (image.width, image.height) == (256, 256)  # the upscaler's x4
    assert "Seed: 11" in image.text["parameters"] and "Steps: 3" in image.text["parameters"]
    assert json.loads(image.text["lockstep"])["seed"] == 11

    # By content: the file's name is its digest, and the url form leads to the same bytes.
    facts = answer["lockstep"]["images"][0]
    assert hashlib.sha256(png).hexdigest() == facts["sha256"]
    assert server.output(facts["sha256"]) == png
    view = server.view(answer["lockstep"]["request_id"])
    assert view["jobs"][0]["operations"] == ["upscaling", "safety_check"]
    assert view["jobs"][0]["results"]["safety_analysis"]["safety_classification"] == "safe"

    # n images are n seeds.
    status, answer = server.request("POST", "/v1/images/generations", {**body, "n": 2, "response_format": "url"})
    assert status == 200 and [i["seed"] for i in answer["lockstep"]["images"]] == [11, 12]
    first, second = (server.output(i["sha256"]) for i in answer["lockstep"]["images"])
    assert Image.open(io.BytesIO(first)).tobytes() == image.tobytes() and first != second

    for change, status, param, words in [
        ({"size": "65x64"}, 400, "width", "divisible by 8"),
        ({"size": "big"}, 400, "size", "WIDTHxHEIGHT"),
        ({"size": "100000x64"}, 400, "width", "64 to 4096"),
        ({"n": 0}, 400, "n", "1 to 10"),
        ({"n": 11}, 400, "n", "1 to 10"),
        ({"steps": 0}, 400, "steps", "1 to 500"),
        ({"steps": "many"}, 400, "steps", "number"),
        ({"guidance_scale": -1}, 400, "guidance_scale", "0 to 100"),
        ({"prompt": ""}, 400, "prompt", "at least one character"),
        ({"model": "none-such"}, 404, "model", "tiny-sdxl"),
        ({"model": "../etc"}, 404, "model", "no model"),
        ({"model": "tiny-safety"}, 400, "model", "no image model"),
        ({"response_format": "gif"}, 400, "response_format", "b64_json or url"),
        ({"colour": "red"}, 400, "colour", "colour"),
        ({"output_format": "gif"}, 400, "output_format", "png, jpeg or webp"),
        ({"output_format": "jpeg", "output_quality": "lossless"}, 400, "output_quality", "jpeg cannot be"),
    ]:
        got, answer = server.request("POST", "/v1/images/generations", {**body, **change})
        assert got == status, (change, answer)
        assert answer["error"]["param"] == param, (change, answer)
        assert words in answer["error"]["message"], (change, answer)

    # The planted picture is refused and a harmless one passes, through the same worker and model.
    for kind, expected in (("unsafe", 8), ("safe", 0)):
        file = tmp_path / f"{kind}.png"
        run(ROOT / ".venv/bin/python", "-m", "lockstep.diffusers.planted", kind, file, check=True,
            env={"PYTHONPATH": str(ROOT / "python")})
        cli(server, "check", file, code=expected)
    assert server.request("POST", "/api/v1/checks", b"no picture")[0] == 400

    assert server.stop() == 0
    assert "nothing was left to do" in server.log.read_text()
    for kind in ("digest", "rev"):  # the journal replays to the state that was live
        replayed = json.loads(run(BINARY, "journal", "verify", "--json", "--data-dir", server.folder / "data",
                                  check=True).stdout)[kind]
        assert f"{kind} {replayed}" in server.log.read_text()


def test_a_model_that_makes_room_is_really_unmapped(server, models, tmp_path):
    """§1.2: on cpu a mapped view counts against the budget by its bytes and is released when unmapped."""
    roots = tmp_path / "two"
    roots.mkdir()
    for name in ("tiny-esrgan-x4", "tiny-safety", "tiny-sdxl"):
        (roots / name).symlink_to(models / name)
    (roots / "tiny-sdxl-b").symlink_to(models / "tiny-sdxl")
    server.models = roots
    server.config = '[[worker]]\nmemory = "12MB"\n'  # one SDXL fits, two do not
    server.start()

    def mapped(model):
        pid = server.workers()["worker_0"]["pid"]
        sizes = []
        lines = open(f"/proc/{pid}/smaps").read().splitlines()
        for at, line in enumerate(lines):
            if f"/memfd:lockstep:{model}/" in line:
                sizes.append(int(lines[at + 1].split()[1]) * 1024)
        return sum(sizes)

    assert server.finished(server.submit(prompt="x", model="tiny-sdxl"))["state"] == "completed"
    device = server.get("/api/v1/devices")["devices"][0]
    assert device["memory_allocated"] <= device["memory_budget"]
    assert mapped("tiny-sdxl") > 8 << 20
    assert server.finished(server.submit(prompt="x", model="tiny-sdxl-b"))["state"] == "completed"
    assert mapped("tiny-sdxl") == 0 and mapped("tiny-sdxl-b") > 8 << 20
    device = server.get("/api/v1/devices")["devices"][0]
    held = {m["model"]["model_id"]: m["model"]["bytes"] for m in server.get("/api/v1/models")["models"] if m["residencies"]}
    assert device["memory_allocated"] == sum(held.values()) and "tiny-sdxl" not in held
    # What the worker told of its device and its model (§2.1, §2.3).
    assert device["diagnostics"]["process_memory"] > 8 << 20 and device["diagnostics"]["memory_total"] > 1 << 30
    resident = next(m for m in server.get("/api/v1/models")["models"] if m["model"]["model_id"] == "tiny-sdxl-b")
    runtime = resident["residencies"][0]["runtime"]
    assert runtime["inference_ready"] and runtime["warmup_completed"] and runtime["average_inference_time"] > 0


def test_images_of_a_batch_are_made_at_once_and_each_is_delivered(server, tmp_path):
    """§1.5, §2.5: one order, one task of the worker, an image for each seed; a limit that is too small is named."""
    server.start()
    command = ["generate", "a castle", "--size", "64x64", "--steps", "2", "--seed", "11"]
    made = cli(server, *command, "-n", "3", "--batch", "3", "-o", tmp_path / "a.png", "--json")
    images = json.loads(made.stdout)["images"]
    assert [image["seed"] for image in images] == [11, 12, 13]
    assert len({image["sha256"] for image in images}) == 3
    for number in range(3):
        with Image.open(tmp_path / f"a-{number}.png") as image:
            assert image.size == (256, 256) and f"Seed: {11 + number}" in image.text["parameters"]

    def batches():
        text = cli(server, "events", "--last", "1000", "--json", "--type", "inference_orchestration")
        return [json.loads(line) for line in text.stdout.splitlines()]

    (order,) = batches()
    assert order["body"]["batch_configuration"]["batch_size"] == 3, order
    status, view = server.request("GET", f"/api/v1/requests/{json.loads(made.stdout)['request_id']}")
    assert status == 200 and all(job["attempt"] == 2 for job in view["jobs"]), "one inference, one postprocessing each"

    refused = lockstep(server, *command, "--vram-limit", "1KB")
    assert refused.returncode != 0 and "vram_limit" in refused.stderr and "1KB" in refused.stderr, refused
    refused = cli(server, *command, "--batch", "99", code=2)
    assert "batch_size is 99; it must be 1 to 16" in refused.stderr, refused


def test_the_same_request_again_under_its_key_is_answered_and_not_done_again(server, tmp_path):
    """consistency.md §3.5: byte for byte, by another connection and from the server's next life."""
    with_manners(server, tmp_path)
    server.start()
    body = json.dumps({"prompt": "a castle", "size": "64x64", "steps": 2, "seed": 11, "response_format": "b64_json"})

    def ask(key, text=body, target="/v1/images/generations", prefer=""):
        request = urllib.request.Request(
            server.url + target, data=text.encode(), headers={"Idempotency-Key": key, "Prefer": prefer})
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as response:
                return response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    status, first, headers = ask("k1")
    assert status == 200 and headers["Idempotency-Replayed"] is None
    status, second, headers = ask("k1")
    assert status == 200 and second == first and headers["Idempotency-Replayed"] == "true"
    assert ask("k1", body.replace("castle", "tower"))[0] == 422
    long = body.replace("a castle", "hang: a castle")
    status, accepted, _ = ask("k2", long, prefer="respond-async")
    assert status == 202
    name = json.loads(accepted)["request_id"]
    status, ended, _ = ask("k3", "", f"/api/v1/requests/{name}/cancel")
    assert status == 200, ended
    with let_go(tmp_path):
        server.stop()
    server.start()
    assert ask("k1")[1] == first
    assert ask("k2", long, prefer="respond-async")[1] == accepted
    assert ask("k3", "", f"/api/v1/requests/{name}/cancel")[1] == ended, "without its key it would be refused"
    assert ask("k" * 256)[0] == 400
    made = [each for each in server.get("/api/v1/requests")["requests"]]
    assert len(made) == 2, made
