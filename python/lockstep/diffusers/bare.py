"""The same work without the orchestrator: the floor that the benchmark compares with.

`python -m lockstep.diffusers.bare MODELS_DIR --prompt P --size 64x64 --steps N --seed S` makes
pictures from the tiny models' folders (or others of the same names) and prints the milliseconds of
each warm request and the sha256 of the RGB rows before enlarging. With `--serve` it reads requests
as JSON lines instead and answers each with one JSON line.
"""

import argparse
import hashlib
import json
import os
import sys
import time

from . import runtime

# Field, type and value when absent of one request.
_FIELDS = {
    "prompt": (str, None),
    "negative_prompt": (str, ""),
    "width": (int, 64),
    "height": (int, 64),
    "steps": (int, 4),
    "guidance_scale": ((int, float), 5.0),
    "seed": (int, 0),
}


class Bare:
    """A pipeline, an upscaler and a safety classifier, loaded from files by their libraries' own ways.

    Raises OSError when a model folder is missing or not whole.
    """

    def __init__(
        self,
        models: str,
        device: str = "cpu",
        sdxl: str = "tiny-sdxl",
        upscaler: str = "tiny-esrgan-x4",
        safety: str = "tiny-safety",
    ):
        runtime.configure_torch()
        import diffusers
        from spandrel import ModelLoader

        from .safety import load_safety_from_files
        from .upscale import check_upscaler

        diffusers.utils.logging.disable_progress_bar()
        self._pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(
            os.path.join(models, sdxl), use_safetensors=True, local_files_only=True, add_watermarker=False
        ).to(device)
        self._pipe.set_progress_bar_config(disable=True)
        self._upscaler = ModelLoader(device=device).load_from_file(os.path.join(models, upscaler, "model.safetensors"))
        check_upscaler(self._upscaler)
        self._upscaler.model.requires_grad_(False)
        self._safety = load_safety_from_files(os.path.join(models, safety), device)
        self.rgb_sha256 = ""

    def request(self, strictness: str = "moderate", **parameters) -> bytes:
        """Return the enlarged and checked picture as a PNG; `rgb_sha256` is then that of its source.

        `parameters` are those of pipeline.generate. Raises TaskFailed: what generate raises, and
        invalid_argument when the picture is judged unsafe.
        """
        from .errors import INVALID_ARGUMENT, TaskFailed
        from .images import encode_png
        from .pipeline import generate
        from .safety import check
        from .upscale import upscale

        image = generate(self._pipe, **parameters)
        self.rgb_sha256 = hashlib.sha256(image).hexdigest()
        enlarged = upscale(self._upscaler, image)
        verdict = check(self._safety, enlarged, strictness)
        if verdict.classification != "safe":
            raise TaskFailed(INVALID_ARGUMENT, f"the picture is unsafe: {', '.join(verdict.flagged)}")
        return encode_png(enlarged)


def timed(bare: Bare, parameters: dict) -> dict:
    """Run one request and return {"ms", "sha256" of the RGB rows, "bytes" of the PNG}."""
    started = time.perf_counter()
    data = bare.request(**parameters)
    elapsed = time.perf_counter() - started
    return {"ms": round(elapsed * 1000, 3), "sha256": bare.rgb_sha256, "bytes": len(data)}


def _request(line: str) -> dict:
    """Return a request line's parameters; raises ValueError for one that is not of the form."""
    given = json.loads(line)
    if not isinstance(given, dict):
        raise ValueError("a request is a JSON object")
    if unknown := given.keys() - _FIELDS.keys():
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    parameters = {}
    for name, (kinds, default) in _FIELDS.items():
        value = given.get(name, default)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"the field {name!r} is missing or of the wrong type")
        parameters[name] = value
    return parameters


def _serve(bare: Bare) -> int:
    from .errors import TaskFailed

    for line in sys.stdin:
        try:
            answer = timed(bare, _request(line))
        except (ValueError, TaskFailed) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lockstep.diffusers.bare", description=__doc__.split("\n")[0])
    parser.add_argument("models", metavar="MODELS_DIR")
    parser.add_argument("--prompt")
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--size", type=_size, default=(64, 64), metavar="WxH")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=1, metavar="K", help="timed requests after one warm-up")
    parser.add_argument("--json", action="store_true", help="one JSON object per request")
    parser.add_argument("--serve", action="store_true", help="read requests as JSON lines from standard input")
    options = parser.parse_args(arguments)
    if not options.serve and options.prompt is None:
        parser.error("--prompt or --serve is needed")
    from .errors import TaskFailed

    try:
        bare = Bare(options.models, os.environ.get("LOCKSTEP_DEVICE") or "cpu")
        if options.serve:
            return _serve(bare)
        width, height = options.size
        parameters = {
            "prompt": options.prompt,
            "negative_prompt": options.negative_prompt,
            "width": width,
            "height": height,
            "steps": options.steps,
            "guidance_scale": options.guidance_scale,
            "seed": options.seed,
        }
        # The first request pays for memory that later ones find ready.
        bare.request(**parameters)
        for _ in range(options.repeat):
            answer = timed(bare, parameters)
            print(json.dumps(answer) if options.json else f"{answer['ms']:.1f} ms  {answer['sha256']}", flush=True)
    except TaskFailed as error:
        print(error.message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot load the models in {options.models}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
