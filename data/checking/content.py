"""Content of a data set of labelled photos as an inspection finds it, in little memory per image."""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..boxes.faults import FaultLog
from ..sources import DataError
from ..splits import find_splits
from .kinds import PHOTO_KINDS
from .photos import Photos


@dataclass
class SplitContent:
    """Content of a split.

    Args:
        images: Number of rows.
        unreadable: Number of images that cannot be decoded.
        classes: Number of images of each class.
        modes: Number of images of each colour mode.
        formats: Number of images of each file format.
    """

    images: int = 0
    unreadable: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)


@dataclass
class Rows:
    """Some 50 bytes about each readable image, of all splits one after the other.

    Args:
        split: Number of the split.
        row: Number of the row in its split.
        label: Number of the set of labels in `label_sets`; -1 for an image without a usual label.
        width: Width in pixels.
        height: Height in pixels.
        digests: Two numbers per image, the hash of its bytes.
        phash: Perceptual hash; 0 where `hashed` is 0.
        hashed: 1 where there is a perceptual hash, else 0.
    """

    split: Any = field(default_factory=lambda: array("H"))
    row: Any = field(default_factory=lambda: array("Q"))
    label: Any = field(default_factory=lambda: array("l"))
    width: Any = field(default_factory=lambda: array("L"))
    height: Any = field(default_factory=lambda: array("L"))
    digests: Any = field(default_factory=lambda: array("Q"))
    phash: Any = field(default_factory=lambda: array("Q"))
    hashed: Any = field(default_factory=lambda: array("B"))

    def __len__(self) -> int:
        return len(self.row)


@dataclass
class PhotoInspection:
    """Result of inspecting a data set.

    Args:
        source: Data set as it was opened.
        content: Content of each split.
        faults: Log of all faults.
        rows: What is known of each readable image.
        label_sets: Labels by the numbers in `rows`.
        embeddings: Embedding of each readable image, float16 (N, D); None without a model.
    """

    source: Photos
    content: dict[str, SplitContent] = field(default_factory=dict)
    faults: FaultLog = field(default_factory=lambda: FaultLog(kinds=PHOTO_KINDS))
    rows: Rows = field(default_factory=Rows)
    label_sets: list[tuple[str, ...]] = field(default_factory=list)
    embeddings: np.ndarray | None = None

    @property
    def split_names(self) -> list[str]:
        """Names of the splits, in the order of their numbers."""
        return list(self.source.splits)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of their numbers."""
        if self.source.classes is not None:
            return list(self.source.classes)
        return sorted({name for content in self.content.values() for name in content.classes})

    def place(self, number: int) -> tuple[str, int, str]:
        """Split, row and place, as messages name it, of an image by its number in `rows`."""
        split, row = self.split_names[self.rows.split[number]], int(self.rows.row[number])
        return split, row, self.source.splits[split].place(row)

    def label_text(self, number: int) -> str:
        """Labels of an image by its number in `rows`, as text."""
        label = self.rows.label[number]
        return ", ".join(self.label_sets[label]) if label >= 0 else ""

    def add(
        self, kind: str, number: int, message: Callable[[], str], value: Any = None, other: int | None = None
    ) -> None:
        """Adds a fault of an image, by its number in `rows`; places and messages are made for kept faults alone."""
        if self.faults.counts[kind] >= self.faults.examples:
            self.faults.add(kind, "", "", value)
            return
        split, row, place = self.place(number)
        partner = None
        if other is not None:
            partner = (self.split_names[self.rows.split[other]], int(self.rows.row[other]))
        shown = self.label_text(number) if value is None else value
        self.faults.add(kind, split, place, shown, message(), row=row, other=partner)


def training_split(source: Photos) -> tuple[str | None, bool]:
    """Name of the training split, None where no split has such a name, and whether others will be drawn from it."""
    try:
        found = find_splits({name: name for name in source.splits}, {})
    except DataError:
        return None, False
    return found["train"], "validation" not in found


__all__ = ["PhotoInspection", "Rows", "SplitContent", "training_split"]
