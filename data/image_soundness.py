"""Search for unreadable images before training, by the headers and ends of files rather than all pixels.

An image whose file ends as its format demands is assumed to be readable; other images are decoded. Damage in the middle
of a file is found by `check-data`, which decodes all images.
"""

import hashlib
import io
import logging
import os
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

from datasets import Dataset
from PIL import Image

from .argument_names import stated
from .columns import IMAGE
from .images import BadImageError, decode_quietly, pillow_warnings, real_path

logger = logging.getLogger("vithub")
_AT_ONCE = 1024
_PRINTED = 4096  # bytes at the end of a file, which the check of its end has read from the disk anyway


def check_readable(
    tables: Mapping[str, Dataset], on_bad_image: str, max_bad_share: float, prints: dict[str, Any] | None = None
) -> None:
    """Checks that all images of the splits can be read, or that no more are unreadable than may be skipped.

    Args:
        tables: Splits by name, with encoded images.
        on_bad_image: Treatment of unreadable images: "error", or "skip" to warn of them.
        max_bad_share: Largest fraction of a split that may be skipped, in [0, 1].
        prints: Filled with the prints of each split's images by its name, where it is given: a 64-bit hash of a file's
            size and last 4,096 bytes, by which different files are told apart without reading them; 0 for an image
            that cannot be read.

    Raises:
        BadImageError: There are such images; the message names the first of them, and how to train without them.
    """
    wrong, allowed, largest = [], True, max_bad_share if on_bad_image == "skip" else 0.0
    for name, table in tables.items():
        bad = list(unreadable_images(table, name, None if prints is None else prints.setdefault(name, array("Q"))))
        wrong += bad
        allowed = allowed and len(bad) <= largest * len(table)
    if not wrong:
        return
    shown = "; ".join(wrong[:5]) + (" and others" if len(wrong) > 5 else "")
    count = f"{len(wrong)} image{'' if len(wrong) == 1 else 's'} could not be decoded"
    if allowed:
        logger.warning("%s, training goes on without: %s", count, shown)
    elif on_bad_image == "skip":
        raise BadImageError(f"{count}, more than data.max_bad_share {max_bad_share:g} of a split: {shown}")
    else:
        raise BadImageError(
            f"{count}: {shown}; {stated(on_bad_image='skip')} (data.on_bad_image) trains without such, up to "
            "data.max_bad_share of a split"
        )


def unreadable_images(table: Dataset, split: str, prints: Any = None) -> Iterator[str]:
    """Messages that say what is wrong with each unreadable image, in the order of the rows.

    Args:
        table: Table with encoded images.
        split: Name of the split in messages.
        prints: Array that the print of each image is appended to; see `check_readable`. None makes none.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, pillow_warnings():
        for first in range(0, len(table), _AT_ONCE):
            images = table[first : first + _AT_ONCE][IMAGE]
            names = [f"row {row} of split {split!r}" for row in range(first, first + len(images))]
            for text, printed in pool.map(partial(_what_is_wrong, printed=prints is not None), images, names):
                if prints is not None:
                    prints.append(printed)
                if text is not None:
                    yield text


def _what_is_wrong(image: Any, name: str, *, printed: bool) -> tuple[str | None, int]:
    """Message about an unreadable image, None for a readable one, and the image's print, 0 unless `printed`."""
    found = 0
    try:
        with _opened(image) as file:
            found = _print(file) if printed else 0
            if _ends_well(file):
                return None, found
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError,
            Image.DecompressionBombWarning):  # fmt: skip
        pass  # decoding says what is wrong
    try:
        decode_quietly(image, name)
    except BadImageError as error:
        path = image.get("path") if isinstance(image, dict) else None
        return f"{error} ({name})" if path and name not in str(error) else str(error), 0
    return None, found


def _print(file: BinaryIO) -> int:
    """Hash of a file's size and last bytes, 64 bits; never 0."""
    end = _last(file, _PRINTED)
    digest = hashlib.blake2b(end, digest_size=8, key=file.tell().to_bytes(8, "big")).digest()
    file.seek(0)
    return int.from_bytes(digest, "big") or 1


def _opened(image: Any) -> BinaryIO:
    if isinstance(image, dict) and image.get("bytes") is not None:
        return io.BytesIO(image["bytes"])
    return real_path(image["path"]).open("rb")


def _ends_well(file: BinaryIO) -> bool:
    """Whether a file's header can be read and its end is that of its format; True for formats without a known end."""
    with Image.open(file) as image:
        check = _ENDS.get(image.format or "")
    return check is None or check(file)


def _last(file: BinaryIO, count: int) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - count))
    return file.read()


def _riff_is_whole(file: BinaryIO) -> bool:
    file.seek(4)
    (stated,) = struct.unpack("<I", file.read(4))
    return bool(file.seek(0, os.SEEK_END) >= stated + 8)


_ENDS: dict[str, Callable[[BinaryIO], bool]] = {
    "JPEG": lambda file: _last(file, 2) == b"\xff\xd9",
    "PNG": lambda file: _last(file, 8)[:4] == b"IEND",
    "GIF": lambda file: _last(file, 1) == b";",
    "WEBP": _riff_is_whole,
}

__all__ = ["check_readable", "unreadable_images"]
