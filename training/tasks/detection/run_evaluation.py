"""Measuring a saved detector: what `vithub evaluate` does with one."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table
from rich.text import Text

from ....data.boxes.dataset import BoxEvaluationTransform, BoxImages
from ....data.boxes.loading import load_box_data
from ....data.boxes.tables import BoxClasses
from ....data.images import decode_image
from ....data.sources import DataError
from ....data.table_identity import rows_identity
from ....data.text.json_text import json_text
from ....data.text.terminal_text import visible
from ....hub.folders import new_folder
from ....hub.model_identity import model_identity
from ...run_data import run_data
from ...run_folder import METRICS
from ...runtime.progress import Reporter
from ..classification.evaluation import default_workers
from ..partial_counts import partial_counts
from ..plots import save_confusion_matrix
from .coco_results import coco_results, save_coco_results
from .error_kinds import DetectionErrors, count_errors
from .evaluation import MOST_AT_ONCE, evaluate_detector
from .loading import load_detector
from .metrics import DetectionCounts
from .plots import save_detections, save_error_kinds, save_precision_recall

SAMPLES = 6  # images that are drawn


def evaluate_detections(
    path: Path,
    data: Any,
    split: str | None,
    *,
    output: Path | None,
    batch_size: int,
    workers: int | None,
    skip_bad: bool,
    resume: bool,
    accelerator: Accelerator,
    reporter: Reporter,
    label_column: str | None = None,
) -> dict[str, Any]:
    """COCO's figures of a detector on a split; the arguments are those of `evaluate`.

    Returns:
        `split`, `images`, `boxes`, `bad_images` (those left out), `metrics` (COCO's twelve, and the loss of models of
        this package), `per_class`, and `errors` from the score that gives the best F1, with their confusion.

    Raises:
        DataError: The data cannot be used, or has a class that the model does not know.
    """
    model, processor = load_detector(path)
    model.to(accelerator.device)
    boxes = load_box_data(**_source(path, data, skip_bad, label_column))
    split = split or ("test" if boxes.test is not None else "validation")
    if split not in boxes.splits:
        raise DataError(f"there is no split {split!r}; there are {', '.join(boxes.splits)}")
    names = boxes.classes.names
    to_data = class_numbers(names, model.config.id2label)
    images = BoxImages(boxes.splits[split], BoxEvaluationTransform(processor), name=split, skip_bad=skip_bad)
    batch_size = min(batch_size, MOST_AT_ONCE)
    partial = None
    if output is not None:
        about = {
            "model": str(path), "data": boxes.name, "split": split, "images": len(images), "batch_size": batch_size
        }  # fmt: skip
        table = images.table
        made_from = {**model_identity(path), "data": rows_identity(table, range(len(table)))}
        partial = partial_counts(output, about, made_from, accelerator, resume)
    found = evaluate_detector(
        model, images, processor, len(names), to_data=to_data, batch_size=batch_size,
        workers=default_workers() if workers is None else workers, accelerator=accelerator, reporter=reporter,
        max_bad_share=1 - 1 / len(images) if skip_bad else 0.0, partial=partial,
    )  # fmt: skip
    pairs = found.counts.pairs()
    errors = count_errors(pairs, len(names))
    per_class = found.counts.per_class(names)
    result = {
        "model": str(path),
        "data": boxes.name,
        "split": split,
        "images": len(images) - len(found.bad_images),
        "bad_images": found.bad_images,
        "boxes": sum(row["boxes"] for row in per_class),
        "metrics": found.counts.compute() | ({} if found.loss is None else {"loss": found.loss}),
        "labels": list(names),
        "per_class": per_class,
        "errors": errors.to_dict(names),
    }
    if output is not None and accelerator.is_main_process:
        with new_folder(output) as staging:
            (staging / METRICS).write_text(json_text(result, indent=1) + "\n", encoding="utf-8")
            save_detection_files(staging, found.counts, errors, boxes.classes, images)
    accelerator.wait_for_everyone()
    if partial is not None and accelerator.is_main_process:
        partial.remove()
    return result


def save_detection_files(
    folder: Path, counts: DetectionCounts, errors: DetectionErrors, classes: BoxClasses, images: BoxImages
) -> None:
    """Writes `predictions.json` (COCO's results) and pictures: curves, errors, confusion, boxes on some images."""
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
    """The data's number of each class of a model, -1 where it has none; None where they are the same.

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
    """The arguments of `load_box_data`: the data that was named, or what the run was trained on, with its splits.

    Of the latter no more images may be missing than in training: other splits would be drawn from the rest.
    """
    column = {} if label_column is None else {"objects_column": label_column}
    if data is not None:
        return {"source": data, "bad_share": 1.0 if skip_bad else 0.0, **column}
    settings = run_data(path)
    return {"source": settings.source, **settings.reading_boxes(), **column}


def detection_table(result: dict[str, Any]) -> Table:
    """A result for a terminal."""
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
    table.caption = f"AP by size: {sizes}\nfrom score {errors['threshold']:.2f}: {kinds}{left_out}"
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


__all__ = ["class_numbers", "detection_table", "evaluate_detections", "save_detection_files"]
