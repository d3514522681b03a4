"""Hash of a data set's rows, by which work on other rows, or on another order, is not continued."""

import base64
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from datasets import ClassLabel, Dataset, List

from .columns import IMAGE, LABEL
from .images import encoded_bytes, real_path

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


@dataclass(frozen=True)
class Fingerprint:
    """Hash of the content of a split, whatever files or tables it lies in.

    Args:
        sha256: Hash of all rows in order, hexadecimal.
        images: Number of rows.
        marks: First 4 bytes of the hash of each row, base64, by which the first row that differs is found.
    """

    sha256: str
    images: int
    marks: str

    def to_dict(self) -> dict[str, Any]:
        """Fingerprint as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Fingerprint from plain data; other entries are ignored."""
        return cls(str(content["sha256"]), int(content["images"]), str(content["marks"]))

    def first_difference(self, other: Self) -> int | None:
        """Number of the first row that differs from that of another fingerprint; None where none does."""
        own, others = (base64.b64decode(one.marks) for one in (self, other))
        rows = min(len(own), len(others)) // 4
        first = next((row for row in range(rows) if own[4 * row : 4 * row + 4] != others[4 * row : 4 * row + 4]), None)
        return first if first is not None or len(own) == len(others) else rows


def content_fingerprint(table: Dataset, names: Sequence[str] = ()) -> Fingerprint:
    """Fingerprint of a split: the bytes of each image, and its labels by name or its boxes, in order.

    An image that cannot be read counts as an empty one.

    Args:
        table: Table with encoded images.
        names: Class names, in label order, for a column "label" whose type does not hold them.
    """
    digest, marks = hashlib.sha256(), bytearray()
    for first in range(0, len(table), _AT_ONCE):
        part = table[first : first + _AT_ONCE]
        for number, image in enumerate(part[IMAGE]):
            others = {
                name: _by_name(part[name][number], table.features[name], names if name == LABEL else ())
                for name in sorted(part)
                if name != IMAGE
            }
            row = hashlib.sha256(json.dumps(others, default=str).encode())
            with suppress(OSError, ValueError):  # an unreadable image was left out of the evaluation too
                row.update(encoded_bytes(image))
            digest.update(row.digest())
            marks += row.digest()[:4]
    return Fingerprint(digest.hexdigest(), len(table), base64.b64encode(bytes(marks)).decode())


def _by_name(value: Any, feature: Any, names: Sequence[str]) -> Any:
    """Value with class numbers replaced by the names of the classes, as far as they are known."""
    if isinstance(feature, List) and isinstance(value, list):
        return [_by_name(item, feature.feature, names) for item in value]
    known = feature.names if isinstance(feature, ClassLabel) else names
    return known[value] if known and isinstance(value, int) else value


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


__all__ = ["Fingerprint", "content_fingerprint", "rows_identity"]
