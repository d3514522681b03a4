"""Plots of a comparison, as PNG files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ..training.tasks.plots import BLUE, GREEN, GREY, ORANGE, new_figure
from .measurement import Measurement, Section

COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"


Picture = tuple[str, str, Callable[[Section, list[str], Path], bool]]  # file name, caption, function that draws it


def save_pictures(
    sections: list[Section], names: list[str], folder: Path, pictures: dict[str, list[Picture]] | None = None
) -> list[tuple[str, str, str]]:
    """Draws the plots of the sections.

    Args:
        sections: Measured sections.
        names: Names of the contestants, in the order of their colours.
        folder: Folder to write to; must exist.
        pictures: Plots by section; None takes those of classifiers.

    Returns:
        Section, file name and caption of each plot.
    """
    drawn: list[tuple[str, str, str]] = []
    for section in sections:
        for name, caption, draw in (_PICTURES if pictures is None else pictures).get(section.name, []):
            file = folder / f"{name}.png"
            if draw(section, names, file):
                drawn.append((section.name, file.name, caption))
    return drawn


def contestant_style(names: list[str], name: str) -> dict[str, Any]:
    """Returns the colour and marker of a contestant, by its place among the names."""
    place = names.index(name) if name in names else len(names)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def draw_curve(axes: Any, rows: list[Measurement], x: list[float], label: str, **style: Any) -> None:
    """Draws values as a line over `x`, with their intervals as a band; `style` has the colour and marker."""
    known = [(place, one) for place, one in zip(x, rows, strict=True) if one.value is not None]
    if not known:
        return
    places = [place for place, _ in known]
    axes.plot(places, [one.value for _, one in known], label=label, markersize=4, linewidth=1.4, **style)
    ends = [one.interval or (one.value, one.value) for _, one in known]
    low, high = zip(*ends, strict=True)
    axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)


def tidy(figure: Any, panels: Any, legend_from: Any) -> None:
    """Removes frames from the panels and puts the legend of one of them below the figure."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = legend_from.get_legend_handles_labels()
    columns = max(1, min(len(labels), int(figure.get_figwidth() / 2.6)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _cost(section: Section, names: list[str], file: Path) -> bool:
    panels = [
        ("macs", "multiply-accumulates"), ("latency", "one image (ms)"), ("throughput", "images per second"),
        ("peak memory", "peak memory (MB)"), ("training step", "training, per image (ms)"),
        ("attention share", "attention's share of the work (%)"),
    ]  # fmt: skip
    if not section.find("macs"):  # the cost of detectors has a plot of its own
        return False
    figure = new_figure(11, 6.5)
    grid = figure.subplots(2, 3).flatten()
    for axes, (quantity, label) in zip(grid, panels, strict=True):
        for name in names:
            rows = section.find(quantity, name)
            rows = [one for one in rows if one.at.get("pixels") and one.value is not None]
            draw_curve(axes, rows, [one.at["pixels"] for one in rows], name, **contestant_style(names, name))
        sides = sorted({one.at["side"] for one in section.find(quantity) if "side" in one.at})
        axes.set_xscale("log")
        if quantity != "attention share":
            axes.set_yscale("log")
        axes.set_xticks(sides[:: max(1, len(sides) // 4)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="side of the image (px)", ylabel=label)
    tidy(figure, grid, grid[0])
    figure.savefig(file)
    return True


def _consistency(section: Section, names: list[str], file: Path) -> bool:
    subsets = ("all images", "right", "right by all", "matched accuracy")
    figure = new_figure(11, 4)
    panels = figure.subplots(1, 3)
    for axes, quantity in zip(panels[:2], ("crop consistency", "circular consistency"), strict=True):
        for number, name in enumerate(names):
            found = [section.find(quantity, name, subset=subset) for subset in subsets]
            places = np.arange(len(subsets)) + 0.8 / len(names) * (number - (len(names) - 1) / 2)
            for place, rows in zip(places, found, strict=True):
                for one in rows:
                    if one.value is None:
                        continue
                    low, high = one.interval or (one.value, one.value)
                    style = contestant_style(names, name)
                    error = [[max(0.0, one.value - low)], [max(0.0, high - one.value)]]
                    label = name if place == places[0] else None
                    axes.errorbar(place, one.value, error, fmt=style["marker"], color=style["color"], label=label)
        axes.set_xticks(range(len(subsets)), [subset.replace(" ", "\n", 1) for subset in subsets], fontsize=8)
        axes.set_ylabel(f"{quantity} (%)")
    for name in names:
        rows = section.find("equivariance error", name)
        draw_curve(panels[2], rows, [one.at["shift"] for one in rows], name, **contestant_style(names, name))
    panels[2].set(xlabel="shift to the right (px)", ylabel="equivariance error", ylim=(0, None))
    tidy(figure, panels, panels[0])
    figure.savefig(file)
    return True


def _shifts(section: Section, names: list[str], file: Path) -> bool:
    shown = [name for name in names if f"{name}: distance" in section.maps]
    if not shown:
        return False
    steps = section.maps["shifts in pixels"][0]
    reach = steps[-1] + (steps[1] if len(steps) > 1 else 1)
    figure = new_figure(3.4 * len(shown) + 0.8, 6.2)
    grid = figure.subplots(2, len(shown), squeeze=False)
    for row, (kind, label) in enumerate((("agreement", "same answer (%)"), ("distance", "distance (%)"))):
        tables = [np.array(section.maps[f"{name}: {kind}"]) for name in shown]
        low = min(float(table.min()) for table in tables) if kind == "agreement" else 0.0
        high = 100.0 if kind == "agreement" else max(float(table.max()) for table in tables)
        image: Any = None
        for axes, name, table in zip(grid[row], shown, tables, strict=True):
            colours = "viridis" if kind == "agreement" else "viridis_r"
            image = axes.imshow(
                table, vmin=min(low, high - 1e-9), vmax=high, cmap=colours, extent=(0, reach, reach, 0)
            )  # fmt: skip
            axes.set(xlabel="right (px)", ylabel="down (px)", title=name if row == 0 else "")
        figure.colorbar(image, ax=list(grid[row]), label=label)
    figure.savefig(file)
    return True


def _attention(section: Section, names: list[str], file: Path) -> bool:
    shown = [name for name in names if f"{name}: heads" in section.maps]
    if not shown:
        return False
    figure = new_figure(5 * len(shown), 4)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        style = contestant_style(names, name)
        heads = np.array(section.maps[f"{name}: heads"])
        layers = np.repeat(np.arange(len(heads)), heads.shape[1])
        axes.scatter(layers, heads.flatten(), s=10, color=style["color"], alpha=0.35, linewidths=0, label="a head")
        for weights, extra in (("trained", style), ("random", {"color": GREY, "marker": "x"})):
            rows = section.find("attention distance", name, weights=weights)
            draw_curve(axes, rows, [one.at["layer"] for one in rows], f"mean, {weights} weights", **extra)
        for one in section.find("uniform attention distance", name):
            axes.axhline(one.value, color=GREY, linestyle="--", linewidth=1, label="uniform attention")
        axes.set(xlabel="layer", ylabel="mean attention distance (px)", title=name, ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(figure, panels, panels[0])
    figure.savefig(file)
    return True


def _fields(section: Section, names: list[str], file: Path) -> bool:
    shown = [name for name in names if f"{name}: field, trained" in section.maps]
    if not shown:
        return False
    figure = new_figure(3 * len(shown) + 0.5, 6)
    grid = figure.subplots(2, len(shown), squeeze=False)
    for row, weights in enumerate(("trained", "random")):
        for axes, name in zip(grid[row], shown, strict=True):
            table = np.array(section.maps[f"{name}: field, {weights}"])
            axes.imshow(np.sqrt(table), cmap="magma", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(name if row == 0 else "", fontsize=10)
            if axes is grid[row][0]:
                axes.set_ylabel(f"{weights} weights")
    figure.savefig(file)
    return True


def _robustness(section: Section, names: list[str], file: Path) -> bool:
    kinds = list(dict.fromkeys(one.at["kind"] for one in section.find("accuracy") if one.at["kind"] != "clean"))
    if not kinds:
        return False
    columns = min(4, len(kinds))
    rows_count = -(-len(kinds) // columns)
    figure = new_figure(3 * columns, 2.5 * rows_count + 0.5)
    panels = figure.subplots(rows_count, columns, squeeze=False, sharey=True).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        axis = {"patch permutation": "grid", "patch dropping": "part"}.get(kind, "severity")
        for name in names:
            clean = section.find("accuracy", name, kind="clean")
            rows = clean + section.find("accuracy", name, kind=kind)
            start = 1 if axis == "grid" else 0
            draw_curve(axes, rows, [one.at.get(axis, start) for one in rows], name, **contestant_style(names, name))
        axes.set_title(kind, fontsize=9)
        axes.set_xlabel({"grid": "rows of cells", "part": "part dropped"}.get(axis, axis), fontsize=8)
        axes.set_ylim(0, 100)
    for axes in panels[len(kinds) :]:
        axes.axis("off")
    for place in range(0, len(panels), columns):
        panels[place].set_ylabel("accuracy (%)", fontsize=8)
    tidy(figure, panels, panels[0])
    figure.savefig(file)
    return True


def _calibration(section: Section, names: list[str], file: Path) -> bool:
    figure = new_figure(5.5, 4)
    axes = figure.subplots()
    for name in names:
        rows = section.find("calibration error", name)
        accuracy = [section.find("accuracy", name, **one.at)[0].value or 0.0 for one in rows]
        style = contestant_style(names, name)
        axes.scatter(accuracy, [one.value or 0.0 for one in rows], s=18, label=name, alpha=0.8, **style)
    axes.set(xlabel="accuracy (%)", ylabel="expected calibration error (%)", xlim=(0, 100), ylim=(0, None))
    tidy(figure, [axes], axes)
    figure.savefig(file)
    return True


def _data(section: Section, _: list[str], file: Path) -> bool:
    names = list(dict.fromkeys(one.contestant for one in section.find("accuracy")))
    if not names:
        return False
    figure = new_figure(6, 4.4)
    axes = figure.subplots()
    for name in names:
        rows = section.find("accuracy", name)
        draw_curve(axes, rows, [100 * one.at["fraction"] for one in rows], name, **contestant_style(names, name))
    parts = sorted({100 * one.at["fraction"] for one in section.find("accuracy")})
    axes.set_xscale("log")
    axes.set_xticks(parts, [f"{part:g}" for part in parts])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="part of the training images (%)", ylabel="test accuracy (%)")
    tidy(figure, [axes], axes)
    figure.savefig(file)
    return True


_PICTURES: dict[str, list[Picture]] = {
    "cost": [("cost", "Cost against the side of the image; bands are 95 % intervals.", _cost)],
    "translation": [
        ("consistency", "Consistency by subset of the images, and equivariance error by shift.", _consistency),
        ("shifts", "The answer over all shifts of the image, mean over images.", _shifts),
    ],
    "locality": [
        ("attention_distance", "Mean attention distance per layer, beside random weights.", _attention),
        ("receptive_field", "Effective receptive field of the middle feature (square root of the influence).", _fields),
    ],
    "robustness": [
        (
            "robustness",
            "Accuracy under corruption, shuffled and dropped patches; the first point is unchanged.",
            _robustness,
        ),
        ("calibration", "Calibration error against accuracy, a point for each kind and severity.", _calibration),
    ],
    "data": [("data", "Test accuracy against the part of the training images; bands are intervals over seeds.", _data)],
}

__all__ = ["Picture", "contestant_style", "draw_curve", "save_pictures", "tidy"]
