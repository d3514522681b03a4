"""Robustness of classifiers to degraded images: accuracy and calibration under corruption and cut patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as pixels_v2

from ..data.seeding import derived_seed
from ..training.runtime.progress import QuietReporter, Reporter
from ..training.tasks.classification.metrics.single_label import ClassificationMetrics
from .contestants import Contestant
from .corruptions import CORRUPTIONS, SEVERITIES, corrupt, drop_cells, permute_cells
from .image_sample import ImageSample, Runner, right_answers, served
from .measurement import WILSON, WILSON_IMAGES, Measurement, Section, in_percent, mean_share_interval

PROTOCOLS = {
    "robustness/clean-2": f"The images as they are, through the transform as served; {WILSON}.",
    "robustness/corruption-2": (
        "Images with the shorter side at most 256 pixels are corrupted once, the same for every contestant, and go "
        "through its transform; parameters of Hendrycks and Dietterich 2019 as far as torchvision has the operation; "
        f"{WILSON}."
    ),
    "robustness/permutation-2": f"What the contestant is shown, cut into a grid whose cells are shuffled; {WILSON}.",
    "robustness/dropping-2": (
        f"What the contestant is shown, with a part of the cells of a grid set to the mean colour; {WILSON}."
    ),
    "robustness/calibration-1": (
        "Expected calibration error: distance of confidence and accuracy over 15 bins of equal width, weighted by "
        "images. No interval: resampling makes bins look worse than they are. Few images raise it."
    ),
    "robustness/mean-2": f"Share of right answers over all corruptions and severities; {WILSON_IMAGES}.",
}
SHORTER_SIDE = 256


@dataclass(frozen=True)
class RobustnessSettings:
    """Settings of the robustness measurement.

    Args:
        corruptions: Names of corruptions, from `CORRUPTIONS`.
        severities: Severities, from 1 to 5.
        permutation_grids: Grid sizes (rows = columns) whose cells are shuffled.
        dropped_parts: Shares of the cells to drop, in (0, 1).
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = SEVERITIES
    permutation_grids: tuple[int, ...] = (2, 4, 8, 16)
    dropped_parts: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)


def measure_robustness(
    contestants: Sequence[Contestant], sample: ImageSample, settings: RobustnessSettings, runner: Runner,
    seed: int = 0, reporter: Reporter | None = None,
) -> Section:  # fmt: skip
    """Measures the section "robustness"; the contestants' logits must be in the order of the sample's labels.

    Raises:
        ValueError: A corruption or severity does not exist, or a dropped share is out of range.
    """
    reporter = reporter or QuietReporter()
    section = Section("robustness", PROTOCOLS)
    steps = 1 + len(settings.corruptions) * len(settings.severities)
    steps += len(settings.permutation_grids) + len(settings.dropped_parts)
    reporter.start("robustness", steps * len(contestants))
    pictures = [_bounded(image) for image in sample.images]
    shown = {one.name: served(one, sample.images) for one in contestants}
    for one in contestants:
        _judge(section, one, shown[one.name], sample, runner, seed, {"kind": "clean"}, "robustness/clean-2")
        reporter.advance()
    rows: dict[str, list[np.ndarray]] = {one.name: [] for one in contestants}
    for place, name in enumerate(settings.corruptions):
        for severity in settings.severities:
            damaged = [
                _picture(corrupt(image, name, severity, derived_seed(seed, place, severity, number)))
                for number, image in enumerate(pictures)
            ]
            at = {"kind": name, "severity": severity}
            for one in contestants:
                pixels = served(one, damaged)
                rows[one.name].append(_judge(section, one, pixels, sample, runner, seed, at, "robustness/corruption-2"))
                reporter.advance()
    for name, found in rows.items():
        if not found:
            continue
        per_image = np.mean(found, axis=0)
        interval = in_percent(mean_share_interval(per_image, len(found)))
        at = {"kinds": len(settings.corruptions), "severities": list(settings.severities)}
        section.measurements.append(
            Measurement(
                name,
                "mean corrupted accuracy",
                100 * float(per_image.mean()),
                "%",
                "robustness/mean-2",
                seed,
                interval,
                at,
            )
        )
    for one in contestants:
        _cut(section, one, shown[one.name], sample, settings, runner, seed, contestants, reporter)
    reporter.stop()
    section.notes.append(
        f"{len(sample.images)} of {sample.total} images of {sample.name}, split {sample.split}; {runner.precision}"
    )
    section.notes.append(
        "corruptions built on torchvision: not among them defocus, glass and zoom blur, snow, frost, fog, spatter and "
        "speckle noise; a mean over these is not the mCE of the paper"
    )
    return section


def _cut(
    section: Section, one: Contestant, shown: torch.Tensor, sample: ImageSample, settings: RobustnessSettings,
    runner: Runner, seed: int, contestants: Sequence[Contestant], reporter: Reporter,
) -> None:  # fmt: skip
    for grid in settings.permutation_grids:
        if grid <= min(one.image_hw):
            generator = torch.Generator().manual_seed(derived_seed(seed, 1, grid))
            pixels = permute_cells(shown, grid, generator)
            at: dict[str, Any] = {"kind": "patch permutation", "grid": grid}
            _judge(section, one, pixels, sample, runner, seed, at, "robustness/permutation-2")
        reporter.advance()
    grid = dropping_grid(one.image_hw, contestants)
    for number, part in enumerate(settings.dropped_parts):
        if not 0 < part < 1:
            raise ValueError(f"a part of dropped cells lies between 0 and 1, got {part!r}")
        generator = torch.Generator().manual_seed(derived_seed(seed, 2, number))
        at = {"kind": "patch dropping", "part": part, "grid": grid}
        pixels = drop_cells(shown, grid, part, generator)
        _judge(section, one, pixels, sample, runner, seed, at, "robustness/dropping-2")
        reporter.advance()


def dropping_grid(image_hw: tuple[int, int], contestants: Sequence[Contestant]) -> int:
    """Returns the number of cells per row: one per patch of the contestant with the largest patches, else 14."""
    largest = max(max(one.multiple) for one in contestants)
    return max(1, min(image_hw) // largest) if largest > 1 else min(14, *image_hw)


def _judge(
    section: Section, one: Contestant, pixels: torch.Tensor, sample: ImageSample, runner: Runner, seed: int,
    at: dict[str, Any], protocol: str,
) -> np.ndarray:  # fmt: skip
    """Adds accuracy and calibration to the section; returns 1.0 for each right answer, else 0.0, (n,)."""
    logits = runner.logits(one)(pixels)
    counts = ClassificationMetrics(logits.shape[1])
    counts.update(logits, sample.labels)
    metrics = counts.compute()
    low, high = counts.intervals(seed=seed)["accuracy"]
    add = section.measurements.append
    add(
        Measurement(
            one.name, "accuracy", 100 * metrics["accuracy"], "%", protocol, seed, (100 * low, 100 * high), dict(at)
        )
    )
    error = 100 * metrics["expected_calibration_error"]
    add(Measurement(one.name, "calibration error", error, "%", "robustness/calibration-1", seed, at=dict(at)))
    return right_answers(logits, sample.labels)


def _bounded(image: Image.Image) -> torch.Tensor:
    """Converts an image to uint8 (3, H, W), reduced to a shorter side of at most 256 pixels."""
    shorter = min(image.size)
    if shorter > SHORTER_SIDE:
        width, height = (round(side * SHORTER_SIDE / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.as_tensor(pixels_v2.pil_to_tensor(image))


def _picture(image: torch.Tensor) -> Image.Image:
    found: Image.Image = pixels_v2.to_pil_image(image)
    return found


__all__ = ["PROTOCOLS", "SHORTER_SIDE", "RobustnessSettings", "dropping_grid", "measure_robustness"]
