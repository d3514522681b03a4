"""Curves of accuracy against training data from finished trainings, and the points where they cross."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from ..data.intervals import Interval, share_interval
from .growth import crossing
from .measurement import LEVEL, Measurement, Section, in_percent

PROTOCOLS = {
    "data/cell-2": (
        "Accuracy on the test images of a network trained from scratch on a part of the training images (the parts are "
        "nested and hold every class), with as many steps as on all; interval: Wilson's over test images."
    ),
    "data/time-1": "Mean over all cells of the time of a training with its validations, on the machine of the report.",
    "data/mean-2": (
        "Mean over seeds; interval: Student's t over seeds, which also draw the part and the weights; Wilson's over "
        "test images where all seeds agree."
    ),
    "data/difference-1": "Mean over seeds of the difference of two networks on the same part; interval: Student's t.",
    "data/crossing-1": (
        "Part of the data at which the better of two changes, interpolated on the logarithm. It is established only if "
        "the difference is beyond its interval on both sides."
    ),
}


def data_section(cells: Sequence[dict[str, Any]], settings: dict[str, Any]) -> Section:
    """Makes the section "data" from finished cells.

    Args:
        cells: Entries with `architecture`, `fraction`, `seed`, `accuracy`, `interval`, `train_images` and more.
        settings: Settings shared by all cells, for the notes.
    """
    section = Section("data", PROTOCOLS)
    images = next((cell["test_images"] for cell in cells), 0)
    add = section.measurements.append
    found: dict[str, dict[float, dict[int, float]]] = {}
    for cell in cells:
        name, fraction = cell["architecture"], cell["fraction"]
        found.setdefault(name, {}).setdefault(fraction, {})[cell["seed"]] = 100 * cell["accuracy"]
        low, high = (100 * end for end in cell["interval"])
        at = {"fraction": fraction, "train_images": cell["train_images"], "steps": cell["steps"]}
        add(
            Measurement(
                name, "cell accuracy", 100 * cell["accuracy"], "%", "data/cell-2", cell["seed"], (low, high), at
            )
        )
    for name, fractions in found.items():
        size = next(cell["parameters"] for cell in cells if cell["architecture"] == name)
        add(Measurement(name, "parameters", size, "1", "data/cell-2"))
        seconds = [cell["seconds"] for cell in cells if cell["architecture"] == name]
        add(Measurement(name, "training time", float(np.mean(seconds)), "s", "data/time-1"))
        for fraction, seeds in sorted(fractions.items()):
            mean, interval = t_interval(list(seeds.values()))
            at = {"fraction": fraction, "seeds": sorted(seeds)}
            bounded = None if interval is None else (max(0.0, interval[0]), min(100.0, interval[1]))
            if bounded is not None and bounded[0] == bounded[1]:  # seeds that all agree tell nothing of other images
                bounded = in_percent(share_interval(mean / 100 * images, images, LEVEL)) if images else None
            add(Measurement(name, "accuracy", mean, "%", "data/mean-2", None, bounded, at))
    for first, second in combinations(found, 2):
        _compare(section, first, second, found)
    section.notes.append(
        f"{settings['data']}, {images} test images; {settings['epochs']} epochs' worth of batches of "
        f"{settings['batch_size']}, {settings['image_size']} pixels, ViTs {settings['hidden_size']} wide with "
        f"{settings['layers']} layers, learning rate {settings['lr']:g} for all"
    )
    section.notes.append(f"{len(cells)} trainings took {sum(cell['seconds'] for cell in cells):.0f} s")
    return section


def t_interval(values: Sequence[float]) -> tuple[float, Interval | None]:
    """Computes the mean and its 95 % interval by Student's t; a single value has no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, (mean - half, mean + half)


def _compare(section: Section, first: str, second: str, found: dict[str, dict[float, dict[int, float]]]) -> None:
    name, rows = f"{first} against {second}", []
    for fraction in sorted(found[first].keys() & found[second].keys()):
        one, other = found[first][fraction], found[second][fraction]
        if seeds := sorted(one.keys() & other.keys()):
            mean, interval = t_interval([one[seed] - other[seed] for seed in seeds])
            if interval == (0.0, 0.0):
                interval = None  # e.g. if both are always right, which does not prove that they are equal
            rows.append((fraction, mean, interval))
            at = {"fraction": fraction, "seeds": seeds}
            section.measurements.append(
                Measurement(name, "accuracy difference", mean, "%", "data/difference-1", None, interval, at)
            )
    if not rows:
        return
    fractions = [fraction for fraction, _, _ in rows]
    # `crossing` works on ratios of costs; an accuracy difference d becomes the ratio exp(d) to 1.
    where = crossing(fractions, np.exp([mean for _, mean, _ in rows]).tolist(), [1.0] * len(rows))
    ahead = [fraction for fraction, _, interval in rows if interval is not None and interval[0] > 0]
    behind = [fraction for fraction, _, interval in rows if interval is not None and interval[1] < 0]
    if where is not None:
        established = ahead and behind
        note = "established" if established else "not established: the difference is beyond chance on one side at most"
    elif ahead or behind:
        better, parts = (first, ahead) if ahead else (second, behind)
        note = f"no crossing: {better} is ahead everywhere, beyond chance at {len(parts)} of {len(rows)} parts"
    else:
        note = f"no crossing: {first if rows[0][1] > 0 else second} is ahead everywhere, never beyond chance"
    value = None if where is None else 100 * where
    section.measurements.append(
        Measurement(name, "data crossing", value, "% of the data", "data/crossing-1", note=note)
    )


__all__ = ["PROTOCOLS", "data_section", "t_interval"]
