"""Size and EXIF orientation of images without decoding them, and rotation of boxes with their image."""

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
    """Size and orientation stated by an image file.

    Args:
        width: Width in pixels, as stored.
        height: Height in pixels, as stored.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Size (width, height) of the stored pixels."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Size (width, height) after the rotation that EXIF states; models are trained on upright images."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(value: Any, name: str = "image") -> ImageHeader:
    """Size and orientation of an encoded image.

    Args:
        value: Encoded image: {"bytes", "path"}, bytes, or a file.
        name: Name of the image in messages.

    Raises:
        BadImageError: The image is missing or is not an image.
    """
    with pillow_warnings():
        return _header(value, name)


def read_headers(
    value: Callable[[int], Any], names: Sequence[str], *, decode: bool = False
) -> list[ImageHeader | BadImageError]:
    """Headers of many images in order, or an error in place of each bad one; read by one thread per core.

    Args:
        value: Function that returns the encoded image of an index.
        names: Name of each image in messages.
        decode: Whether to decode the pixels too, which finds truncated and damaged images.
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

    # threads suffice, as Pillow releases Python's lock while it decodes
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    with pillow_warnings():  # a list: a generator would leave the warning filters set in the caller
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
    """Converts boxes on the stored pixels to boxes on the upright image.

    Args:
        corners: Boxes (N, 4): left, top, right, bottom in stored pixels.
        header: Header of the image.
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
