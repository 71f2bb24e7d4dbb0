"""Writes the tiny models: `python -m lockstep.diffusers.make_tiny DIR [--force]`.

One folder per model; each is written beside its place and moved there whole.
"""

import argparse
import os
import secrets
import shutil
import sys

from . import runtime

MODELS = {
    "tiny-sdxl": "sdxl",
    "tiny-esrgan-x4": "upscaler",
    "tiny-safety": "safety_classifier",
}


def _write(model_id: str, folder: str, scale: int) -> None:
    # Imported here: each needs torch, which takes seconds, and errors about folders shall come before.
    if model_id == "tiny-sdxl":
        from .tiny_sdxl import write as write_sdxl

        return write_sdxl(folder, scale)
    if model_id == "tiny-esrgan-x4":
        from .tiny_esrgan import write
    else:
        from .tiny_safety import write
    write(folder)


def _open_to_readers(folder: str) -> int:
    """Give every file and folder the usual permissions and return the files' bytes together.

    Some writers keep files to their owner; the daemon may run as another user.
    """
    umask = os.umask(0)
    os.umask(umask)
    total = 0
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o777 & ~umask)
        for name in names:
            path = os.path.join(parent, name)
            os.chmod(path, 0o666 & ~umask)
            total += os.path.getsize(path)
    return total


def make(directory: str, model_id: str, force: bool = False, scale: int = 1) -> int:
    """Write the model `model_id` (a key of MODELS) to directory/model_id and return its bytes.

    The folder appears whole or not at all. Raises FileExistsError when it is there and not `force`,
    OSError when the directory is not writable.
    """
    target = os.path.join(directory, model_id)
    if os.path.lexists(target) and not force:
        raise FileExistsError(f"{target} exists; --force replaces it")
    os.makedirs(directory, exist_ok=True)
    staging = os.path.join(directory, f".{model_id}.{secrets.token_hex(4)}")
    os.mkdir(staging)
    replaced = staging + ".old"
    try:
        _write(model_id, staging, scale)
        total = _open_to_readers(staging)
        if os.path.lexists(target):
            os.rename(target, replaced)
        try:
            os.rename(staging, target)
        except OSError:
            if os.path.lexists(replaced):
                os.rename(replaced, target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return total


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lockstep.diffusers.make_tiny", description="Write the tiny models that need no download."
    )
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--force", action="store_true", help="replace models that exist")
    parser.add_argument("--scale", type=int, default=1, choices=range(1, 33), metavar="1..32",
                        help="times as many channels in the image model; 16 is over 1 GiB")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        present = [name for name in MODELS if os.path.lexists(os.path.join(options.directory, name))]
        if present and not options.force:
            print(f"{options.directory} has {', '.join(present)} already; --force replaces them", file=sys.stderr)
            return 1
        os.makedirs(options.directory, exist_ok=True)
        if not os.access(options.directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "the folder is not writable")
        runtime.configure_torch()
        for model_id, kind in MODELS.items():
            total = make(options.directory, model_id, options.force, options.scale)
            print(f"{model_id}\t{kind}\t{total}", flush=True)
    except OSError as error:
        print(f"cannot write models to {options.directory}: {error.strerror or error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"cannot make models: the Python package {error.name} is missing", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
