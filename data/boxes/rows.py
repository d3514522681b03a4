"""Annotated images as they were read, neither converted nor checked, with the location of every value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from .formats import BoxFormat


class RawObject(NamedTuple):
    """Annotation of one box, with unchecked values.

    Args:
        box: Four numbers in a valid annotation.
        category: Number or name of the class.
        place: Field that the box came from, such as "objects.bbox[3]".
        crowd: Crowd flag, 0 or 1: whether the box holds many objects that are not told apart.
        area: Area of the object in square pixels, or None.
        number: Id of the annotation, or None.
    """

    box: Any
    category: Any
    place: str
    crowd: Any = 0
    area: Any = None
    number: Any = None


class RawImage(NamedTuple):
    """Image with its annotations.

    Args:
        place: File and row, as messages name them.
        image_id: Id of the image, a number or a name.
        objects: Annotations of the image's boxes.
        declared: Size (width, height) in pixels that the annotations state, or None.
        file: File of the image; None where a table holds it.
    """

    place: str
    image_id: Any
    objects: list[RawObject]
    declared: tuple[Any, Any] | None = None
    file: Path | None = None


@dataclass
class RawBoxSplit:
    """Images of one split.

    Args:
        images: Images with their annotations, in order.
        table: Table with the encoded images in its column "image", in the same order; None where images are files.
        orphans: Location and image id of each annotation that belongs to none of the images.
    """

    images: list[RawImage]
    table: Dataset | None = None
    orphans: list[tuple[str, Any]] = field(default_factory=list)

    def encoded(self, row: int) -> Any:
        """Encoded image of a row, as {"bytes", "path"}, or its file."""
        return self.images[row].file if self.table is None else self.table[row]["image"]


@dataclass
class RawBoxes:
    """Data set of boxes as it was read.

    Args:
        name: Name of the source, for messages and model cards.
        kind: Kind of data set: "COCO", "Pascal VOC", "YOLO" or "objects".
        splits: Splits by the source's split names.
        categories: Name of each class by its id in the annotations, in the order of the class numbers from 0.
        usual: Usual box format of this kind of data set.
        notes: Remarks on how the source was interpreted.
    """

    name: str
    kind: str
    splits: dict[str, RawBoxSplit]
    categories: dict[Any, str]
    usual: BoxFormat
    notes: list[str] = field(default_factory=list)


__all__ = ["RawBoxSplit", "RawBoxes", "RawImage", "RawObject"]
