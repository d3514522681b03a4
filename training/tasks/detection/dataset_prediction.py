"""Predictions of a detector for the images of a data set, as rows of a table and in COCO's results format."""

import logging
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from ....data.argument_names import argument
from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages, collate_boxes
from ....data.boxes.images import read_box_images
from ....data.boxes.tables import BoxClasses
from ....data.text.json_text import json_text
from ....data.whole_files import whole_file
from ....hub.ready_model import Backend
from ...runtime.loading_processes import outlive_requests
from ...runtime.progress import Reporter
from ..evaluation import useful_workers
from ..tiling import Tiling
from .coco_results import category_ids
from .detections import Detections
from .evaluation import IMAGES_PER_WORKER, MOST_AT_ONCE, Answers
from .loading import load_detector
from .tiles.pictures import PICTURE, TiledAnswers, TiledImages, images_for

logger = logging.getLogger("vithub")
RESULTS = "predictions.json"
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "image": pa.string(),
        "image_id": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "boxes": pa.list_(pa.list_(pa.float32())),
        "labels": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "error": pa.string(),
    }
)


class BoxPredictor:
    """Predictor that turns rows of a data set into rows of boxes, the highest scores first.

    Columns: `row`, `image` (file name, if there is one), `image_id`, `width` and `height` (pixels of the upright
    image), `boxes` (left, top, right, bottom in these pixels), `labels`, `scores` (0 to 1), and `error` (set if an
    image could not be decoded; then all columns except the first three are null).

    Args:
        path: Folder of the detector.
        data: Data set with or without boxes; see `read_box_images`.
        threshold: Lowest score of a box, in [0, 1].
        skip_bad: Whether to accept images that cannot be decoded.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
        tiling: Way to look at large pictures in tiles; None looks at all as a whole.
    """

    def __init__(
        self, path: Path, data: Any, threshold: float, skip_bad: bool, backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= threshold <= 1:
            raise ValueError(f"{argument('threshold')} must lie in [0, 1], got {threshold!r}")
        found = read_box_images(data)
        self.splits, self.data, self.classes = found.tables, found.name, found.classes
        self.model, self.processor = load_detector(path, backend=backend)
        self.threshold, self.skip_bad, self.tiling = threshold, skip_bad, tiling
        id2label = self.model.config.id2label
        self.labels = [str(id2label[number]) for number in sorted(id2label)]
        self.categories = dict(zip(self.labels, categories_for(self.labels, self.classes), strict=True))
        named = [{"id": number, "name": name} for name, number in self.categories.items()]
        self.about = {"labels": self.labels, "threshold": threshold, "categories": named}
        if tiling is not None:
            self.about["tiles"] = tiling.to_dict()

    def open(self, split: str, device: torch.device) -> BoxImages:
        """Returns the images of a split and moves the model to its device."""
        self.model.to(device)
        transform = BoxEvaluationTransform(self.processor)
        self.images = images_for(self.splits[split], transform, self.tiling, split, self.skip_bad)
        self.answer = Answers(self.model, self.images, self.processor, range(len(self.labels)))
        if isinstance(self.images, TiledImages):
            self.tiled = TiledAnswers(self.answer, self.images, None)
        return self.images

    def tables(self, rows: range, batch_size: int, workers: int, reporter: Reporter) -> Iterator[pa.Table]:
        """Yields one table per batch."""
        size = min(batch_size, MOST_AT_ONCE)
        batches = [list(rows[first : first + size]) for first in range(0, len(rows), size)]
        loader: DataLoader[Any] = DataLoader(
            self.images,
            batch_sampler=batches,
            num_workers=useful_workers(workers, len(rows), IMAGES_PER_WORKER),
            collate_fn=list,
            worker_init_fn=outlive_requests,
        )
        for numbers, samples in zip(batches, loader, strict=True):
            yield self._table(numbers, samples)
            reporter.advance(len(numbers))

    @torch.inference_mode()
    def _table(self, rows: list[int], samples: Sequence[dict[str, Any]]) -> pa.Table:
        """Evaluates images of one shape together: without padding, results do not depend on the rest of the batch."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, sample in enumerate(samples):
            if int(sample.get("bad", -1)) < 0:
                alone = (place,) if PICTURE in sample else ()
                by_shape.setdefault((*sample["pixel_values"].shape, *alone), []).append(place)
        found: dict[int, Detections] = {}
        for places in by_shape.values():
            batch = self.images.finish(collate_boxes([samples[place] for place in places]), self.answer.device)
            if PICTURE in batch:
                found[places[0]] = self.tiled(batch, self.threshold)
                continue
            answers, _ = self.answer(batch)
            found |= zip(places, (one.above(self.threshold) for one in answers), strict=True)
        entries = [
            self._entry(row, sample["target"], found.get(place))
            for place, (row, sample) in enumerate(zip(rows, samples, strict=True))
        ]
        return pa.Table.from_pylist(entries, schema=SCHEMA)

    def _entry(self, row: int, target: dict[str, Any], found: Detections | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"row": row, "image": self.images.file(row), "image_id": target["image_id"]}
        if found is None:
            return {**entry, "error": "could not be decoded"}
        height, width = target["orig_size"].tolist()
        return {
            **entry,
            "width": width,
            "height": height,
            "boxes": found.boxes.tolist(),
            "labels": [self.labels[number] for number in found.classes],
            "scores": found.scores.tolist(),
        }

    def finish(self, files: list[Path]) -> None:
        """Writes `predictions.json`, all boxes in COCO's results format with the ids of the data set."""
        whole = self.classes is None or self.classes.integer_image_ids
        if self.tiling is not None:
            self._note_fits(files, self.tiling)
        target = files[0].with_name(RESULTS)
        with whole_file(target) as staging, staging.open("w", encoding="utf-8") as content:
            separator = "["
            for file in files:
                for entry in _coco_entries(pq.read_table(file), self.categories, whole):
                    content.write(separator + json_text(entry))
                    separator = ",\n"
            content.write("[]\n" if separator == "[" else "]\n")

    def _note_fits(self, files: list[Path], tiling: Tiling) -> None:
        """Says how many pictures were looked at as without tiles."""
        sizes = [size for file in files for size in _sizes(pq.read_table(file, columns=["height", "width"]))]
        if note := tiling.fit_note(sum(tiling.fits(*size) for size in sizes), len(sizes)):
            logger.warning("%s", note)


def _sizes(table: pa.Table) -> Iterator[tuple[int, int]]:
    rows = zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True)
    return ((height, width) for height, width in rows if height is not None)


def _coco_entries(table: pa.Table, categories: dict[str, int], whole: bool) -> Iterator[dict[str, Any]]:
    for row in table.to_pylist():
        image_id = int(row["image_id"]) if whole else row["image_id"]
        for (left, top, right, bottom), label, score in zip(
            row["boxes"] or (), row["labels"] or (), row["scores"] or (), strict=True
        ):
            yield {
                "image_id": image_id,
                "category_id": categories[label],
                "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                "score": round(score, 6),
            }


def categories_for(labels: Sequence[str], classes: BoxClasses | None) -> list[int]:
    """Returns COCO's id of each label of a model: the data's id if it has the class, else the next free id."""
    known = {} if classes is None else dict(zip(classes.names, category_ids(classes), strict=True))
    free = count(max(known.values(), default=0) + 1)
    return [known[label] if label in known else next(free) for label in labels]


__all__ = ["RESULTS", "SCHEMA", "BoxPredictor", "categories_for"]
