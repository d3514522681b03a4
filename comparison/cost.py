"""Cost of inference and training, and its growth with the image: operations, time and memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..training.runtime.progress import QuietReporter, Reporter
from .contestants import Contestant, logits_of
from .count_checks import check_counts, counted
from .growth import crossing, growth_exponent, quadratic_crossover
from .measurement import Measurement, Section, bootstrap_interval, count_of
from .operation_count import UncountedOperationError
from .timing import Step, busy_notes, interleaved_times, peak_memory, seconds_of_others

PROTOCOLS = {
    "cost/count-1": (
        "Products of matrices and convolutions, counted where torch dispatches them, of a network of the same layers "
        "rebuilt for the resolution; one multiply-accumulate (MAC) is two floating-point operations (FLOPs). Counted "
        "with and without gradients, eager and sdpa, and against the closed form where there is one; more than 0.1 % "
        "apart is an error."
    ),
    "cost/latency-1": (
        "Median over rounds of the time of one image, weights random, the contestants in turns and in another order "
        "in each round; interval: bootstrap of the median over rounds."
    ),
    "cost/throughput-1": "As cost/latency-1 with a batch; images per second at the median time.",
    "cost/training-1": "As cost/latency-1: forward, cross-entropy, backward and AdamW on a batch; ms per image.",
    "cost/memory-1": (
        "Most memory that one step holds beyond weights, gradients and optimizer state (high-water mark of the "
        "process, reset before)."
    ),
    "cost/growth-1": (
        "k of cost ~ pixels^k, least squares on logarithms over the upper half of the resolutions; interval: bootstrap "
        "over rounds."
    ),
    "cost/crossover-1": (
        "Side of a square image from which on products of tokens with tokens cost more than products of tokens with "
        "weights, from the counts at two resolutions."
    ),
    "cost/crossing-1": "Side at which the faster of two changes, interpolated on logarithms of median latencies.",
}
SIDES = (96, 128, 160, 224, 320, 448, 640, 896)
QUICK_SIDES = (96, 160, 224, 320, 448)


@dataclass(frozen=True)
class CostSettings:
    """Settings of the cost measurement.

    Args:
        sides: Sides of square images in pixels, growing; a contestant uses the largest size up to each side for which
            it can be built. The contestants' own input sizes are added.
        training_sides: Sides at which the training step is measured too, treated like `sides`; empty measures none.
        rounds: Number of rounds per measured time.
        batch_size: Images per batch for throughput.
        training_batch: Images per training step.
        precision: Number format: "fp32", or "bf16" (weights and pixels in inference, autocast in training).
        device: Device to compute on.
    """

    sides: tuple[int, ...] = SIDES
    training_sides: tuple[int, ...] = (96, 160, 224, 320, 448)
    rounds: int = 7
    batch_size: int = 8
    training_batch: int = 4
    precision: str = "fp32"
    device: str = "cpu"

    def with_sides(self, own: Iterable[int]) -> "CostSettings":
        """Returns settings with the contestants' own input sizes added: the cost at these sizes matters most."""
        own = set(own)
        return replace(
            self,
            sides=tuple(sorted(own.union(self.sides))),
            training_sides=tuple(sorted(own.union(self.training_sides))) if self.training_sides else (),
        )


def measure_cost(
    contestants: Sequence[Contestant], settings: CostSettings, seed: int = 0, reporter: Reporter | None = None
) -> Section:
    """Measures the section "cost".

    Raises:
        CountMismatchError: Different ways of counting a contestant's operations disagree.
    """
    reporter = reporter or QuietReporter()
    settings = settings.with_sides(one.image_hw[0] for one in contestants)
    section = Section("cost", PROTOCOLS)
    reporter.start("cost", len(contestants) + len(settings.sides) + len(settings.training_sides))
    for contestant in contestants:
        _count(section, contestant, settings)
        reporter.advance()
    others, wall = seconds_of_others(), 0.0
    for mode in ("inference", "training"):
        times: dict[str, dict[str, list[list[float]]]] = {}
        sides = settings.sides if mode == "inference" else settings.training_sides
        for side in sides:
            wall += _time(section, contestants, settings, side, mode, seed, times)
            reporter.advance()
        for quantity, found in times.items():
            _growth(section, quantity, found, seed)
    _crossings(section, contestants)
    reporter.stop()
    section.notes += busy_notes(others, wall)
    section.notes.append(
        f"{settings.precision}, {count_of(torch.get_num_threads(), 'thread')}, device {settings.device}, "
        f"{settings.rounds} rounds, batches of {settings.batch_size} (inference) and {settings.training_batch} "
        "(training)"
    )
    return section


def _count(section: Section, contestant: Contestant, settings: CostSettings) -> None:
    name, add = contestant.name, section.measurements.append
    own = {"pixels": contestant.image_hw[0]}
    add(Measurement(name, "parameters", contestant.parameters, "1", "cost/count-1", at=own))
    try:
        deviation = check_counts(contestant)
    except UncountedOperationError as error:
        add(Measurement(name, "macs", None, "MAC", "cost/count-1", at=own, note=str(error)))
        return
    add(Measurement(name, "count deviation", 100 * deviation, "%", "cost/count-1", at=own))
    sizes, macs, kinds = [], [], []
    for side in settings.sides:
        image_hw = contestant.resolution(side)
        size = {"side": side, "pixels": image_hw[0]}
        count = counted(contestant, image_hw).checked()
        add(Measurement(name, "macs", count.macs, "MAC", "cost/count-1", at=size))
        add(Measurement(name, "flops", count.flops, "FLOP", "cost/count-1", at=size))
        attention = count.by_kind.get("attention", 0)
        add(Measurement(name, "attention share", 100 * attention / count.macs, "%", "cost/count-1", at=size))
        if side in settings.training_sides:
            training = counted(contestant, image_hw, training=True).checked()
            add(Measurement(name, "training macs", training.macs, "MAC", "cost/count-1", at=size))
        sizes.append(image_hw[0] * image_hw[1])
        macs.append(count.macs)
        kinds.append((attention, count.by_kind.get("linear", 0)))
    if len(set(sizes)) > 1:
        half = slice((len(sizes) - 1) // 2, None)
        exponent = float(growth_exponent(sizes[half], np.array(macs[half])))
        at: dict[str, Any] = {"of": "macs", "from": settings.sides[half][0], "to": settings.sides[-1]}
        add(Measurement(name, "growth exponent", exponent, "1", "cost/growth-1", at=at))
        (first, first_linear), (last, last_linear) = kinds[0], kinds[-1]
        where = quadratic_crossover((sizes[0], sizes[-1]), (first, last), (first_linear, last_linear))
        note = "" if where is not None else "no attention over the whole image"
        side_px = None if where is None else where**0.5
        add(Measurement(name, "quadratic crossover", side_px, "px", "cost/crossover-1", note=note))


def _time(
    section: Section, contestants: Sequence[Contestant], settings: CostSettings, side: int, mode: str, seed: int,
    times: dict[str, dict[str, list[list[float]]]],
) -> float:  # fmt: skip
    """Adds times and memory at one resolution; returns the seconds spent on timing."""
    batches = {"latency": 1, "throughput": settings.batch_size}
    if mode == "training":
        batches = {"training step": settings.training_batch}
    models = {one.name: one.build(one.resolution(side)).to(settings.device) for one in contestants}
    sizes = {one.name: one.resolution(side) for one in contestants}
    spent = 0.0
    for quantity, batch in batches.items():
        steps = {name: _step(model, sizes[name], batch, mode, settings) for name, model in models.items()}
        found = interleaved_times(steps, settings.rounds, settings.device)
        for name, seconds in found.items():
            at = {"side": side, "pixels": sizes[name][0], "batch": batch}
            spent += sum(seconds)
            per_image = np.array(seconds) / batch
            low_high = bootstrap_interval(per_image, seed, np.median)
            middle = float(np.median(per_image))
            if quantity == "throughput":
                rate = None if low_high is None else (1 / low_high[1], 1 / low_high[0])
                one = Measurement(name, quantity, 1 / middle, "images/s", "cost/throughput-1", seed, rate, at)
            else:
                protocol = "cost/latency-1" if quantity == "latency" else "cost/training-1"
                interval = None if low_high is None else (1e3 * low_high[0], 1e3 * low_high[1])
                one = Measurement(name, quantity, 1e3 * middle, "ms", protocol, seed, interval, at)
            section.measurements.append(one)
            times.setdefault(quantity, {}).setdefault(name, []).append([sizes[name][0] ** 2, *seconds])
            if quantity != "throughput":
                _memory(section, name, quantity, steps[name], at, settings.device)
    return spent


def _memory(section: Section, name: str, quantity: str, step: Step, at: dict[str, Any], device: str) -> None:
    peak = peak_memory(step, device)
    note = "" if peak is not None else "this system does not tell a process's high-water mark"
    kind = "peak memory" if quantity == "latency" else "training peak memory"
    value = None if peak is None else peak / 1e6
    section.measurements.append(Measurement(name, kind, value, "MB", "cost/memory-1", at=at, note=note))


def _step(
    model: nn.Module, image_hw: tuple[int, int], batch: int, mode: str, settings: CostSettings
) -> Callable[[], object]:
    """Returns a function that makes one inference or training step on a batch of noise."""
    half = settings.precision == "bf16"
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, *image_hw, generator=generator).to(settings.device)
    if mode == "inference":
        dtype = torch.bfloat16 if half else torch.float32
        model.eval().to(dtype)
        pixels = pixels.to(dtype)

        @torch.inference_mode()
        def classify() -> object:
            return logits_of(model, pixels)

        return classify
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    labels = torch.zeros(batch, dtype=torch.long, device=settings.device)

    def learn() -> object:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(settings.device.split(":")[0], torch.bfloat16, enabled=half):
            logits = logits_of(model, pixels)
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), labels))
        optimizer.step()
        return None

    return learn


def _growth(section: Section, quantity: str, found: dict[str, list[list[float]]], seed: int) -> None:
    for name, rows in found.items():
        upper = np.array(rows[(len(rows) - 1) // 2 :])
        if quantity == "throughput" or len(set(upper[:, 0])) < 2:
            continue
        sizes, seconds = upper[:, 0], upper[:, 1:]
        exponent = float(growth_exponent(sizes, np.median(seconds, axis=1)))
        # Rounds are resampled, (rounds, sides), so that a disturbed round stays together.
        fits = bootstrap_interval(
            seconds.T, seed, lambda drawn, axis, sizes=sizes: growth_exponent(sizes, np.median(drawn, axis=axis))
        )
        at = {"of": quantity, "from": round(sizes[0] ** 0.5), "to": round(sizes[-1] ** 0.5)}
        section.measurements.append(
            Measurement(name, "growth exponent", exponent, "1", "cost/growth-1", seed, fits, at)
        )


def _crossings(section: Section, contestants: Sequence[Contestant]) -> None:
    names = [one.name for one in contestants]
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            one, other = (section.find("latency", name) for name in (first, second))
            sides = [m.at["side"] for m in one]
            values = [[m.value or 0.0 for m in rows] for rows in (one, other)]
            where = crossing(sides, *values)
            faster = first if values[0][-1] < values[1][-1] else second
            note = f"{faster} is faster at {'all sizes' if where is None else 'larger ones'}"
            section.measurements.append(
                Measurement(f"{first} against {second}", "latency crossing", where, "px", "cost/crossing-1", note=note)
            )


__all__ = ["PROTOCOLS", "QUICK_SIDES", "SIDES", "CostSettings", "measure_cost"]
