"""Pictures of visitors and examples: what is accepted, and how errors are told."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.images import BadImageError, decode_image
from ...data.text.html_text import html_text
from ..capture.subject import ExplanationError

logger = logging.getLogger(__name__)

MAX_UPLOAD = 20 * 2**20
MAX_PIXELS = 50_000_000
# Image formats that browsers can show; pictures in other formats are converted to PNG.
_SHOWN = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif")
DELETED = "the picture was deleted meanwhile; choose it again"
FAILED = "It could not be computed; the log of the page says why."


def read_photo(path: str | Path | None) -> Image.Image:
    """Decodes an uploaded image.

    Args:
        path: File of the upload; None if nothing was chosen.

    Raises:
        BadImageError: The file is missing, not an image, damaged or too large; the message can be shown to the visitor.
    """
    if path is None:
        raise BadImageError("choose a picture first")
    file = Path(path)
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise BadImageError(DELETED) from None
    if size > MAX_UPLOAD:
        raise BadImageError(f"{file.name}: {size / 2**20:.0f} MiB, larger than {MAX_UPLOAD // 2**20} MiB")
    try:
        with Image.open(file) as image:  # reads the header alone
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise BadImageError(f"{file.name}: not an image in a known format") from None
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{file.name}: {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million")
    return decode_image(file, file.name)


def browser_copy(file: Path, folder: Path, purpose: str) -> Path:
    """Copies a picture into a folder of its own below the page's, in a format that a browser can show.

    Args:
        file: Picture.
        folder: Folder of the page.
        purpose: First part of the new folder's name.

    Raises:
        BadImageError: The picture cannot be decoded.
    """
    picture = read_photo(file)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=folder))
    if file.suffix.lower() in _SHOWN:
        return Path(shutil.copyfile(file, folder / file.name))
    target = folder / f"{file.stem}.png"
    picture.save(target)
    return target


def upload_path(photo: dict[str, Any] | None) -> str | None:
    """File path of an image that the page sent; gradio has checked that it is an upload or an example."""
    return None if photo is None else str(photo["path"])


@contextmanager
def answering(gradio: Any, title: str) -> Iterator[None]:
    """Shows errors to the visitor: those about the image unchanged, all others without the server's paths."""
    try:
        yield
    except (BadImageError, ExplanationError) as error:
        raise gradio.Error(html_text(str(error)), title=title, print_exception=False) from error
    except Exception:
        logger.exception("the page could not answer")
        raise gradio.Error(FAILED, title=title, print_exception=False) from None


__all__ = ["FAILED", "MAX_PIXELS", "MAX_UPLOAD", "answering", "browser_copy", "read_photo", "upload_path"]
