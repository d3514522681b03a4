"""Decoding of images from all forms that data sets store them in, always to upright RGB."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile


def _register_heic() -> bool:
    """Registers HEIC with Pillow where pillow-heif is installed; returns whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


HEIC_READABLE = _register_heic()
HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
HEIC_HINT = "HEIC needs pillow-heif: pip install 'vithub[heic]'"
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
) | (HEIC_EXTENSIONS if HEIC_READABLE else frozenset())
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
JPEG_SCALES = (8, 4, 2)  # divisors of the size at which a JPEG can be decoded
_LYING = (5, 6, 7, 8)  # EXIF orientations whose height and width are exchanged when turned upright
_URI = "file://"


class BadImageError(ValueError):
    """An image cannot be decoded; the message names the file or row and the reason."""

    def __init__(self, message: str) -> None:
        # a data loader's worker passes the error on with its traceback written before the message
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Context that silences Pillow's warnings about odd but readable files and turns decompression bombs into errors.

    Warning filters are those of the whole process: code that decodes in threads enters this once, around all of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


@contextmanager
def bad_image_errors(name: str) -> Iterator[None]:
    """Context that turns errors of Pillow on missing or damaged files into a `BadImageError` beginning with `name`."""
    try:
        yield
    except (
        OSError, SyntaxError, ValueError, TypeError, EOFError, ArithmeticError, LookupError, AttributeError,
        MemoryError, RuntimeError, Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        if isinstance(error, BadImageError):
            raise
        raise BadImageError(f"{name}: {_reason(error)}") from error


def decode_image(value: Any, name: str = "image", least: int | None = None) -> Image.Image:
    """Decodes an image to RGB, turned upright as its EXIF orientation states.

    Greyscale is repeated, palettes and CMYK are converted, transparency is dropped (as the pipelines of transformers
    do), and 16 bits per channel are scaled to 8. Floating-point greyscale is taken to be in the smallest of the ranges
    [0, 1], [0, 255] and [0, 65535] that holds it.

    Args:
        value: PIL image, array (height, width) or (height, width, channels), path, bytes of a file, or the
            {"bytes", "path"} of `datasets`.
        name: Name of the image in messages.
        least: Pixels that the shorter side of a JPEG must keep: one of at least twice as many is decoded at a half, a
            quarter or an eighth of its size, which saves most of the work. None decodes all images at full size.

    Raises:
        BadImageError: The image is missing, damaged, truncated, not an image, or its values are in none of the ranges.
    """
    with pillow_warnings():
        return decode_quietly(value, name, least)


def decode_quietly(value: Any, name: str = "image", least: int | None = None) -> Image.Image:
    """Decodes an image like `decode_image`, for threads that run within one `pillow_warnings` around all of them."""
    return _decoded(value, name, least)[0]


def decode_sized(value: Any, name: str = "image", least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes an image like `decode_image`, and states the height and width of the upright image as it is stored."""
    with pillow_warnings():
        return _decoded(value, name, least)


def _decoded(value: Any, name: str, least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        value, name = (content, name) if content is not None else (path, path or name)
    with bad_image_errors(shown_path(name)):
        image = _opened(value)
        stored = image.size
        if least is not None:
            _reduce(image, least)
        upright = ImageOps.exif_transpose(image)
        lying = image.getexif().get(ExifTags.Base.Orientation) in _LYING
        return _to_rgb(upright), stored if lying else stored[::-1]


def encoded_bytes(value: Any) -> bytes:
    """Bytes of an encoded image, given as {"bytes", "path"}, bytes, or a file.

    Raises:
        ValueError: There is no image, or it is empty.
        OSError: The file cannot be read.
    """
    if isinstance(value, dict):
        content = value.get("bytes")
        value = content if content is not None else value.get("path")
    if isinstance(value, str | Path):
        file = real_path(value)
        if not file.is_file():
            raise ValueError("no such file")
        value = file.read_bytes()  # read at once, so that no file stays open where the image is damaged
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"expected an image, a path or the bytes of a file, got {type(value).__name__}")
    if not value:
        raise ValueError("the file is empty")
    return bytes(value)


def stored_path(file: str | Path) -> str:
    """Path of a file as text that a table can hold: the path, or a file: URI where its name is not UTF-8."""
    try:
        str(file).encode("utf-8")
    except UnicodeEncodeError:
        return _URI + quote_from_bytes(os.fsencode(Path(file).absolute()))
    return str(file)


def real_path(stored: str | Path) -> Path:
    """Path of the file that `stored_path` encoded, or that a file: URI names."""
    if isinstance(stored, str) and stored.startswith(_URI + "/"):
        return Path(os.fsdecode(unquote_to_bytes(stored.removeprefix(_URI))))
    return Path(stored)


def shown_path(stored: str | Path) -> str:
    r"""Path as text that can be printed and written: bytes that are not UTF-8 are shown as \xNN."""
    if isinstance(stored, str) and not stored.startswith(_URI):
        return os.fsencode(stored).decode("utf-8", "backslashreplace")
    return os.fsencode(real_path(stored)).decode("utf-8", "backslashreplace")


def _opened(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray):
        return Image.fromarray(value)
    return identified(io.BytesIO(encoded_bytes(value)))


def _reduce(image: Image.Image, least: int) -> None:
    """Lets a JPEG be decoded at a smaller size, if its shorter side then still has `least` pixels."""
    scale = next((scale for scale in JPEG_SCALES if min(image.size) // scale >= least), 1)
    if scale > 1 and isinstance(image, JpegImageFile):
        image.draft(image.mode, (image.width // scale, image.height // scale))


def identified(source: io.BytesIO | Path) -> Image.Image:
    """Opens an image and reads its header; for HEIC without support the error names the missing package."""
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if HEIC_READABLE:
            raise
        with source.open("rb") if isinstance(source, Path) else source as stream:
            stream.seek(0)
            head = stream.read(12)
        if head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS:
            raise ValueError(f"a HEIC image; {HEIC_HINT}") from None
        raise


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("P", "PA", "LA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(levels: np.ndarray, mode: str) -> np.ndarray:
    """Scales integers of 16 bits, or of 32 that hold 8 or 16, and real numbers to 8 bits; Pillow would clip at 255.

    Raises:
        ValueError: The values are in no known range.
    """
    low, high = (levels.min(), levels.max()) if levels.size else (0, 0)
    real = mode == "F"
    # real numbers may overshoot a little by resampling; integers below 0 are not pixel values
    slack = 0.05 if real else 0.0
    ranges = {"F": (1, 255, 65535), "I": (255, 65535)}.get(mode, (65535,))
    largest = next((top for top in ranges if high <= (1 + slack) * top), None)
    if largest is None or not low >= -slack * largest:
        known = " or ".join(f"0 to {top}" for top in ranges)
        raise ValueError(f"its pixels run from {low:g} to {high:g}; {known} can be read")
    if real:
        scaled = levels.astype(np.float64) * (255 / largest)
        return np.asarray(scaled.round() if largest == 1 else scaled).clip(0, 255).astype(np.uint8)
    return np.asarray(levels.astype(np.int64) // (largest // 255)).astype(np.uint8)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return " ".join(str(error).split()) or type(error).__name__


__all__ = [
    "EXTENSIONS",
    "HEIC_EXTENSIONS",
    "HEIC_HINT",
    "HEIC_READABLE",
    "JPEG_SCALES",
    "BadImageError",
    "bad_image_errors",
    "decode_image",
    "decode_quietly",
    "decode_sized",
    "encoded_bytes",
    "identified",
    "pillow_warnings",
    "real_path",
    "shown_path",
    "stored_path",
]
