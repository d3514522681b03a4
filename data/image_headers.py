"""An image's size and orientation without its pixels, and boxes turned with the image."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .images import BadImageError, bad_image_errors, decode_quietly, identified, pillow_warnings, real_path, shown_path

ORIENTATION = 0x0112  # the EXIF tag


class ImageHeader(NamedTuple):
    """What an image file says of itself.

    Args:
        width: In pixels, as stored.
        height: In pixels, as stored.
        orientation: EXIF, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) once turned as EXIF says, which is what is trained on."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(value: Any, name: str = "image") -> ImageHeader:
    """Size and orientation of an encoded image: {"bytes", "path"}, bytes, or a file.

    Raises:
        BadImageError: It is missing or no image.
    """
    with pillow_warnings():
        return _header(value, name)


def read_headers(
    value: Callable[[int], Any], names: Sequence[str], *, decode: bool = False
) -> list[ImageHeader | BadImageError]:
    """The headers of many images in order, read by as many threads as there are cores; an error where one is bad.

    Args:
        value: The encoded image of each number.
        names: What a message calls each.
        decode: Decode the pixels too, so that an image that is cut short or damaged is an error.
    """

    def read(number: int) -> ImageHeader | BadImageError:
        try:
            encoded = value(number)
            header = _header(encoded, names[number])
            if decode:
                decode_quietly(encoded, names[number])
        except BadImageError as error:
            return error
        return header

    # Pillow decodes without Python's lock, so that threads suffice
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    with pillow_warnings():  # a list, not a generator: filters of warnings are not left behind in the caller
        try:
            return list(pool.map(read, range(len(names))))
        finally:
            pool.shutdown(cancel_futures=True)


def _header(value: Any, name: str) -> ImageHeader:
    if isinstance(value, dict):
        content = value.get("bytes")
        value = content if content is not None else value.get("path")
    with bad_image_errors(name):
        if value is None:
            raise ValueError("there is no image")
        if isinstance(value, str | Path):
            value = real_path(value)
            if not value.is_file():
                raise ValueError(f"no such file: {shown_path(value)}")
        with identified(io.BytesIO(value) if isinstance(value, bytes | bytearray) else value) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            width, height = image.size
    return ImageHeader(width, height, orientation if orientation in range(1, 9) else 1)


def turn_boxes(corners: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Boxes on the stored pixels as boxes on the upright image.

    Args:
        corners: (N, 4), left, top, right, bottom in pixels as stored.
        header: Of the image.
    """
    left, top, right, bottom = corners.T
    width, height = header.stored
    turned = {
        1: (left, top, right, bottom),
        2: (width - right, top, width - left, bottom),
        3: (width - right, height - bottom, width - left, height - top),
        4: (left, height - bottom, right, height - top),
        5: (top, left, bottom, right),
        6: (height - bottom, left, height - top, right),
        7: (height - bottom, width - right, height - top, width - left),
        8: (top, width - right, bottom, width - left),
    }
    return np.stack(turned[header.orientation], axis=1)


__all__ = ["ImageHeader", "read_header", "read_headers", "turn_boxes"]
