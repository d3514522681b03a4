"""Kinds of faults in data sets of boxes, and a log that counts them and keeps examples."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "repairable", "warning", "note"]

# Severity and description of each kind. Errors stop training; repairable faults do so unless repairs are allowed.
KINDS: dict[str, tuple[Severity, str]] = {
    "bad image": ("error", "the image is missing or cannot be decoded"),
    "image size": ("error", "the annotation states another width and height than the image has"),
    "exif rotation": ("error", "EXIF turns the image and nothing says which pixels the boxes are on"),
    "turned boxes": ("note", "boxes on the stored pixels were turned with the image, as EXIF says"),
    "box format": ("error", "the boxes are in another format than they should be"),
    "swapped axes": ("error", "x and y are swapped"),
    "ambiguous format": ("warning", "the boxes fit more than one format"),
    "not a box": ("error", "a box must be four finite numbers"),
    "wrong unit": ("error", "the box is in another unit than the others"),
    "degenerate box": ("repairable", "the box has no width or no height"),
    "box outside": ("repairable", "the box lies outside its image"),
    "box partly outside": ("repairable", "the box reaches beyond its image"),
    "rounded box": ("note", "the box reached beyond its image by a rounding error and was cut"),
    "class id": ("error", "there is no such class"),
    "class ids from 1": ("error", "the class ids count from 1 where the names count from 0"),
    "text id": ("note", "an id was written as text, and taken for the number"),
    "crowd": ("error", "a crowd flag must be 0 or 1"),
    "area": ("error", "an area must be a positive number"),
    "large area": ("warning", "the area is larger than the box"),
    "missing area": ("note", "no area was given; that of the box was taken"),
    "too many boxes": ("error", "the image has more boxes than the model has queries"),
    "duplicate box": ("warning", "the same box of the same class is in the image twice"),
    "duplicate image id": ("error", "two images have the same id"),
    "missing image id": ("error", "the image has no id"),
    "duplicate annotation id": ("warning", "two annotations have the same id"),
    "annotation id 0": ("note", "pycocotools takes an annotation of id 0 for unmatched; here ids are given anew"),
    "orphan": ("error", "the annotation names an image that is not there"),
    "unused class": ("warning", "no box has the class"),
    "duplicate class name": ("error", "two classes have the same name"),
    "no boxes": ("error", "no image to train on has a box"),
    "same image twice": ("error", "the same image is in two splits, or twice in one that will be divided"),
    "repeated image": ("warning", "the same image is in its split twice"),
}


@dataclass(frozen=True)
class Fault:
    """One fault of a data set.

    Args:
        kind: Kind of fault, a key of `KINDS`.
        split: Name of the split.
        place: Location of the fault: file, row and field.
        value: Faulty value.
        message: Description of the fault, and of what would be right.
        row: Row of the image within the split; None where the fault is not of one image.
        box: Corners left, top, right, bottom in pixels of the upright image; None where there is no box to draw.
        severity: Severity of the fault's kind.
        other: Split and row of a second image that the fault concerns, such as a duplicate; None where there is none.
    """

    kind: str
    split: str
    place: str
    value: Any
    message: str
    row: int | None = None
    box: tuple[float, ...] | None = None
    severity: Severity = "error"
    other: tuple[str, int] | None = None

    def __str__(self) -> str:
        return f"split {self.split!r}, {self.place} is {_short(self.value)}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Fault as plain data, for JSON."""
        return {
            "kind": self.kind, "severity": self.severity, "split": self.split, "place": self.place,
            "value": self.value if isinstance(self.value, int | float | str | None) else _short(self.value),
            "message": self.message, "text": str(self),
        }  # fmt: skip


@dataclass
class FaultLog:
    """Log of faults: the count of each kind, and its first examples.

    Args:
        examples: Number of faults of each kind that are kept.
        counts: Number of faults by kind.
        found: Kept faults, in the order in which they were found.
        kinds: Severity and description of each kind; by default those of boxes.
    """

    examples: int = 20
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Fault] = field(default_factory=list)
    kinds: Mapping[str, tuple[Severity, str]] = field(default_factory=lambda: KINDS)

    def add(
        self,
        kind: str,
        split: str,
        place: str,
        value: Any,
        message: str | None = None,
        row: int | None = None,
        box: Any = None,
        other: tuple[str, int] | None = None,
    ) -> None:
        """Adds a fault; without a `message` it has the description of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= self.examples:
            corners = None if box is None else tuple(float(value) for value in box)
            severity, description = self.kinds[kind]
            self.found.append(Fault(kind, split, place, value, message or description, row, corners, severity, other))

    def of(self, *severities: Severity) -> list[Fault]:
        """Kept faults of the given severities."""
        return [fault for fault in self.found if fault.severity in severities]

    def by_kind(self, examples: int = 3) -> list[dict[str, Any]]:
        """Severity, description, count and some examples of each kind of fault, most severe kinds first."""
        rank = {"error": 0, "repairable": 1, "warning": 2, "note": 3}
        return [
            {
                "kind": kind, "severity": self.kinds[kind][0], "what": self.kinds[kind][1], "count": self.counts[kind],
                "examples": [fault.to_dict() for fault in self.of_kind(kind)[:examples]],
            }
            for kind in sorted(self.counts, key=lambda kind: (rank[self.kinds[kind][0]], -self.counts[kind]))
        ]  # fmt: skip

    def of_kind(self, kind: str) -> list[Fault]:
        """Kept faults of a kind."""
        return [fault for fault in self.found if fault.kind == kind]

    def total(self, *severities: Severity) -> int:
        """Number of faults of the given severities, including those not kept."""
        return sum(count for kind, count in self.counts.items() if self.kinds[kind][0] in severities)


def _short(value: Any, longest: int = 80) -> str:
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


__all__ = ["KINDS", "Fault", "FaultLog", "Severity"]
