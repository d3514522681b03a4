"""COCO's metrics of a detector (https://cocodataset.org/#detection-eval), from boxes added batch by batch."""

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ....data.boxes.tables import ImageBoxes
from .detections import Detections
from .error_kinds import count_errors
from .plots import save_error_kinds, save_precision_recall

# COCO's twelve metrics in its order: average precision and average recall.
COCO_METRICS = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip


class EvaluatorMissingError(RuntimeError):
    """Error raised if neither package that computes COCO's metrics is installed."""


@dataclass
class CocoMetrics:
    """Result of COCO's evaluation.

    Args:
        stats: Metrics (12,), in the order of `COCO_METRICS`; -1 if there is nothing to measure.
        precision: Precision (10, 101, C, 4, 3) by IoU from 0.5 to 0.95, recall, class, size (all, small, medium, large)
            and largest number of detections (1, 10, 100); -1 if there is nothing to measure.
        recall: Recall (10, C, 4, 3) by IoU, class, size and largest number of detections; -1 if there is nothing to
            measure.
    """

    stats: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


@dataclass
class DetectionMetrics:
    """Found and true boxes of a split, from which the metrics are computed; memory grows with the boxes only.

    Args:
        num_labels: Number of classes C.
        found: Detections by row of the image.
        true: True boxes by row of the image.
        loss_sum: Sum of all batches' contributions to the loss.
        class_loss_sum: Share of the class terms in `loss_sum`.
    """

    headline: ClassVar[str] = "map"

    num_labels: int
    found: dict[int, Detections] = field(default_factory=dict, repr=False)
    true: dict[int, ImageBoxes] = field(default_factory=dict, repr=False)
    loss_sum: float = 0.0
    class_loss_sum: float = 0.0
    _figures: CocoMetrics | None = field(default=None, repr=False)

    @property
    def images(self) -> int:
        """Number of counted images."""
        return len(self.true)

    def update(self, rows: Sequence[int], found: Sequence[Detections], true: Sequence[ImageBoxes]) -> None:
        """Adds a batch of images; the result does not depend on how they are batched.

        Args:
            rows: Rows of the images in their split.
            found: Detections in each image.
            true: True boxes in each image, crowds included.

        Raises:
            ValueError: A class is out of range, or an image is added twice.
        """
        for row, detections, boxes in zip(rows, found, true, strict=True):
            if row in self.true:
                raise ValueError(f"row {row} (image {boxes.image_id}) was counted already")
            for name, classes in (("found", detections.classes), ("true", boxes.classes)):
                if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self.num_labels:
                    raise ValueError(
                        f"row {row} (image {boxes.image_id}): {name} classes must lie in 0 to {self.num_labels - 1}, "
                        f"got {classes.min()} to {classes.max()}"
                    )
            self.found[row], self.true[row] = detections, boxes
        self._figures = None

    def pairs(self) -> list[tuple[Detections, ImageBoxes]]:
        """Returns found and true boxes of each image, in the order of the rows."""
        return [(self.found[row], self.true[row]) for row in sorted(self.true)]

    def figures(self) -> CocoMetrics:
        """Runs COCO's evaluation on everything counted.

        Raises:
            ValueError: No image was counted.
            EvaluatorMissingError: No evaluator is installed.
        """
        if not self.true:
            raise ValueError("no image was counted")
        if self._figures is None:
            self._figures = coco_metrics(self.pairs(), self.num_labels)
        return self._figures

    def compute(self) -> dict[str, float | None]:
        """Returns COCO's twelve metrics by name, in [0, 1]; None, instead of COCO's -1, for nothing to measure."""
        stats = self.figures().stats
        return {name: _measured(value) for name, value in zip(COCO_METRICS, stats, strict=True)}

    def per_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Lists per class the number of boxes, AP over IoU 0.5 to 0.95, at 0.5 and at 0.75, and recall."""
        figures = self.figures()
        counts = np.zeros(self.num_labels, dtype=np.int64)
        for boxes in self.true.values():
            counts += np.bincount(boxes.classes[~boxes.crowd], minlength=self.num_labels)
        rows = []
        for number, name in enumerate(names):
            precision, recall = figures.precision[:, :, number, 0, 2], figures.recall[:, number, 0, 2]
            rows.append(
                {
                    "label": name,
                    "boxes": int(counts[number]),
                    "map": _mean(precision),
                    "map_50": _mean(precision[0]),
                    "map_75": _mean(precision[5]),
                    "mar_100": _mean(recall),
                }
            )
        return rows

    def curves(self, iou: float = 0.5) -> np.ndarray:
        """Returns precision at each of `RECALLS` per class, (C, 101); NaN for a class without boxes.

        Args:
            iou: Lowest IoU at which a box counts as found, 0.5 to 0.95 in steps of 0.05.
        """
        step = (iou - 0.5) / 0.05
        if not -1e-9 < step < 9 + 1e-9 or abs(step - round(step)) > 1e-6:
            raise ValueError(f"`iou` must be 0.5 to 0.95 in steps of 0.05, got {iou!r}")
        precision = self.figures().precision[round(step), :, :, 0, 2].T
        return np.where(precision < 0, np.nan, precision)

    def tensors(self) -> list[torch.Tensor]:
        """Returns everything counted as tensors, for a file or another process; see `load`."""
        rows = sorted(self.true)
        found = [
            np.column_stack([np.full(len(d), row), d.classes, d.scores, d.boxes]) for row in rows
            for d in [self.found[row]]
        ]  # fmt: skip
        true = [
            np.column_stack([np.full(len(b), row), b.classes, b.crowd, b.area, b.boxes]) for row in rows
            for b in [self.true[row]]
        ]  # fmt: skip
        sizes = [[row, self.true[row].width, self.true[row].height] for row in rows]
        ids = "\0".join(self.true[row].image_id for row in rows).encode()
        return [
            torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3),
            torch.from_numpy(np.concatenate(found) if found else np.empty((0, 7))),
            torch.from_numpy(np.concatenate(true) if true else np.empty((0, 8))),
            torch.frombuffer(bytearray(ids), dtype=torch.uint8) if ids else torch.empty(0, dtype=torch.uint8),
            torch.tensor([self.loss_sum, self.class_loss_sum], dtype=torch.float64),
        ]

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the counts by tensors in the form of `tensors`."""
        self.found, self.true, self._figures = {}, {}, None
        self.loss_sum = self.class_loss_sum = 0.0
        self.add(tensors)

    def merge(self, accelerator: Accelerator) -> None:
        """Merges the counts of all processes, in every process."""
        del accelerator  # boxes are gathered as objects
        parts = gather_object([self.tensors()])
        self.load(parts[0])
        for tensors in parts[1:]:
            self.add(tensors)

    def measurements(self, names: list[str]) -> dict[str, Any]:
        """Returns metrics per class and kinds of errors, for `metrics.json`."""
        errors = count_errors(self.pairs(), self.num_labels)
        return {"per_class": self.per_class(names), "errors": errors.to_dict(names)}

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes `precision_recall.png` and `errors.png`."""
        save_precision_recall(self.curves(), names, folder / "precision_recall.png")
        save_error_kinds(count_errors(self.pairs(), self.num_labels), names, folder / "errors.png")

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Adds the `tensors` of another process; images that are counted already are ignored."""
        sizes, found, true, ids, loss = (tensor.cpu().numpy() for tensor in tensors)
        names = ids.tobytes().decode().split("\0")
        for (row, width, height), name in zip(sizes.tolist(), names, strict=True) if len(sizes) else ():
            if row in self.true:
                continue
            own, boxes = found[found[:, 0] == row], true[true[:, 0] == row]
            self.found[row] = Detections(own[:, 3:], own[:, 2], own[:, 1].astype(np.int64))
            self.true[row] = ImageBoxes(
                name, width, height, boxes[:, 4:], boxes[:, 1].astype(np.int64), boxes[:, 2] > 0, boxes[:, 3]
            )
        self.loss_sum += float(loss[0])
        self.class_loss_sum += float(loss[1])
        self._figures = None


def coco_metrics(pairs: Sequence[tuple[Detections, ImageBoxes]], num_labels: int) -> CocoMetrics:
    """Runs COCO's evaluation with faster-coco-eval, or with pycocotools if only that is installed.

    Ids are assigned anew from 1: COCO's code treats an annotation with id 0 as unmatched.

    Args:
        pairs: Found and true boxes of each image.
        num_labels: Number of classes C.

    Raises:
        EvaluatorMissingError: Neither package is installed.
    """
    coco_class, evaluation_class, options = _evaluator()
    images = [{"id": n, "width": b.width, "height": b.height} for n, (_, b) in enumerate(pairs, 1)]
    categories = [{"id": number + 1, "name": str(number)} for number in range(num_labels)]
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (found, boxes) in enumerate(pairs, 1):
        truths += [
            {"image_id": image, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": int(crowd)}
            for c, b, a, crowd in zip(
                boxes.classes.tolist(), _xywh(boxes.boxes), boxes.area.tolist(), boxes.crowd.tolist(), strict=True
            )
        ]
        results += [
            {"image_id": image, "category_id": c + 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0, "score": s}
            for c, b, s in zip(found.classes.tolist(), _xywh(found.boxes), found.scores.tolist(), strict=True)
        ]
    for entries in (truths, results):
        for number, entry in enumerate(entries, 1):
            entry["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout
        sides = []
        for entries in (truths, results):
            side = coco_class()
            side.dataset = {"info": {}, "images": images, "categories": categories, "annotations": entries}
            side.createIndex()
            sides.append(side)
        evaluation = evaluation_class(*sides, **options)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    shape = (10, 101, num_labels, 4, 3)
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"], dtype=np.float64).reshape(10, num_labels, 4, 3)
    return CocoMetrics(np.asarray(evaluation.stats, dtype=np.float64)[:12], precision, recall)


def require_evaluator() -> None:
    """Raises an `EvaluatorMissingError` where no package computes COCO's figures: before a training, not after it."""
    _evaluator()


def _evaluator() -> tuple[Any, Any, dict[str, Any]]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        pass
    else:
        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
        return COCO, COCOeval_faster, {"iouType": "bbox"}
    try:
        from pycocotools import coco, cocoeval
    except ImportError as error:
        raise EvaluatorMissingError("COCO's figures need faster-coco-eval: pip install 'vithub[detection]'") from error
    return coco.COCO, cocoeval.COCOeval, {"iouType": "bbox"}


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    rows: list[list[float]] = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    return rows


def _measured(value: float) -> float | None:
    return None if value < 0 else float(value)


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


__all__ = [
    "COCO_METRICS",
    "CocoMetrics",
    "DetectionMetrics",
    "EvaluatorMissingError",
    "coco_metrics",
    "require_evaluator",
]
