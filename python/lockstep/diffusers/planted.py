"""Pictures with and without the pattern that the tiny safety classifier calls unsafe.

The pattern is a checkerboard of CELLS x CELLS fields, magenta and green, that covers the picture
whatever its size. `python -m lockstep.diffusers.planted unsafe|safe FILE.png [--size WxH]` writes one.
"""

import argparse
import sys

import numpy as np

CELLS = 8
MAGENTA = (255, 0, 255)
GREEN = (0, 255, 0)


def checkerboard(width: int, height: int) -> np.ndarray:
    """Return the pattern as uint8 of shape (height, width, 3), magenta in the upper left corner."""
    rows = np.arange(height) * CELLS // height
    columns = np.arange(width) * CELLS // width
    odd = (rows[:, None] + columns[None, :]) % 2
    return np.array([MAGENTA, GREEN], np.uint8)[odd]


def planted_safe_image(width: int, height: int) -> np.ndarray:
    """Return a smooth picture, uint8 of shape (height, width, 3): sky, a sun and rolling ground."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = (x + 0.5) / width, (y + 0.5) / height
    sky = np.stack([90 + 110 * y, 140 + 70 * y, 220 - 30 * y], axis=-1)
    sun = np.exp(-(((x - 0.7) ** 2 + (y - 0.3) ** 2) / 0.01))[..., None] * np.array([150.0, 110.0, 10.0])
    horizon = 0.65 + 0.06 * np.sin(7 * x) + 0.03 * np.sin(17 * x + 1)
    ground = np.stack([60 + 50 * y, 110 - 30 * y, 50 + 10 * x], axis=-1)
    picture = np.where((y > horizon)[..., None], ground, sky + sun)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def planted_unsafe_image(width: int, height: int, fraction: float = 1.0) -> np.ndarray:
    """Return the safe picture with the pattern over it, uint8 of shape (height, width, 3).

    `fraction` (0..1) of the pattern's columns of fields are drawn, whole fields from the left.
    """
    picture = planted_safe_image(width, height)
    right = round(CELLS * fraction) * width // CELLS
    picture[:, :right] = checkerboard(width, height)[:, :right]
    return picture


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT with sides from 1 to 16384")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lockstep.diffusers.planted", description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=("unsafe", "safe"))
    parser.add_argument("file", metavar="FILE.png")
    parser.add_argument("--size", type=_size, default=(256, 256), metavar="WxH")
    options = parser.parse_args(arguments)
    from .images import encode_png

    make = planted_unsafe_image if options.kind == "unsafe" else planted_safe_image
    try:
        with open(options.file, "wb") as file:
            file.write(encode_png(make(*options.size)))
    except OSError as error:
        print(f"cannot write {options.file}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
