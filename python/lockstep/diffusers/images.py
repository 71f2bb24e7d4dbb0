"""Image files: the delivered forms of a picture (PNG, JPEG, WebP), and the checked reading of one."""

import io
import json

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from .errors import DATA_LOSS, INVALID_ARGUMENT, TaskFailed

MAX_SIDE = 16384
MAX_PIXELS = 128 * 1024 * 1024
# Level 6 is the usual trade; 9 costs several times as long for a few percent.
_COMPRESSION = 6

# What a format can be asked for, and the encoder's own figure for it; None where there is no choice. JPEG keeps every
# colour sample at "high", where its usual halving of colour is what one would see first.
QUALITIES = {
    "png": {"lossless": None},
    "jpeg": {"high": (95, 0), "medium": (85, 2), "low": (60, 2)},
    "webp": {"lossless": None, "high": 92, "medium": 80, "low": 50},
}
# Of one segment of a JPEG file, which has to hold all that EXIF says.
_JPEG_EXIF_MAX = 65_000
_EXIF_IFD, _IMAGE_DESCRIPTION, _USER_COMMENT = 0x8769, 0x010E, 0x9286


def check_output(format: str, quality: str) -> None:
    """Raises TaskFailed(invalid_argument) for a format that is not written here, or a quality that it has not."""
    if format not in QUALITIES:
        raise TaskFailed(INVALID_ARGUMENT, f"the output format is {format!r}; it can be {', '.join(QUALITIES)}")
    if quality not in QUALITIES[format]:
        raise TaskFailed(
            INVALID_ARGUMENT,
            f"the output quality is {quality!r}; with {format} it can be {', '.join(QUALITIES[format])}",
        )


def encode(
    image: np.ndarray,
    format: str,
    quality: str,
    parameters: str | None = None,
    metadata: dict | None = None,
) -> bytes:
    """Return `image` (height, width, 3; uint8) as a file; equal arguments give equal bytes.

    PNG carries its texts as encode_png says; JPEG and WebP have them in EXIF: `parameters` as the
    user comment (where AUTOMATIC1111's web interface puts it too), `metadata` as JSON in the image
    description. A JPEG has room for 64 kB of that: `parameters`, which says nothing that is not in
    `metadata`, goes first when it does not fit, then what of `metadata` is long.
    Raises TaskFailed as check_output does.
    """
    check_output(format, quality)
    if format == "png":
        return encode_png(image, parameters, metadata)
    figure = QUALITIES[format][quality]
    options: dict = {"exif": _exif(parameters, metadata, _JPEG_EXIF_MAX if format == "jpeg" else None)}
    if format == "jpeg":
        options |= {"quality": figure[0], "subsampling": figure[1]}
    else:
        options |= {"lossless": True} if figure is None else {"quality": figure}
    file = io.BytesIO()
    Image.fromarray(image).save(file, format.upper(), **options)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Return the picture in a file that encode() made."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as file:
        return np.array(file.convert("RGB"))


def _exif(parameters: str | None, metadata: dict | None, limit: int | None) -> bytes:
    short = None if metadata is None else {k: v for k, v in metadata.items() if len(json.dumps(v)) <= 256}
    for text, facts in ((parameters, metadata), (None, metadata), (None, short)):
        exif = Image.Exif()
        if facts is not None:
            exif[_IMAGE_DESCRIPTION] = _json(facts)
        if text is not None:
            exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be", "replace")
        data = exif.tobytes()
        if limit is None or len(data) <= limit:
            return data
    return b""


def read_exif(data: bytes) -> dict[str, str]:
    """Return what encode() wrote into a JPEG or WebP file, by the names of PNG's chunks."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP")) as file:
        exif = file.getexif()
    found = {}
    if _IMAGE_DESCRIPTION in exif:
        found["lockstep"] = exif[_IMAGE_DESCRIPTION]
    if comment := exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT):
        found["parameters"] = comment[8:].decode("utf-16-be")
    return found


def _json(metadata: dict) -> str:
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"))


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
        chunks.add_text("lockstep", _json(metadata))
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
