"""Identity of a data set's rows as a hash, so that work on other rows, or in another order, is not gone on with."""

import hashlib
import json
from typing import Any

from datasets import Dataset

from .columns import IMAGE
from .images import real_path

_AT_ONCE = 512


def rows_identity(table: Dataset, rows: range) -> str:
    """A hash of rows in their order.

    An image that the table holds counts by its bytes, one in a file by the file's path, size and time of change: a file
    that is replaced by one of the same size and time is not noticed. All other columns count by their content.

    Args:
        table: With encoded images.
        rows: Numbers of the rows, without gaps.
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
    """A hash of the bytes, or path, size and time of change of a file."""
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
