"""Draws accuracy against epochs and against time, with and without a teacher, from the results of the experiments.

    python benchmarks/experiments/distillation_curves.py

reads `benchmarks/results/{cifar10,flowers5}_distillation.json`, writes `docs/pictures/{cifar10,flowers5}_teacher.png`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from vithub.training.tasks.plots import BLUE, GREEN, ORANGE, new_figure

ROOT = Path(__file__).parents[2]
TITLES = {
    "scarce": "500 images, 100 epochs\ncrop and flip",
    "few": "2,000 images, 25 epochs\ncrop and flip",
    "many": "10,000 images, 5 epochs\ncrop and flip",
    "few-strong": "2,000 images, 25 epochs\nRandAugment, erasing, mixup, CutMix",
    "many-strong": "10,000 images, 5 epochs\nRandAugment, erasing, mixup, CutMix",
    "many-long": "10,000 images, 25 epochs\ncrop and flip",
    "flowers": "",
}
LOOKS: dict[str, tuple[str, str, str, str]] = {
    "none": (BLUE, "o", "-", "no teacher"),
    "teacher": (ORANGE, "s", "--", "hard distillation through the token"),
    "hard": (ORANGE, "s", "--", "hard distillation through the token"),
    "soft": (GREEN, "^", ":", "soft distillation through the token"),
}


def draw(axes: Any, runs: list[dict[str, Any]], arm: str, against: str) -> Any:
    """The mean of some runs by epoch, and the range of the runs behind it."""
    accuracy = 100 * np.array([[entry["validation_accuracy"] for entry in run["history"]] for run in runs])
    places = np.mean([[entry[against] for entry in run["history"]] for run in runs], axis=0)
    color, marker, line, label = LOOKS[arm]
    if len(runs) > 1:
        axes.fill_between(places, accuracy.min(0), accuracy.max(0), color=color, alpha=0.15, linewidth=0)
    every = max(1, len(places) // 8)
    return axes.plot(
        places, accuracy.mean(0), color=color, marker=marker, markevery=every, markersize=4, linestyle=line, label=label
    )[0]


def picture(cells: list[dict[str, Any]], budgets: list[str], arms: list[str], file: Path) -> None:
    """One column per budget; above against epochs, below against seconds."""
    figure = new_figure(3.6 * max(2, len(budgets)), 6)
    rows = figure.subplots(2, len(budgets), squeeze=False)
    for column, budget in enumerate(budgets):
        for row, (against, name) in enumerate((("epoch", "epoch"), ("seconds", "seconds of training and validation"))):
            axes = rows[row][column]
            for arm in arms:
                runs = [cell for cell in cells if cell["arm"] == arm and cell.get("budget", budget) == budget]
                if runs:
                    draw(axes, runs, arm, against)
            axes.set_xlabel(name)
            axes.set_ylabel("validation accuracy (%)")
            axes.grid(alpha=0.3)
        counts = [sum(c["arm"] == arm and c.get("budget", budget) == budget for c in cells) for arm in arms]
        seeds = " and ".join(str(count) for count in sorted({count for count in counts if count}))
        seeds += " seed" if seeds == "1" else " seeds: mean and range"
        rows[0][column].set_title(f"{TITLES[budget]}\n{seeds}".strip(), fontsize="medium")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file)


def main() -> None:
    """Draws what there are results of."""
    results, pictures = ROOT / "benchmarks/results", ROOT / "docs/pictures"
    if (file := results / "cifar10_distillation.json").is_file():
        cells = list(json.loads(file.read_text())["cells"].values())
        budgets = [name for name in TITLES if any(cell["budget"] == name for cell in cells)]
        picture(cells, budgets, ["none", "teacher", "soft"], pictures / "cifar10_teacher.png")
    if (file := results / "flowers5_distillation.json").is_file():
        cells = [cell for name, cell in json.loads(file.read_text()).items() if name != "teacher"]
        picture(cells, ["flowers"], ["none", "hard", "soft"], pictures / "flowers5_teacher.png")


if __name__ == "__main__":
    main()
