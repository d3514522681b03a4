"""Plots of a detector's quality: precision against recall, kinds of errors, boxes on images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ....data.boxes.pictures import color_of, contact_sheet, draw_boxes
from ....data.boxes.tables import ImageBoxes
from ..plots import BLUE, GREEN, GREY, ORANGE, drawable, new_figure
from .detections import RECALLS, Detections
from .error_kinds import ERRORS, DetectionErrors

# Colours of the bars of errors: right in green, then one for each of `ERRORS`.
COLORS = (GREEN, "#CC79A7", ORANGE, "#E69F00", "#F0E442", GREY, BLUE)
DASHES = ("-", "--", "-.", ":")
SHOWN = 12  # limit on the number of classes drawn separately


def save_precision_recall(curves: np.ndarray, names: Sequence[str], file: Path, iou: float = 0.5) -> None:
    """Plots precision against recall for each class, the most precise first, and their mean.

    Args:
        curves: Precision in [0, 1] at `RECALLS`, (C, 101); NaN for a class without boxes.
        names: Class names, in label order, C of them.
        file: Path of the .png to write.
        iou: Lowest IoU at which a box counts as found.
    """
    figure = new_figure(7.5, 4.8)
    axes = figure.subplots()
    known = [number for number in range(len(names)) if not np.isnan(curves[number]).any()]
    ranked = sorted(known, key=lambda number: -curves[number].mean())
    shown = drawable(names)
    for place, number in enumerate(ranked[:SHOWN]):
        label = f"{shown[number]} ({100 * curves[number].mean():.1f})"
        dash = DASHES[place // 7 % len(DASHES)]
        axes.plot(100 * RECALLS, 100 * curves[number], dash, color=color_of(number), linewidth=1.6, label=label)
    if known:
        mean = curves[known].mean(axis=0)
        axes.plot(100 * RECALLS, 100 * mean, color="black", linewidth=2.2, label=f"mean ({100 * mean.mean():.1f})")
    axes.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 100), ylim=(0, 102))
    axes.spines[["top", "right"]].set_visible(False)
    title = f"average precision at IoU {iou:g}" + (f", {SHOWN} best of {len(known)}" if len(known) > SHOWN else "")
    if known:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, title=title.replace(", ", ",\n"))
    figure.savefig(file)


def save_error_kinds(errors: DetectionErrors, names: Sequence[str], file: Path) -> None:
    """Plots how many boxes are right, wrong in each way, and missed: over all classes, then per class.

    Args:
        errors: Errors on a split.
        names: Class names, in label order, C of them.
        file: Path of the .png to write.
    """
    order = np.argsort(-errors.per_class.sum(axis=1), kind="stable")[:SHOWN]
    rows = [errors.per_class.sum(axis=0), *errors.per_class[order]]
    labels = ["all classes", *(drawable(names)[number] for number in order)]
    figure = new_figure(8, 1.6 + 0.36 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    totals = np.maximum(np.array([row.sum() for row in rows]), 1)
    for kind, (name, color) in enumerate(zip(("correct", *ERRORS), COLORS, strict=True)):
        width = 100 * np.array([row[kind] for row in rows]) / totals
        axes.barh(labels, width, left=left, color=color, edgecolor="white", linewidth=0.6, label=name)
        for place, (start, wide, row) in enumerate(zip(left, width, rows, strict=True)):
            if wide > 4:
                axes.text(start + wide / 2, place, str(int(row[kind])), ha="center", va="center", fontsize=8)
        left += width
    axes.invert_yaxis()
    axes.set(xlabel=f"found boxes with a score from {errors.threshold:.2f}, and missed ones (%)", xlim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(file)


def detection_picture(
    image: Image.Image, found: Detections, names: Sequence[str], threshold: float, true: ImageBoxes | None = None
) -> Image.Image:
    """Draws an image with found boxes, their classes and scores; beside it the true boxes, if given.

    Args:
        image: Upright image.
        found: Detections in the image.
        names: Class names, in label order.
        threshold: Lowest score of the drawn boxes.
        true: True boxes to draw in a second picture beside the first; None draws none.
    """
    shown = found.above(threshold)
    texts = [f"{names[number]} {score:.2f}" for number, score in zip(shown.classes, shown.scores, strict=True)]
    picture = draw_boxes(image, shown.boxes, texts, [color_of(int(number)) for number in shown.classes])
    if true is None:
        return picture
    labels = [names[number] for number in true.classes]
    other = draw_boxes(image, true.boxes, labels, [color_of(int(number)) for number in true.classes])
    both = Image.new("RGB", (2 * image.width + 8, image.height), "white")
    both.paste(picture, (0, 0))
    both.paste(other, (image.width + 8, 0))
    return both


def save_detections(
    samples: Sequence[tuple[Image.Image, Detections, ImageBoxes]], names: Sequence[str], threshold: float, file: Path
) -> None:
    """Writes a sheet of images, each with found boxes at the left and true boxes at the right.

    Raises:
        ValueError: There are no images.
    """
    pictures: list[Any] = [detection_picture(image, found, names, threshold, true) for image, found, true in samples]
    titles = [f"image {true.image_id}: found (left), true (right)" for _, _, true in samples]
    contact_sheet(pictures, titles, tile=800).save(file)


__all__ = ["detection_picture", "save_detections", "save_error_kinds", "save_precision_recall"]
