"""Pictures of a run: learning curves and confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, free of pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save_learning_curves(history: list[dict[str, Any]], file: Path) -> None:
    """Loss, accuracy and learning rate against the epoch.

    Args:
        history: One entry per epoch: `epoch`, `train_loss`, `validation_loss`, `validation_accuracy` (0 to 1), `lr`.
        file: A .png to write.
    """
    figure = new_figure(10, 3.2)
    losses, accuracy, rate = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["train_loss"] for entry in history], color=BLUE, label="training")
    losses.plot(epochs, [entry["validation_loss"] for entry in history], color=ORANGE, label="validation")
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    losses.legend(frameon=False)
    accuracy.plot(epochs, [100 * entry["validation_accuracy"] for entry in history], color=ORANGE)
    best = max(history, key=lambda entry: entry["validation_accuracy"])
    accuracy.plot(best["epoch"], 100 * best["validation_accuracy"], "o", color=ORANGE, label="best epoch")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)")
    accuracy.legend(frameon=False, loc="lower right")
    rate.plot(epochs, [entry["lr"] for entry in history], color=GREEN)
    rate.set(xlabel="epoch", ylabel="learning rate")
    for axes in (losses, accuracy, rate):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def save_confusion_matrix(confusion: np.ndarray, names: list[str], file: Path) -> None:
    """True against predicted class, in per cent of the true class; counts are written in the cells of up to 20.

    Args:
        confusion: (C, C) counts, rows the true class.
        names: C of them.
        file: A .png to write.
    """
    count = len(names)
    side = min(14.0, 2.6 + 0.42 * count)
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(image, label="images of the true class (%)", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if count <= 60:
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)
    if count <= 20:
        for row, column in np.ndindex(count, count):
            if confusion[row, column]:
                color = "black" if shares[row, column] > 60 else "white"
                text = str(int(confusion[row, column]))
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    figure.savefig(file)


__all__ = ["new_figure", "save_confusion_matrix", "save_learning_curves"]
