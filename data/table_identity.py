"""Hash of a data set's rows, by which work on other rows, or on another order, is not continued."""

import hashlib
import json
from typing import Any

from datasets import Dataset

from .columns import IMAGE
from .images import real_path

_AT_ONCE = 512


def rows_identity(table: Dataset, rows: range) -> str:
    """SHA-256 hash (hexadecimal) of rows in their order.

    An image in the table is hashed by its bytes, an image in a file by the file's path, size and modification time: a
    file that is replaced by one of the same size and time is not noticed. Other columns are hashed by their content.

    Args:
        table: Table with encoded images.
        rows: Range of row numbers, without gaps.
    """
    digest = hashlib.sha256()
    for first in range(rows.start, rows.stop, _AT_ONCE):
        part = table[first : min(first + _AT_ONCE, rows.stop)]
        for number in range(len(part[IMAGE])):
            others = {name: part[name][number] for name in sorted(part) if name != IMAGE}
            digest.update(json.dumps(others, default=str).encode())
            digest.update(_image_identity(part[IMAGE][number]))
    return digest.hexdigest()


def _image_identity(image: Any) -> bytes:
    """Hash of an image's bytes, or the path, size and modification time of its file."""
    if not isinstance(image, dict):
        return repr(image).encode()
    if (content := image.get("bytes")) is not None:
        return hashlib.sha256(content).digest()
    path = str(image.get("path"))
    try:
        state = real_path(path).stat()
    except (OSError, ValueError):  # in an archive, or missing
        return path.encode("utf-8", "surrogateescape")
    return f"{path}:{state.st_size}:{state.st_mtime_ns}".encode("utf-8", "surrogateescape")


__all__ = ["rows_identity"]
