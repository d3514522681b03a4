"""Evaluation of a saved detector on images with boxes, as `vithub evaluate` runs and shows it."""

import logging
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages
from ....data.boxes.loading import load_box_data
from ....data.boxes.tables import BoxClasses
from ....data.images import decode_image
from ....data.sources import DataError
from ....data.splits import check_split
from ....data.text.terminal_text import visible
from ....hub.ready_model import Backend
from ...recipe.run_data import run_data
from ..evaluation import Evaluation
from ..plots import save_confusion_matrix
from ..tiling import Tiling
from .coco_results import coco_results, save_coco_results
from .error_kinds import DetectionErrors, count_errors
from .evaluation import BoxEvaluator
from .loading import load_detector
from .metrics import DetectionMetrics, require_evaluator
from .plots import save_detections, save_error_kinds, save_precision_recall
from .tiles.pictures import TiledEvaluator, TiledImages, images_for

logger = logging.getLogger("vithub")
SAMPLES = 6  # number of images drawn with their boxes


class SavedDetector:
    """Detector with the images with boxes to evaluate it on.

    Args:
        path: Folder of the model.
        data: Data set in any form that `finetune` takes; None takes the run's training data.
        split: Name of the split; None takes "test" if it exists, else "validation".
        label_column: Name of the column of objects; None finds it.
        skip_bad: Whether images that cannot be decoded are left out.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
        tiling: Way to look at large pictures in tiles; None looks at all as a whole.

    Raises:
        DataError: The data cannot be used, or has a class that the model does not know.
    """

    def __init__(
        self,
        path: Path,
        data: Any,
        split: str | None,
        label_column: str | None,
        skip_bad: bool,
        backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> None:
        self.skip_bad, self.tiling = skip_bad, tiling
        require_evaluator()
        self.model, self.processor = load_detector(path, backend=backend)
        boxes = load_box_data(**_source(path, data, skip_bad, label_column))
        self.split = split or boxes.reported
        check_split(self.split, boxes.splits, boxes.name)
        self.data, self.classes = boxes.name, boxes.classes
        self.to_data = class_numbers(boxes.classes.names, self.model.config.id2label)
        self.rows = boxes.splits[self.split]
        self.images = self._images()
        if tiling is not None:
            fitting = sum(map(tiling.fits, self.rows["height"], self.rows["width"]))
            if note := tiling.fit_note(fitting, len(self.rows)):
                logger.warning("%s", note)

    def evaluator(self, device: torch.device) -> BoxEvaluator:
        """Returns an evaluator of the split, and moves the model to a device."""
        self.model.to(device)
        if self.images.transform.image_processor is not self.processor:  # that of an exported form, to be measured
            self.images = self._images()
        labels = len(self.classes.names)
        if isinstance(self.images, TiledImages):
            return TiledEvaluator(self.model, self.images, self.processor, labels, self.to_data)
        return BoxEvaluator(self.model, self.images, self.processor, labels, self.to_data)

    def _images(self) -> BoxImages:
        transform = BoxEvaluationTransform(self.processor)
        return images_for(self.rows, transform, self.tiling, self.split, self.skip_bad)

    def results(self, evaluation: Evaluation) -> dict[str, Any]:
        """Returns the number of boxes, metrics, results per class, and errors with their confusion matrix.

        Metrics are COCO's twelve, with the loss for models of this package; errors are counted above the score with
        the best F1.
        """
        counts: Any = evaluation.metrics
        names = self.classes.names
        per_class = counts.per_class(names)
        return {
            **({} if self.tiling is None else {"tiles": self.tiling.to_dict()}),
            "boxes": sum(row["boxes"] for row in per_class),
            "metrics": counts.compute() | ({} if evaluation.loss is None else {"loss": evaluation.loss}),
            "labels": list(names),
            "per_class": per_class,
            "errors": count_errors(counts.pairs(), len(names)).to_dict(names),
        }

    def save_plots(self, folder: Path, evaluation: Evaluation, results: dict[str, Any]) -> None:  # noqa: ARG002
        """Writes `predictions.json` (COCO's results), plots (curves, errors, confusion), and boxes on some images."""
        counts: Any = evaluation.metrics
        errors = count_errors(counts.pairs(), len(self.classes.names))
        save_detection_files(folder, counts, errors, self.classes, self.images)


def save_detection_files(
    folder: Path, counts: DetectionMetrics, errors: DetectionErrors, classes: BoxClasses, images: BoxImages
) -> None:
    """Writes `predictions.json` (COCO's results) and plots: curves, errors, confusion, boxes on some images."""
    names, pairs = classes.names, counts.pairs()
    entries = coco_results([true.image_id for _, true in pairs], [found for found, _ in pairs], classes)
    save_coco_results(entries, folder / "predictions.json")
    save_precision_recall(counts.curves(), names, folder / "precision_recall.png")
    save_error_kinds(errors, names, folder / "errors.png")
    save_confusion_matrix(errors.confusion, [*names, "(none)"], folder / "confusion_matrix.png", what="boxes")
    rows = sorted(counts.true)[:: max(1, len(pairs) // SAMPLES)][:SAMPLES]
    samples = [
        (decode_image(images.table[row]["image"], images.describe(row)), counts.found[row], counts.true[row])
        for row in rows
    ]
    save_detections(samples, names, errors.threshold, folder / "detections.png")


def class_numbers(names: tuple[str, ...], id2label: dict[int, str]) -> list[int] | None:
    """Returns the data's number of each class of a model, -1 if it has none; None if they are equal.

    Raises:
        DataError: The model does not know a class of the data.
    """
    known = {name: number for number, name in id2label.items()}
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"the model does not know the class{'' if len(unknown) == 1 else 'es'} {', '.join(unknown[:12])}; it knows "
            f"{', '.join(list(known)[:12])}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    mapped = [numbers.get(id2label[number], -1) for number in range(max(id2label) + 1) if number in id2label]
    return None if mapped == list(range(len(names))) and len(id2label) == len(names) else mapped


def _source(path: Path, data: Any, skip_bad: bool, label_column: str | None) -> dict[str, Any]:
    """Returns the arguments of `load_box_data`: for the given data, or for the run's training data with its splits.

    From the run's own data no more images may be missing than in training: other splits would be drawn from the rest.
    """
    column = {} if label_column is None else {"objects_column": label_column}
    if data is not None:
        return {"source": data, "bad_share": 1.0 if skip_bad else 0.0, **column}
    settings = run_data(path)
    return {"source": settings.source, **settings.reading_boxes(), **column}


def detection_table(result: dict[str, Any]) -> Table:
    """Formats a result for a terminal."""
    metrics, errors = result["metrics"], result["errors"]
    title = f"{result['data']}, {result['split']} split, {result['images']} images, {result['boxes']} boxes: mAP "
    table = Table("class", title=Text(visible(title) + _percent(metrics["map"])), title_justify="left")
    columns = {"boxes": "boxes", "map": "AP", "map_50": "AP50", "map_75": "AP75", "mar_100": "AR100"}
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in result["per_class"]:
        figures = (str(row["boxes"]) if name == "boxes" else _percent(row[name]) for name in columns)
        table.add_row(Text(visible(row["label"])), *figures)
    table.add_section()
    whole = (str(result["boxes"]), *(_percent(metrics[name]) for name in columns if name != "boxes"))
    table.add_row("all", *whole)
    sizes = ", ".join(f"{size} {_percent(metrics[f'map_{size}'])}" for size in ("small", "medium", "large"))
    kinds = ", ".join(f"{count} {kind}" for kind, count in errors["counts"].items())
    bad = len(result["bad_images"])
    left_out = f"\n{bad} image{'' if bad == 1 else 's'} could not be decoded and count for nothing" if bad else ""
    tiles = f"\n{_tiles_text(result['tiles'])}" if "tiles" in result else ""
    table.caption = f"AP by size: {sizes}\nfrom score {errors['threshold']:.2f}: {kinds}{left_out}{tiles}"
    return table


def _tiles_text(tiles: dict[str, Any]) -> str:
    height, width = tiles["tile_hw"]
    beside = "and as a whole" if tiles["full_picture"] else "alone"
    return (
        f"seen in tiles of {height} x {width} pixels that overlap by {tiles['overlap']:g}, {beside}; {tiles['merge']}"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


__all__ = ["SavedDetector", "class_numbers", "detection_table", "save_detection_files"]
