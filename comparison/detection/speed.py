"""Section "cost" of detectors: size, latency, throughput and memory of the very models whose figures are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...hub.inference_loading import first_line
from ...training.runtime.progress import Reporter
from ..growth import growth_exponent
from ..image_sample import Runner
from ..measurement import Measurement, Section, bootstrap_interval, count_of
from ..timing import Step, busy_notes, interleaved_times, peak_memory, seconds_of_others
from .detectors import Detector

PROTOCOLS = {
    "detector/size-1": "Parameters, and the memory that they take as they are loaded and timed.",
    "detector/latency-1": (
        "Median over rounds of the time of one image of noise as large as the image processor makes a picture, boxes "
        "read from the outputs included, decoding of the file and resizing not; the same loaded weights and the same "
        "precision as for COCO's figures, the detectors in turns and in another order in each round; interval: "
        "bootstrap of the median over rounds."
    ),
    "detector/throughput-1": "As detector/latency-1 with a batch; images per second at the median time.",
    "detector/memory-1": "Most memory that one forward pass holds beyond the weights (high-water mark, reset before).",
    "detector/side-1": "As detector/latency-1 for square images of each side, rounded down to what the model takes.",
    "detector/growth-1": (
        "k of time ~ pixels^k, least squares on logarithms over all sides that the model takes; interval: bootstrap "
        "over rounds."
    ),
}
SIDES, QUICK_SIDES = (160, 224, 320, 448, 640), (160, 224, 320)


@dataclass(frozen=True)
class SpeedSettings:
    """Settings of the measurement.

    Args:
        sides: Sides of square images in pixels, growing.
        rounds: Number of rounds per measured time.
        batch_size: Images per batch for throughput.
    """

    sides: tuple[int, ...] = SIDES
    rounds: int = 7
    batch_size: int = 4


def measure_speed(
    detectors: Sequence[Detector], picture_hw: tuple[int, int], settings: SpeedSettings, runner: Runner, seed: int,
    reporter: Reporter,
) -> Section:  # fmt: skip
    """Measures the section "cost".

    Args:
        detectors: Contestants.
        picture_hw: (height, width) of a typical picture in pixels, which each image processor resizes in its way.
        settings: Sides, rounds and batch size.
        runner: Precision, the same as for COCO's figures.
        seed: Seed of the bootstrap.
        reporter: Receives the progress.
    """
    section, spent = Section("cost", PROTOCOLS), 0.0
    others = seconds_of_others()
    reporter.start("cost", 2 + len(settings.sides))
    for one in detectors:
        _size(section, one)
    own = {one.name: one.image_hw(picture_hw) for one in detectors}
    for quantity, batch in (("latency", 1), ("throughput", settings.batch_size)):
        steps = {one.name: _step(one, own[one.name], batch, runner) for one in detectors}
        times = interleaved_times(steps, settings.rounds, runner.device)
        for name, seconds in times.items():
            height, width = own[name]
            at = {"input": f"{height} x {width}", "batch": batch}
            section.measurements.append(_timed(name, quantity, seconds, batch, seed, at))
            spent += sum(seconds)
            if quantity == "latency":
                section.measurements.append(_memory(name, steps[name], at, runner.device))
        reporter.advance()
    curves: dict[str, list[list[float]]] = {}
    for side in settings.sides:
        spent += _at_side(section, detectors, side, settings, runner, seed, curves)
        reporter.advance()
    for name, rows in curves.items():
        _growth(section, name, np.array(rows), seed)
    reporter.stop()
    section.notes += busy_notes(others, spent)
    section.notes.append(
        f"{runner.precision}, {count_of(torch.get_num_threads(), 'thread')}, device {runner.device}, "
        f"{settings.rounds} rounds, batches of {settings.batch_size} for throughput, pictures of {picture_hw[0]} x "
        f"{picture_hw[1]} pixels"
    )
    return section


def _size(section: Section, detector: Detector) -> None:
    held = sum(parameter.numel() * parameter.element_size() for parameter in detector.model.parameters())
    note = "" if held else "an exported form, whose weights are in its file"
    for quantity, value, unit in (("parameters", detector.parameters, "1"), ("weights", held / 1e6, "MB")):
        section.measurements.append(
            Measurement(detector.name, quantity, value if held else None, unit, "detector/size-1", note=note)
        )


def _step(detector: Detector, image_hw: tuple[int, int], batch: int, runner: Runner) -> Step:
    pixels = torch.randn(batch, 3, *image_hw, generator=torch.Generator().manual_seed(0)).to(runner.device)
    detector.model.to(runner.device)

    def detect() -> object:
        with runner.mode():
            return detector.answer(pixels)

    return detect


def _timed(
    name: str, quantity: str, seconds: Sequence[float], batch: int, seed: int, at: dict[str, Any]
) -> Measurement:  # fmt: skip
    per_image = np.array(seconds) / batch
    middle, ends = float(np.median(per_image)), bootstrap_interval(per_image, seed, np.median)
    if quantity == "throughput":
        rate = None if ends is None else (1 / ends[1], 1 / ends[0])
        return Measurement(name, quantity, 1 / middle, "images/s", "detector/throughput-1", seed, rate, at)
    interval = None if ends is None else (1e3 * ends[0], 1e3 * ends[1])
    protocol = "detector/side-1" if quantity == "latency by side" else "detector/latency-1"
    return Measurement(name, quantity, 1e3 * middle, "ms", protocol, seed, interval, at)


def _memory(name: str, step: Step, at: dict[str, Any], device: str) -> Measurement:
    peak = peak_memory(step, device)
    note = "" if peak is not None else "this system does not tell a process's high-water mark"
    value = None if peak is None else peak / 1e6
    return Measurement(name, "peak memory", value, "MB", "detector/memory-1", at=at, note=note)


def _at_side(
    section: Section, detectors: Sequence[Detector], side: int, settings: SpeedSettings, runner: Runner, seed: int,
    curves: dict[str, list[list[float]]],
) -> float:  # fmt: skip
    """Adds the times at one side; returns the seconds spent on timing."""
    steps, sizes = {}, {}
    for one in detectors:
        size = max(side // one.multiple, 1) * one.multiple
        step = _step(one, (size, size), 1, runner)
        at = {"side": side, "pixels": size}
        try:
            step()
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            note = f"does not take {size} x {size} pixels: {first_line(error)[:160]}"
            section.measurements.append(
                Measurement(one.name, "latency by side", None, "ms", "detector/side-1", seed, at=at, note=note)
            )
            continue
        steps[one.name], sizes[one.name] = step, size
    if not steps:
        return 0.0
    times = interleaved_times(steps, settings.rounds, runner.device)
    for name, seconds in times.items():
        at = {"side": side, "pixels": sizes[name]}
        section.measurements.append(_timed(name, "latency by side", seconds, 1, seed, at))
        curves.setdefault(name, []).append([sizes[name] ** 2, *seconds])
    return sum(map(sum, times.values()))


def _growth(section: Section, name: str, rows: np.ndarray, seed: int) -> None:
    if len(set(rows[:, 0])) < 2:
        return
    sizes, seconds = rows[:, 0], rows[:, 1:]
    exponent = float(growth_exponent(sizes, np.median(seconds, axis=1)))
    fits = bootstrap_interval(seconds.T, seed, lambda drawn, axis: growth_exponent(sizes, np.median(drawn, axis=axis)))
    at = {"from": round(sizes[0] ** 0.5), "to": round(sizes[-1] ** 0.5)}
    section.measurements.append(
        Measurement(name, "growth exponent", exponent, "1", "detector/growth-1", seed, fits, at)
    )


__all__ = ["PROTOCOLS", "QUICK_SIDES", "SIDES", "SpeedSettings", "measure_speed"]
