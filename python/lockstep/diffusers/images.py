"""PNG files: the delivered form of a picture, and the checked reading of one."""

import io
import json

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from .errors import DATA_LOSS, INVALID_ARGUMENT, TaskFailed

MAX_SIDE = 16384
MAX_PIXELS = 128 * 1024 * 1024
# Level 6 is the usual trade; 9 costs several times as long for a few percent.
_COMPRESSION = 6


def encode_png(image: np.ndarray, parameters: str | None = None, metadata: dict | None = None) -> bytes:
    """Return `image` (height, width, 3; uint8) as a PNG file; equal arguments give equal bytes.

    `parameters` becomes the text chunk of that name (the form that AUTOMATIC1111's web interface
    writes and many viewers show), `metadata` the chunk "lockstep" as JSON with sorted keys. No time
    is stored.
    """
    chunks = PngImagePlugin.PngInfo()
    if parameters is not None:
        # Without UTF-8 in the plain text chunk, other scripts need the international one.
        try:
            parameters.encode("latin-1")
            chunks.add_text("parameters", parameters)
        except UnicodeEncodeError:
            chunks.add_itxt("parameters", parameters)
    if metadata is not None:
        chunks.add_text("lockstep", json.dumps(metadata, sort_keys=True, separators=(",", ":")))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESSION)
    return file.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Return the picture in a PNG file as uint8 of shape (height, width, 3); transparency is dropped.

    Sizes are checked before any pixel is unpacked. Raises TaskFailed: invalid_argument for more than
    MAX_SIDE pixels a side or MAX_PIXELS in all, data_loss for what is no whole PNG file.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as file:
            width, height = file.size
            if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
                raise TaskFailed(INVALID_ARGUMENT, f"the picture is {width}x{height}, larger than this worker takes")
            return np.array(file.convert("RGB"))
    except Image.DecompressionBombError:
        raise TaskFailed(INVALID_ARGUMENT, "the picture is larger than this worker takes") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise TaskFailed(DATA_LOSS, f"the picture is no whole PNG file: {error}") from None


def read_chunks(data: bytes) -> dict[str, str]:
    """Return the text chunks of a PNG file by name."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as file:
        file.load()
        return dict(file.text)
