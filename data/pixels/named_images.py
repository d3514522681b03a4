"""Images that users name: files, folders, URLs, and images in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import requests
from PIL import Image

from ..image_files import ignored_notes, ignored_text, images_below
from ..images import EXTENSIONS, BadImageError, decode_image, shown_path
from ..sources import DataError

MAX_DOWNLOAD = 50 * 2**20


def find_images(images: Sequence[str | Path]) -> list[str]:
    """Returns files and URLs, with each folder replaced by the images in it, sorted."""
    found: list[str] = []
    for image in images:
        if _is_url(image):
            found.append(str(image))
            continue
        path = Path(image).expanduser()
        if path.is_dir():
            inside = images_below(path)
            if not inside.files:
                only = f", only {ignored_text(inside.ignored)}" if inside.ignored else ""
                raise DataError(f"{path} holds no images ({', '.join(sorted(EXTENSIONS))}){only}")
            ignored_notes(shown_path(path.name), inside.ignored)
            found += map(str, inside.files)
        elif path.is_file():
            found.append(str(path))
        else:
            raise DataError(f"there is no image at {image}: no such file or folder")
    return found


def opened_images(images: Any) -> tuple[list[tuple[str, Image.Image]], bool]:
    """Reads images of any kind, and says whether one image was given rather than several.

    Args:
        images: File, URL, PIL image or array (height, width) or (height, width, 3) of bytes; a folder, which is
            searched for images; or a sequence of them.

    Returns:
        Name and upright RGB image of each, in order; and whether it was one that is no folder. An image in memory is
        named by its number, such as "image 0".

    Raises:
        BadImageError: An image cannot be decoded.
        DataError: A file or folder does not exist, a folder holds no image, or the sequence is empty.
    """
    one = isinstance(images, str | Path | Image.Image | np.ndarray)
    given = [images] if one else list(images)
    if not given:
        raise DataError("there are no images: give files, folders, URLs, PIL images or arrays")
    opened: list[tuple[str, Image.Image]] = []
    for number, image in enumerate(given):
        if isinstance(image, str | Path):
            names = find_images([image])
            one = one and names == [str(Path(image).expanduser() if not _is_url(image) else image)]
            opened += [(name, read_image(name)) for name in names]
        else:
            opened.append((f"image {number}", decode_image(image, f"image {number}")))
    return opened, one


def _is_url(name: str | Path) -> bool:
    return urlparse(str(name)).scheme in ("http", "https")


def read_image(name: str) -> Image.Image:
    """Reads the image in a file or at a URL, upright and as RGB."""
    return _downloaded(name) if _is_url(name) else decode_image(name, name)


def _downloaded(url: str) -> Image.Image:
    content = bytearray()
    try:
        with requests.get(url, stream=True, timeout=30) as response:
            response.raise_for_status()
            for part in response.iter_content(1 << 16):
                content += part
                if len(content) > MAX_DOWNLOAD:
                    raise BadImageError(f"{url}: larger than {MAX_DOWNLOAD // 2**20} MiB")
    except requests.RequestException as error:
        raise BadImageError(f"{url}: {error or type(error).__name__}") from error
    return decode_image(bytes(content), url)


__all__ = ["MAX_DOWNLOAD", "find_images", "opened_images", "read_image"]
