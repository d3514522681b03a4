"""Report on the content and the faults of labelled photos, as `vithub check-data` prints and saves it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..text.json_text import json_text
from .content import PhotoInspection, SplitContent

LISTED = 1000  # labels in the ranking of the saved report


@dataclass
class DoubtfulLabel:
    """Label in a ranking by doubt.

    Args:
        number: Number of the image in the inspection's `rows`.
        label: Its label.
        suggested: Most probable class by a classifier that has not seen the image.
        probability: Probability of the label by that classifier, in [0, 1].
        doubtful: Whether the label is likely wrong.
    """

    number: int
    label: str
    suggested: str
    probability: float
    doubtful: bool


@dataclass
class PhotoReport:
    """Report on checked photos: counts, faults and, with a model, labels ranked by doubt.

    Args:
        checked: Result of the inspection.
        model: Name of the model whose embeddings were used; None without one.
        ranking: Labels by doubt, the most doubtful first; empty without a model.
    """

    checked: PhotoInspection
    model: str | None = None
    ranking: list[DoubtfulLabel] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """True if no fault is an error, so that the data set can be trained on as it is."""
        return not self.checked.faults.total("error")

    def splits(self) -> list[dict[str, Any]]:
        """Counts of each split, the range of its image sizes in pixels, its colour modes and file formats."""
        rows = self.checked.rows
        split = np.asarray(rows.split)
        width, height = np.asarray(rows.width), np.asarray(rows.height)
        return [
            _split(name, content, width[split == number], height[split == number])
            for number, (name, content) in enumerate(self.checked.content.items())
        ]

    def classes(self) -> list[dict[str, Any]]:
        """Number and name of each class, with its number of images in each split."""
        content = self.checked.content
        return [
            {"number": number, "name": name, "images": {split: one.classes[name] for split, one in content.items()}}
            for number, name in enumerate(self.checked.classes)
        ]

    def faults(self, examples: int = 3) -> list[dict[str, Any]]:
        """Severity, description, count and some examples of each kind of fault, most severe kinds first."""
        return self.checked.faults.by_kind(examples)

    def labels_by_doubt(self, most: int | None = None) -> list[dict[str, Any]]:
        """Labels ranked by doubt, the most doubtful first, with split, row and place of their images."""
        found = []
        for one in self.ranking[:most]:
            split, row, place = self.checked.place(one.number)
            found.append(
                {
                    "split": split, "row": row, "place": place, "label": one.label, "suggested": one.suggested,
                    "probability": round(one.probability, 6), "doubtful": one.doubtful,
                }
            )  # fmt: skip
        return found

    def to_dict(self) -> dict[str, Any]:
        """Whole report as plain data, with the 1,000 most doubtful labels."""
        source = self.checked.source
        return {
            "name": source.name, "kind": source.kind, "usable": self.usable, "splits": self.splits(),
            "classes": self.classes(), "faults": self.faults(self.checked.faults.examples), "notes": source.notes,
            "model": self.model, "doubtful_labels": sum(one.doubtful for one in self.ranking),
            "labels_by_doubt": self.labels_by_doubt(LISTED),
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Writes `report.json`, and `report.html`: one page with thumbnails of the images at fault."""
        from .page import report_page

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json_text(self.to_dict(), indent=1, default=str) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(report_page(self), encoding="utf-8")


def _split(name: str, content: SplitContent, width: np.ndarray, height: np.ndarray) -> dict[str, Any]:
    return {
        "split": name,
        "images": content.images,
        "unreadable": content.unreadable,
        "classes": sum(1 for count in content.classes.values() if count),
        "width": [int(width.min()), int(width.max())] if len(width) else [0, 0],
        "height": [int(height.min()), int(height.max())] if len(height) else [0, 0],
        "modes": _ordered(content.modes),
        "formats": _ordered(content.formats),
    }


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


__all__ = ["LISTED", "DoubtfulLabel", "PhotoReport"]
