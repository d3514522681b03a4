"""Measurement of one encoded image: its header, its content's hash, and its perceptual hash."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from ..image_headers import ORIENTATION
from ..images import BadImageError, bad_image_errors, decode_quietly, encoded_bytes, identified, shown_path

HASHED_SIDE = 64  # pixels that a decoded JPEG keeps, twice the side that is hashed
_FRAMED = frozenset({"GIF", "WEBP", "TIFF", "PNG"})  # formats whose further frames are pictures of their own
_CONTRAST = 8  # grey levels below which the perceptual hash of an image is noise
_EXTENSIONS = {".jfif": "JPEG", ".jpe": "JPEG"}
_SAME_FORMAT = {"MPO": "JPEG", "PGM": "PPM"}  # MPO: a JPEG with further pictures behind it, as phones write it


@dataclass
class Measured:
    """Measurements of an image.

    Args:
        error: Reason why the image cannot be read; None where it can.
        digest: Two halves of the 128-bit hash of the file's bytes; None where there are none.
        size: Width and height in pixels of the upright image.
        turned: Whether EXIF turns or mirrors the image.
        mode: Colour mode of Pillow, such as "RGB".
        transparent: Whether the image has an alpha channel or a transparent colour.
        frames: Whether the image has several frames.
        format: Format of the content, such as "JPEG".
        named_format: Format that the file's extension stands for; None where there is no known one.
        blank: Whether all pixels have the same colour; False where the image was not decoded.
        phash: Perceptual hash, 64 bits; None where the image was not decoded or has hardly any contrast.
        prepared: Result of the caller's function on the decoded image; None without one.
    """

    error: str | None = None
    digest: tuple[int, int] | None = None
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    mode: str = "RGB"
    transparent: bool = False
    frames: bool = False
    format: str = ""
    named_format: str | None = None
    blank: bool = False
    phash: int | None = None
    prepared: Any = None


def measure(image: Any, *, decode: bool = True, prepare: Callable[[Image.Image], Any] | None = None) -> Measured:
    """Measures an image; for threads that run within one `pillow_warnings` around all of them.

    Args:
        image: Encoded image, {"bytes", "path"}.
        decode: Whether to decode the pixels too, which finds damaged and truncated images and similar ones.
        prepare: Function of the whole decoded image, upright and RGB, whose result is kept, such as a model's input.
    """
    found = Measured()
    path = image.get("path") if isinstance(image, dict) else None
    name = shown_path(PurePath(path).name) if path else "image"
    try:
        with bad_image_errors(name):
            content = encoded_bytes(image)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        found.digest = (int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big"))
        with bad_image_errors(name):
            _read_header(found, content, path)
        if decode or prepare is not None:
            picture = decode_quietly(content, name, None if prepare is not None else HASHED_SIDE)
            _look_at(found, picture)
            found.prepared = None if prepare is None else prepare(picture)
    except BadImageError as error:
        found.error = str(error)
    return found


def _read_header(found: Measured, content: bytes, path: str | None) -> None:
    with identified(io.BytesIO(content)) as opened:
        orientation = opened.getexif().get(ORIENTATION, 1)
        found.turned = orientation in range(2, 9)
        width, height = opened.size
        found.size = (height, width) if orientation in range(5, 9) else (width, height)
        found.mode, found.format = opened.mode, opened.format or ""
        found.transparent = opened.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in opened.info
        found.frames = opened.format in _FRAMED and bool(getattr(opened, "is_animated", False))
    if path:
        found.named_format = _format_of(path)


def _format_of(path: str) -> str | None:
    """Format that a file's extension stands for; None for unknown ones."""
    extension = PurePath(path).suffix.lower()
    return _EXTENSIONS.get(extension) or Image.registered_extensions().get(extension)


def wrong_extension(found: Measured) -> bool:
    """Returns True for a file whose extension names another format than its content has, such as a PNG named .jpg."""
    if found.named_format is None or not found.format:
        return False
    content, named = (_SAME_FORMAT.get(one, one) for one in (found.format, found.named_format))
    return content != named


def _look_at(found: Measured, picture: Image.Image) -> None:
    colours: Any = picture.getextrema()  # a pair for each channel
    found.blank = all(low == high for low, high in colours)
    grey: Any = picture.convert("L").getextrema()
    low, high = grey
    if high - low >= _CONTRAST:
        found.phash = perceptual_hash(picture)


def perceptual_hash(picture: Image.Image) -> int:
    """Perceptual hash (pHash) of an image: 64 signs of its lowest cosine frequencies.

    Scaled, compressed and slightly retouched copies of a picture differ in few bits; cut or mirrored ones in many.
    """
    from imagehash import phash  # takes scipy.fftpack with it

    bits = np.packbits(phash(picture).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


__all__ = ["HASHED_SIDE", "Measured", "measure", "perceptual_hash", "wrong_extension"]
