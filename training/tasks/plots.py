"""Plots of a run: learning curves, confusion matrix and reliability."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, distinguishable with colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
DPI = 150
HEADLINES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mean average precision",
    "map": "mAP",
    "knn_accuracy": "k-NN accuracy",
    "effective_rank_share": "effective rank",
}


def new_figure(width: float, height: float) -> Figure:
    """Makes a figure of this size in inches, independent of pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save_learning_curves(history: list[dict[str, Any]], file: Path, headline: str = "accuracy") -> None:
    """Plots loss, headline metric, learning rate, throughput and memory against the epoch.

    Args:
        history: Entries of the epochs with `epoch`, `train_loss`, `validation_loss`, `validation_` and the headline's
            name (0 to 1), `lr`, `images_per_second`, `peak_memory_mb`. Further entries whose names begin with
            `validation_` (0 to 1) are drawn beside the headline metric.
        file: Path of the .png to write.
        headline: Name of the metric by which epochs are compared.
    """
    figure = new_figure(11, 6)
    panels = figure.subplots(2, 3).flatten()
    losses, quality, rate, speed, memory, legend = panels
    epochs = [entry["epoch"] for entry in history]
    marker = "o" if len(history) <= 30 else ""  # a single epoch would not be visible as a line

    def draw(axes: Any, key: str, color: str, factor: float = 1.0, label: str | None = None) -> Any:
        values = [factor * entry[key] for entry in history]
        return axes.plot(epochs, values, color=color, marker=marker, markersize=3, label=label)[0]

    name = f"validation_{headline}"
    best = max(history, key=lambda entry: (entry[name], -entry["validation_loss"]))
    entries = [draw(losses, "train_loss", BLUE, label="training"), draw(losses, "validation_loss", ORANGE)]
    entries[1].set_label("validation")
    draw(quality, name, ORANGE, factor=100)
    further = [key for key in history[0] if key.startswith("validation_") and key not in (name, "validation_loss")]
    for key, dashes in zip(further, ("--", ":"), strict=False):
        line = draw(quality, key, GREEN, factor=100, label=f"{_title(key.removeprefix('validation_'))} (%)")
        line.set_linestyle(dashes)
        entries.append(line)
    style = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5}
    (mark,) = quality.plot(best["epoch"], 100 * best[name], color=GREY, linestyle="none", **style)
    entries.append(mark)
    mark.set_label(f"best epoch: {best['epoch']} ({100 * best[name]:.1f} %)")
    draw(rate, "lr", GREEN)
    draw(speed, "images_per_second", GREEN)
    draw(memory, "peak_memory_mb", GREEN)
    losses.set_ylabel("loss (nats)")
    quality.set_ylabel(f"{_title(headline)} (%)")
    rate.set_ylabel("learning rate")
    speed.set_ylabel("training images per second")
    memory.set_ylabel("peak memory (MB)")
    legend.axis("off")
    legend.legend(handles=entries, frameon=False, loc="center left", fontsize=11)
    for axes, key in ((speed, "images_per_second"), (memory, "peak_memory_mb")):
        axes.set_ylim(0, 1.1 * max(entry[key] for entry in history))
    for axes in panels[:-1]:
        axes.set_xlabel("epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _title(metric: str) -> str:
    return HEADLINES.get(metric, metric.replace("_", " "))


def save_reliability(bins: list[dict[str, Any]], file: Path) -> None:
    """Plots the share of right decisions and the number of decisions by confidence.

    Args:
        bins: Entries with `low`, `high`, `images`, `confidence` and `accuracy`, as returned by `reliability` of the
            counts.
        file: Path of the .png to write.
    """
    figure = new_figure(5, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = [entry for entry in bins if entry["images"]]
    total = sum(entry["images"] for entry in filled)
    left = [100 * entry["low"] for entry in filled]
    width = [100 * (entry["high"] - entry["low"]) for entry in filled]
    bar = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    above.bar(left, [100 * entry["accuracy"] for entry in filled], width, color=BLUE, label="right", **bar)
    confidence = [100 * entry["confidence"] for entry in filled]
    middle = [start + wide / 2 for start, wide in zip(left, width, strict=True)]
    above.plot(middle, confidence, "_", color=ORANGE, markersize=13, markeredgewidth=2.5, label="mean confidence")
    above.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    below.bar(left, [100 * entry["images"] / total for entry in filled], width, color=GREY, **bar)
    above.set(ylabel="right decisions (%)", xlim=(0, 100), ylim=(0, 100))
    below.set(xlabel="confidence (%)", ylabel="decisions (%)")
    error = sum(abs(entry["confidence"] - entry["accuracy"]) * entry["images"] for entry in filled) / total
    figure.suptitle(f"expected calibration error {100 * error:.1f} %", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def save_confusion_matrix(confusion: np.ndarray, names: Sequence[str], file: Path, what: str = "images") -> None:
    """Plots true against predicted class, in per cent of the true class; cells show counts for up to 20 classes.

    Args:
        confusion: Counts (C, C), rows the true class.
        names: Class names, in label order, C of them.
        file: Path of the .png to write.
        what: Name of the counted things.
    """
    count = len(names)
    shown = drawable(names)
    side = min(14.0, max(2.6, 0.42 * count)) + (0.09 * max(map(len, shown)) if count <= 60 else 0) + 0.8
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(image, label=f"{what} of the true class (%)", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if count <= 60:
        axes.set_xticks(range(count), shown, rotation=90)
        axes.set_yticks(range(count), shown)
    if count <= 20:
        for row, column in np.ndindex(count, count):
            if confusion[row, column]:
                color = "black" if shares[row, column] > 60 else "white"
                text = str(int(confusion[row, column]))
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    figure.savefig(file)


def drawable(names: Sequence[str], longest: int = 30) -> list[str]:
    """Shortens and escapes names for matplotlib; a name with letters missing in the font becomes "class N"."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    shown = []
    for number, name in enumerate(names):
        line = " ".join(name.split())
        if any(ord(letter) not in letters for letter in line):
            line = f"class {number}"
        shown.append((line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$"))
    return shown


__all__ = ["drawable", "new_figure", "save_confusion_matrix", "save_learning_curves", "save_reliability"]
