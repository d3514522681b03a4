"""Data set of checked boxes: images upright, boxes as corners in pixels, classes numbered from 0."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value

from ..splits import SplitTables

BOX_FEATURES = Features(
    {
        "image_id": Value("string"),
        "width": Value("int64"),
        "height": Value("int64"),
        "boxes": List(List(Value("float64"))),
        "classes": List(Value("int64")),
        "crowd": List(Value("bool")),
        "area": List(Value("float64")),
    }
)
BOX_TABLE = Features({"image": Image(decode=False), **BOX_FEATURES})


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes of one image.

    Args:
        image_id: Id of the image, as text.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        boxes: Boxes (n, 4) fp64: left, top, right, bottom in pixels of the upright image; x in [0, width].
        classes: Class numbers (n,) int64, from 0.
        crowd: Crowd flags (n,) bool: a crowd holds many objects that are not told apart; it is not trained on, and
            not counted when missed.
        area: Areas of the objects (n,) fp64 in square pixels; those of the boxes where they were not given.
    """

    image_id: str
    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "ImageBoxes":
        """Boxes from a row of a table with the columns of `BOX_FEATURES`."""
        return cls(
            row["image_id"],
            row["width"],
            row["height"],
            np.asarray(row["boxes"], dtype=np.float64).reshape(-1, 4),
            np.asarray(row["classes"], dtype=np.int64),
            np.asarray(row["crowd"], dtype=bool),
            np.asarray(row["area"], dtype=np.float64),
        )

    @classmethod
    def none(cls, image_id: str, width: int, height: int) -> "ImageBoxes":
        """Boxes of an image that has none."""
        empty = np.empty(0)
        return cls(
            image_id, width, height, np.empty((0, 4)), empty.astype(np.int64), empty.astype(bool), empty
        )  # fmt: skip

    def to_row(self) -> dict[str, Any]:
        """Row of a table with the columns of `BOX_FEATURES`."""
        return {
            "image_id": self.image_id,
            "width": self.width,
            "height": self.height,
            "boxes": self.boxes.tolist(),
            "classes": self.classes.tolist(),
            "crowd": self.crowd.tolist(),
            "area": self.area.tolist(),
        }


@dataclass(frozen=True)
class BoxClasses:
    """Classes of a data set.

    Args:
        names: Class names, in the order of their numbers.
        source_ids: Source's id of each class; the ids of COCO have gaps.
        integer_image_ids: Whether the source's image ids are integers.
    """

    names: tuple[str, ...]
    source_ids: tuple[Any, ...]
    integer_image_ids: bool = False


@dataclass
class BoxData(SplitTables):
    """Data set of images with boxes, in splits with the columns of `BOX_TABLE`.

    Args:
        name: Name of the source.
        classes: Class names, and the source's ids.
        train: Training split.
        validation: Validation split, on which the best epoch is chosen.
        test: Test split, which is evaluated once at the end; None where the source has none and none was drawn.
        notes: Remarks for readers of the results.
        reading: Kind of source, and the format in which its boxes were read.
        drawn: Names of the splits that were drawn from the training split.
    """

    name: str
    classes: BoxClasses
    train: Dataset
    validation: Dataset
    test: Dataset | None
    notes: list[str] = field(default_factory=list)
    reading: str = ""
    drawn: frozenset[str] = frozenset()

    @property
    def boxes(self) -> dict[str, int]:
        """Number of boxes in each split, without crowds."""
        return {name: sum(len(row) - sum(row) for row in table["crowd"]) for name, table in self.splits.items()}

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by number."""
        return dict(enumerate(self.classes.names))

    def most_boxes(self) -> int:
        """Number of boxes in the fullest training image, without crowds: the queries that a model needs."""
        return max((len(row) - sum(row) for row in self.train["crowd"]), default=0)


__all__ = ["BOX_FEATURES", "BOX_TABLE", "BoxClasses", "BoxData", "ImageBoxes"]
