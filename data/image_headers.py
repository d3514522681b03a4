"""An image's size and orientation without its pixels, and boxes turned with the image."""

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .images import BadImageError

ORIENTATION = 0x0112  # the EXIF tag


class ImageHeader(NamedTuple):
    """What an image file says of itself.

    Args:
        width: In pixels, as stored.
        height: Likewise.
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
    if isinstance(value, dict):
        content = value.get("bytes")
        value = content if content is not None else value.get("path")
    try:
        if value is None:
            raise ValueError("there is no image")
        if isinstance(value, str | Path) and not Path(value).is_file():
            raise ValueError(f"no such file: {value}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            with Image.open(io.BytesIO(value) if isinstance(value, bytes | bytearray) else value) as image:
                orientation = image.getexif().get(ORIENTATION, 1)
                width, height = image.size
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError) as error:
        raise BadImageError(f"{name}: {error}") from error
    except Image.DecompressionBombWarning as error:
        raise BadImageError(f"{name}: {error}") from error
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


__all__ = ["ImageHeader", "read_header", "turn_boxes"]
