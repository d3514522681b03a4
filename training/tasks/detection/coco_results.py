"""Detections in COCO's results format (https://cocodataset.org/#format-results), with the ids of their data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....data.boxes.tables import BoxClasses
from ....data.text.json_text import json_text
from .detections import Detections


def coco_results(image_ids: Sequence[str], found: Sequence[Detections], classes: BoxClasses) -> list[dict[str, Any]]:
    """Makes one entry per box: `image_id`, `category_id`, `bbox` (left, top, width, height in pixels) and `score`.

    Ids are those of the source, as integers if the source has integers. If the source names classes by text, the
    category id is the class number plus 1.

    Args:
        image_ids: Ids of the images.
        found: Detections in each image.
        classes: Classes of the data set, to which the class numbers refer.
    """
    categories = category_ids(classes)
    return [
        {
            "image_id": int(image_id) if classes.integer_image_ids else image_id,
            "category_id": categories[number],
            "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
            "score": round(score, 6),
        }
        for image_id, detections in zip(image_ids, found, strict=True)
        for (left, top, right, bottom), score, number in zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True
        )
    ]


def category_ids(classes: BoxClasses) -> list[int]:
    """Returns COCO's id of each class."""
    whole = all(isinstance(key, int) for key in classes.source_ids)
    return [key if whole else number + 1 for number, key in enumerate(classes.source_ids)]


def save_coco_results(entries: Sequence[dict[str, Any]], file: Path) -> None:
    """Writes entries as JSON for COCO's tools, one per line."""
    lines = ",\n".join(json_text(entry) for entry in entries)
    file.write_text(f"[{lines}]\n", encoding="utf-8")


__all__ = ["category_ids", "coco_results", "save_coco_results"]
