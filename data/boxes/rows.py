"""Annotated images as a source has them: nothing converted, nothing checked, every value with its place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from .formats import BoxFormat


class RawObject(NamedTuple):
    """One box as it was written.

    Args:
        box: Four numbers, if all is well.
        category: Number or name of its class.
        place: The field it came from, such as "objects.bbox[3]".
        crowd: 0 or 1: whether the box holds many objects that are not told apart.
        area: Of the object in square pixels, or None.
        number: Of the annotation, or None.
    """

    box: Any
    category: Any
    place: str
    crowd: Any = 0
    area: Any = None
    number: Any = None


class RawImage(NamedTuple):
    """One image and its boxes.

    Args:
        place: File and row, for messages.
        image_id: Number or name.
        objects: Any number of them.
        declared: (width, height) in pixels as the source states them, or None.
        file: Of the image; None where a table holds it.
    """

    place: str
    image_id: Any
    objects: list[RawObject]
    declared: tuple[Any, Any] | None = None
    file: Path | None = None


@dataclass
class RawBoxSplit:
    """The images of one split.

    Args:
        images: In order.
        table: Column "image" with the encoded images in the same order, where they are in a table.
        orphans: Annotations that belong to none of the images: their places and the image ids they name.
    """

    images: list[RawImage]
    table: Dataset | None = None
    orphans: list[tuple[str, Any]] = field(default_factory=list)

    def encoded(self, row: int) -> Any:
        """An image as {"bytes", "path"}, or its file."""
        return self.images[row].file if self.table is None else self.table[row]["image"]


@dataclass
class RawBoxes:
    """A data set of boxes as it was read.

    Args:
        name: Of the source, for messages and cards.
        kind: "COCO", "Pascal VOC", "YOLO" or "objects".
        splits: By the source's own names.
        categories: Name of each class by what annotations call it, in the order of the class numbers from 0.
        usual: The format that boxes of this kind have.
        notes: What was concluded while reading.
    """

    name: str
    kind: str
    splits: dict[str, RawBoxSplit]
    categories: dict[Any, str]
    usual: BoxFormat
    notes: list[str] = field(default_factory=list)


__all__ = ["RawBoxSplit", "RawBoxes", "RawImage", "RawObject"]
