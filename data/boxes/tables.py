"""A data set of checked boxes: images upright, boxes as corners in pixels, classes numbered from 0."""

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
    """The boxes of one image.

    Args:
        image_id: Of the image, as text.
        width: In pixels, of the upright image.
        height: Likewise.
        boxes: (n, 4) fp64, left, top, right, bottom in pixels of the upright image; x in [0, width].
        classes: (n,) int64, from 0.
        crowd: (n,) bool: boxes of many objects that are not told apart; not learned, and not counted when missed.
        area: (n,) fp64, square pixels of the object, of the box where it was not given.
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
        """From a row of a table with the columns of `BOX_FEATURES`."""
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
        """Of an image without boxes."""
        empty = np.empty(0)
        return cls(
            image_id, width, height, np.empty((0, 4)), empty.astype(np.int64), empty.astype(bool), empty
        )  # fmt: skip

    def to_row(self) -> dict[str, Any]:
        """As a row of a table, without the image."""
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
    """The classes of a data set.

    Args:
        names: In the order of their numbers.
        source_ids: What the source calls each; COCO's ids have gaps.
        integer_image_ids: Whether the source's image ids are whole numbers.
    """

    names: tuple[str, ...]
    source_ids: tuple[Any, ...]
    integer_image_ids: bool = False


@dataclass
class BoxData(SplitTables):
    """Images with boxes, in splits.

    Args:
        name: Of the source.
        classes: Names and the source's ids.
        train: A table with the columns of `BOX_TABLE`.
        validation: What the best epoch is chosen on.
        test: What is looked at once, at the end; None where the source has none and none was drawn.
        notes: What a reader of the results should know.
        reading: The kind of source, and what the numbers of a box are there.
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
        """Boxes in each split, crowds left out."""
        return {name: sum(len(row) - sum(row) for row in table["crowd"]) for name, table in self.splits.items()}

    @property
    def id2label(self) -> dict[int, str]:
        """Names by number."""
        return dict(enumerate(self.classes.names))

    def most_boxes(self) -> int:
        """Boxes of the fullest training image, crowds left out: what a model needs queries for."""
        return max((len(row) - sum(row) for row in self.train["crowd"]), default=0)


__all__ = ["BOX_FEATURES", "BOX_TABLE", "BoxClasses", "BoxData", "ImageBoxes"]
