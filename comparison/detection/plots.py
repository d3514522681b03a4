"""Plots of a comparison of detectors, as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from ...training.tasks.detection.error_kinds import ERRORS
from ...training.tasks.plots import new_figure
from ..measurement import Measurement, Section
from ..report_figures import Picture, contestant_style, draw_curve, tidy
from .resampled_figures import SIZES

FIGURES = {
    "map": "mAP", "map_50": "mAP50", "map_75": "mAP75", "map_small": "small", "map_medium": "medium",
    "map_large": "large",
}  # fmt: skip


def _points(axes: Any, rows: list[list[Measurement]], names: list[str], labels: list[str]) -> None:
    """Draws a point with its interval for each contestant beside each other, at each label."""
    for number, (name, own) in enumerate(zip(names, rows, strict=True)):
        style, drawn = contestant_style(names, name), False
        shift = 0.6 / len(names) * (number - (len(names) - 1) / 2)
        for place, one in enumerate(own):
            if one.value is None:
                continue
            low, high = one.interval or (one.value, one.value)
            error = [[max(0.0, one.value - low)], [max(0.0, high - one.value)]]
            axes.errorbar(
                place + shift, one.value, error, fmt=style["marker"], color=style["color"], markersize=4,
                label=None if drawn else name,
            )  # fmt: skip
            drawn = True
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(bottom=0)
    if all(one.value is None for own in rows for one in own):
        axes.text(0.5, 0.5, "no such object", ha="center", va="center", transform=axes.transAxes)


def save_coco_figures(section: Section, names: list[str], file: Path) -> bool:
    """Draws COCO's figures with their intervals; returns whether there is something to draw."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    rows = [[section.find("COCO", name, figure=key)[0] for key in FIGURES] for name in names]
    _points(axes, rows, names, list(FIGURES.values()))
    axes.set_ylabel("average precision (%)")
    tidy(figure, [axes], axes)
    figure.savefig(file)
    return True


def save_errors(section: Section, names: list[str], file: Path) -> bool:
    """Draws errors by kind, for all objects and by size; returns whether there is something to draw."""
    figure = new_figure(11, 3.6 * 2)
    panels = figure.subplots(2, 2).flatten()
    for axes, size in zip(panels, SIZES, strict=True):
        rows = []
        for name in names:
            found = section.find("errors", name) if size == "all" else section.find("errors by size", name, size=size)
            by_kind = {one.at["kind"]: one for one in found}
            rows.append([by_kind[kind] for kind in ERRORS])
        _points(axes, rows, names, list(ERRORS))
        axes.set_title("all objects" if size == "all" else f"{size} objects", fontsize=10)
        axes.set_ylabel("errors per 100 objects", fontsize=8)
        axes.tick_params(axis="x", labelrotation=20)
    tidy(figure, panels, panels[0])
    figure.savefig(file)
    return True


def save_speed(section: Section, names: list[str], file: Path) -> bool:
    """Draws latency against the side of the image; returns False for the cost of classifiers."""
    found = section.find("latency by side")
    sides = sorted({one.at["side"] for one in found if one.value is not None})
    if not sides:
        return False
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for name in names:
        rows = section.find("latency by side", name)
        draw_curve(axes, rows, [one.at["pixels"] for one in rows], name, **contestant_style(names, name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sides)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    values = np.array([one.value for one in found if one.value is not None])
    axes.set(xlabel="side of the image (px)", ylabel="one image (ms)", ylim=(values.min() / 1.5, values.max() * 1.5))
    tidy(figure, [axes], axes)
    figure.savefig(file)
    return True


# Section, file name, caption and function of each plot.
DETECTION_PICTURES: dict[str, list[Picture]] = {
    "cost": [("speed", "Latency of one image against its side; bands are 95 % intervals.", save_speed)],
    "coco": [("coco", "COCO's average precision; bars are 95 % intervals over images.", save_coco_figures)],
    "errors": [("errors", "Kinds of errors, for all objects and by size; bars are 95 % intervals.", save_errors)],
}

__all__ = ["DETECTION_PICTURES", "save_coco_figures", "save_errors", "save_speed"]
