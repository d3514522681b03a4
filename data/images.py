"""Decoding an image from whatever a data set holds it as, always upright and RGB."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)


class BadImageError(ValueError):
    """An image that cannot be decoded; the message names the file or row and the reason."""

    def __init__(self, message: str) -> None:
        # a loading process hands it over with its traceback written before it
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


def decode_image(value: Any, name: str = "image") -> Image.Image:
    """The image as RGB, turned upright as its EXIF says.

    Greyscale is repeated, palettes and CMYK are converted, transparency is dropped (as the pipelines of transformers
    do), and 16 bits per channel are scaled to 8.

    Args:
        value: A PIL image, an array (height, width) or (height, width, channels), a path, the bytes of a file, or the
            {"bytes", "path"} of `datasets`.
        name: What a message calls it.

    Raises:
        BadImageError: It is missing, damaged, cut short or no image.
    """
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        value, name = (content, name) if content is not None else (path, path or name)
    try:
        with warnings.catch_warnings():
            # Pillow's remark on odd but readable files; a decompression bomb stays an error
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            return _to_rgb(ImageOps.exif_transpose(_opened(value)))
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError) as error:
        raise BadImageError(f"{name}: {_reason(error)}") from error
    except Image.DecompressionBombWarning as error:
        raise BadImageError(f"{name}: {error}") from error


def _opened(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray):
        if not value:
            raise ValueError("the file is empty")
        return Image.open(io.BytesIO(value))
    if isinstance(value, str | Path):
        if not Path(value).is_file():
            raise ValueError("no such file")
        return Image.open(io.BytesIO(Path(value).read_bytes()))  # no file stays open, of a damaged image either
    if isinstance(value, np.ndarray):
        return Image.fromarray(value)
    raise TypeError(f"expected an image, a path or the bytes of a file, got {type(value).__name__}")


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16: Pillow would cut them at 255
        levels = np.asarray(image).astype(np.int64)
        scale = 257 if image.mode.startswith("I;16") or levels.max(initial=0) > 255 else 1
        return Image.fromarray((levels // scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA", "LA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return str(error) or type(error).__name__


__all__ = ["EXTENSIONS", "BadImageError", "decode_image"]
