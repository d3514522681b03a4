"""Consistency of answers when the image is shifted, separated from the effect of accuracy.

A classifier that is always right is always consistent, so consistency is given four times: over all images, over those
that the contestant has right, over those that every contestant has right, and at matched accuracy, where the
consistencies of right and of wrong images are weighted by the accuracy of the least accurate contestant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..training.runtime.progress import QuietReporter, Reporter
from .contestants import Contestant
from .image_sample import ImageSample, Runner, canvases, right_answers, served
from .measurement import (
    WILSON,
    WILSON_IMAGES,
    Measurement,
    Section,
    bootstrap_interval,
    in_percent,
    mean_share_interval,
    weighted_interval,
)
from .shift_consistency import (
    ShiftAnswers,
    crop_consistency,
    equivariance_error,
    one_pixel_jaggedness,
    shift_grid,
    shift_table,
)

PROTOCOLS = {
    "translation/accuracy-2": (
        f"Share of images whose first choice is their label, through the transform as served; {WILSON}."
    ),
    "translation/crops-2": (
        "Two crops of the contestant's size drawn from the middle square scaled to 8/7 of it (256 for 224): share of "
        "pairs with the same first choice (Zhang 2019), the same crops for every contestant of that size; "
        f"{WILSON_IMAGES}."
    ),
    "translation/jaggedness-2": (
        f"Share of steps of one pixel along a diagonal at which the first choice changes; {WILSON_IMAGES}."
    ),
    "translation/circular-2": (
        "Images rolled round their edges by 1 to 32 pixels: share with the answer of the unmoved image; "
        f"{WILSON_IMAGES}."
    ),
    "translation/equivariance-1": (
        "|F(moved x) - moved F(x)| / |F(x)| of the last feature map, centred; rolled to the right; 0 is equivariance, "
        "about 1.4 unrelated features."
    ),
    "translation/distance-1": "Mean total variation between the probabilities of two views, sum |p - q| / 2.",
    "translation/matched-2": (
        "Consistency of right and of wrong images, weighted as if the accuracy were that of the least accurate "
        "contestant; interval: of both parts as above, combined as Zou and Donner 2008."
    ),
}


@dataclass(frozen=True)
class TranslationSettings:
    """Settings of the translation measurement.

    Args:
        pairs: Number of pairs of crops per image.
        steps: Number of one-pixel steps.
        shifts: Number of circular shifts per image, drawn once.
        equivariance_shifts: Shifts to the right in pixels, for the equivariance error.
        equivariance_images: Number of images for the equivariance error.
        map_reach: Upper end (excluded) of the heat map's shifts in both directions, in pixels.
        map_step: Distance between the heat map's cells, in pixels.
        map_images: Number of images over which the heat map is averaged.
    """

    pairs: int = 5
    steps: int = 16
    shifts: int = 16
    equivariance_shifts: tuple[int, ...] = (1, 2, 4, 7, 8, 12, 14, 16, 24, 28, 32)
    equivariance_images: int = 32
    map_reach: int = 32
    map_step: int = 2
    map_images: int = 8


def measure_translation(
    contestants: Sequence[Contestant], sample: ImageSample, settings: TranslationSettings, runner: Runner,
    seed: int = 0, reporter: Reporter | None = None,
) -> Section:  # fmt: skip
    """Measures the section "translation"; the contestants' logits must be in the order of the sample's labels."""
    reporter = reporter or QuietReporter()
    section = Section("translation", PROTOCOLS)
    reporter.start("translation", 5 * len(contestants))
    answers: dict[str, dict[str, ShiftAnswers]] = {}
    right: dict[str, np.ndarray] = {}
    for one in contestants:
        name, logits = one.name, runner.logits(one)
        right[name] = right_answers(logits(served(one, sample.images)), sample.labels)
        interval = in_percent(mean_share_interval(right[name]))
        section.measurements.append(
            Measurement(name, "accuracy", 100 * right[name].mean(), "%", "translation/accuracy-2", seed, interval)
        )
        canvas = canvases(one, sample.images, canvas_size(one.image_hw))
        reporter.advance()
        found = answers.setdefault(name, {})
        found["crop"] = crop_consistency(logits, canvas, one.image_hw, settings.pairs, seed)
        reporter.advance()
        room = min(canvas.shape[2] - one.image_hw[0], canvas.shape[3] - one.image_hw[1])
        found["one-pixel"] = one_pixel_jaggedness(logits, canvas, one.image_hw, min(settings.steps, room))
        reporter.advance()
        whole = canvases(one, sample.images, one.image_hw)
        agreement, distance = shift_table(logits, whole, drawn_shifts(one.image_hw, settings.shifts, seed))
        found["circular"] = ShiftAnswers(agreement.mean(1), distance.mean(1), settings.shifts)
        _heat_maps(section, one, whole[: settings.map_images], settings, logits)
        reporter.advance()
        _equivariance(section, one, whole[: settings.equivariance_images], settings, runner, seed)
        reporter.advance()
    reporter.stop()
    by_all = np.prod(list(right.values()), axis=0)
    lowest = min(float(values.mean()) for values in right.values())
    for name, kinds in answers.items():
        for kind, found_answers in kinds.items():
            _consistency(section, name, kind, found_answers, right[name], by_all, lowest, seed)
    section.notes.append(
        f"{len(sample.images)} of {sample.total} images of {sample.name}, split {sample.split}; {runner.precision}; "
        f"matched accuracy {100 * lowest:.1f} %"
    )
    if len({one.image_hw for one in contestants}) > 1:
        section.notes.append("the contestants see images of different sizes: a pixel is not the same distance to all")
    return section


def canvas_size(image_hw: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) from which crops are drawn: 8/7 of the contestant's size, at least one pixel more."""
    height, width = (max(side + 1, round(side * 8 / 7)) for side in image_hw)
    return height, width


def drawn_shifts(image_hw: tuple[int, int], count: int, seed: int) -> list[tuple[int, int]]:
    """Draws shifts (down, right) of up to 32 pixels, or half the image, without (0, 0)."""
    reach = min(32, *(side // 2 for side in image_hw))
    grid = np.array(shift_grid((reach + 1, reach + 1), 1)[1:])
    chosen = np.random.default_rng(seed).choice(len(grid), size=min(count, len(grid)), replace=False)
    return [(int(down), int(right)) for down, right in grid[chosen]]


def at_accuracy(values: np.ndarray, right: np.ndarray, accuracy: float, axis: int = -1) -> np.ndarray:
    """Computes the mean of values if a share `accuracy` of the images were right; NaN if it cannot be known."""
    with np.errstate(invalid="ignore"):
        of_right = (values * right).sum(axis) / right.sum(axis)
        of_wrong = (values * (1 - right)).sum(axis) / (1 - right).sum(axis)
    if accuracy == 1:
        return of_right
    return accuracy * of_right + (1 - accuracy) * of_wrong if accuracy > 0 else of_wrong


def _consistency(
    section: Section, name: str, kind: str, answers: ShiftAnswers, right: np.ndarray, by_all: np.ndarray,
    lowest: float, seed: int,
) -> None:  # fmt: skip
    agreement, distance = answers.agreement.double().numpy(), answers.distance.double().numpy()
    protocol = {"crop": "crops-2", "one-pixel": "jaggedness-2", "circular": "circular-2"}[kind]
    flips = kind == "one-pixel"
    quantity = "jaggedness" if flips else f"{kind} consistency"
    values = 1 - agreement if flips else agreement
    masks = {"all images": np.ones_like(right), "right": right, "right by all": by_all}
    for subset, mask in masks.items():
        for what, unit, scale, numbers, how in (
            (quantity, "%", 100.0, values, f"translation/{protocol}"),
            (f"{kind} distance", "1", 1.0, distance, "translation/distance-1"),
        ):
            chosen = scale * numbers[mask > 0]
            at: dict[str, Any] = {"subset": subset, "images": len(chosen), "pairs": answers.pairs}
            note = "" if len(chosen) else "there is no such image"
            mean = float(chosen.mean()) if len(chosen) else None
            interval = (
                in_percent(mean_share_interval(numbers[mask > 0], answers.pairs)) if unit == "%"
                else bootstrap_interval(chosen, seed)
            )  # fmt: skip
            section.measurements.append(Measurement(name, what, mean, unit, how, seed, interval, at, note))
    matched = float(at_accuracy(values, right, lowest))
    known = np.isfinite(matched)
    parts = [(lowest, values[right > 0]), (1 - lowest, values[right == 0])]
    interval = None
    if known:
        interval = in_percent(
            weighted_interval(
                [
                    (weight, chosen.mean(), mean_share_interval(chosen, answers.pairs))
                    for weight, chosen in parts
                    if weight
                ]
            )
        )
    note = "" if known else "no image is wrong, so that a lower accuracy cannot be matched"
    at = {"subset": "matched accuracy", "accuracy": 100 * lowest, "pairs": answers.pairs}
    section.measurements.append(
        Measurement(
            name, quantity, 100 * matched if known else None, "%", "translation/matched-2", seed, interval, at, note
        )
    )


def _heat_maps(
    section: Section, one: Contestant, images: torch.Tensor, settings: TranslationSettings, logits: Any
) -> None:
    """Adds mean agreement and distance over images for every shift of a grid, in per cent."""
    reach = min(settings.map_reach, *one.image_hw)
    shifts = shift_grid((reach, reach), settings.map_step)
    side = len(range(0, reach, settings.map_step))
    for kind, table in zip(("agreement", "distance"), shift_table(logits, images, shifts), strict=True):
        cells = 100 * table.double().mean(0).view(side, side)
        section.maps[f"{one.name}: {kind}"] = [[round(value, 3) for value in row] for row in cells.tolist()]
    section.maps.setdefault("shifts in pixels", [[float(value) for value in range(0, reach, settings.map_step)]])


def _equivariance(
    section: Section, one: Contestant, images: torch.Tensor, settings: TranslationSettings, runner: Runner, seed: int
) -> None:
    features = runner.features(one)
    cells = features(images[:1]).shape
    for shift in settings.equivariance_shifts:
        if shift >= images.shape[3]:
            continue
        errors = equivariance_error(features, images, (0, shift)).double().numpy()
        at = {"shift": shift, "cell": images.shape[3] / cells[3], "images": len(images)}
        section.measurements.append(
            Measurement(
                one.name, "equivariance error", float(errors.mean()), "1", "translation/equivariance-1", seed,
                bootstrap_interval(errors, seed), at,
            )
        )  # fmt: skip


__all__ = [
    "PROTOCOLS",
    "TranslationSettings",
    "at_accuracy",
    "canvas_size",
    "drawn_shifts",
    "measure_translation",
]
