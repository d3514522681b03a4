"""Settings, records and small helpers that the phases of the card's check share."""

import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Record = dict[str, Any]
FP32_TOLERANCE = 1e-4  # largest difference allowed between two devices, relative to the largest value
GRADIENT_TOLERANCE = 1e-3  # the same for gradients, whose sums are longer
LOSS_TOLERANCE = 2e-3  # of losses over 20 steps in fp32, relative: rounding grows as the weights part
HALF_TOLERANCE = 5e-2  # of losses in half precision against fp32, relative


@dataclass(frozen=True)
class Check:
    """Settings of a check.

    Args:
        device: Device under test: "cuda", "cuda:1" or "cpu".
        tiny: Whether models and data are so small that a CPU computes them in seconds.
        folder: Empty folder for the files of the phase.
        photos: Folder of JPEG files, or None for generated ones.
    """

    device: str
    tiny: bool
    folder: Path
    photos: Path | None = None

    @property
    def gpu(self) -> bool:
        """Whether the device under test is a GPU."""
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Waits until the device has finished."""
        if self.gpu:
            torch.cuda.synchronize(self.device)


def verdict(holds: bool, **figures: Any) -> Record:
    """Record of something that must hold."""
    return {"status": "passed" if holds else "failed", **figures}


def measured(**figures: Any) -> Record:
    """Record of something that is only measured."""
    return {"status": "measured", **figures}


def not_available(why: str) -> Record:
    """Record of something that cannot be tried here."""
    return {"status": "not available", "why": why}


Step = Callable[[Check], Record | Iterator[Record]]


def records(phase: str, steps: tuple[Step, ...], check: Check) -> Iterator[Record]:
    """Runs the steps of a phase and yields their records; one that raises gives a failed one, and the next goes on."""
    for step in steps:
        begun = time.perf_counter()
        try:
            found = step(check)
            for record in [found] if isinstance(found, dict) else found:
                yield _complete(phase, step, record, begun)
                begun = time.perf_counter()
        except Exception as error:  # noqa: BLE001  # one fault must not hide what else there is to see
            last = traceback.extract_tb(error.__traceback__)[-4:]
            where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in last]
            failure = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000], "where": where}
            yield _complete(phase, step, failure, begun)


def _complete(phase: str, step: Step, record: Record, begun: float) -> Record:
    seconds = round(time.perf_counter() - begun, 2)
    return {"phase": phase, "check": step.__name__, **record, "seconds": seconds}


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference of two tensors, relative to the largest absolute value of the second."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    largest = theirs.abs().max().item()
    return float((ours - theirs).abs().max().item() / max(largest, 1e-12)) if theirs.numel() else 0.0


def largest_relative(ours: list[float], theirs: list[float]) -> float:
    """Largest difference of two lists of losses, each relative to its value in the second."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} losses against {len(theirs)}")
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True))


def exact_products() -> None:
    """Turns TF32 off, which is on for convolutions by default and differs from fp32 by about 1e-3."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def photos(count: int, size: tuple[int, int] = (48, 64)) -> Any:
    """Labelled data set in memory of `count` generated images (height, width) of four colours, the same everywhere."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures

    draws, images, labels = np.random.default_rng(0), [], []
    for number in range(count):
        pixels = draws.integers(0, 120, (*size, 3), dtype=np.uint8)
        label = number % 4
        if label < 3:
            pixels[..., label] += 100
        images.append(Pictures.fromarray(pixels))
        labels.append(label)
    names = ClassLabel(names=["red", "green", "blue", "grey"])
    return Dataset.from_dict({"image": images, "label": labels}, features=Features({"image": Image(), "label": names}))


def boxed_photos(count: int, size: tuple[int, int] = (64, 96)) -> Any:
    """Data set in memory of `count` generated images (height, width) with one or two squares and their boxes."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value
    from PIL import Image as Pictures

    draws, images, objects = np.random.default_rng(0), [], []
    for number in range(count):
        pixels, boxes, kinds = np.full((*size, 3), 90, np.uint8), [], []
        for _ in range(1 + number % 2):
            side, kind = int(draws.integers(size[0] // 4, size[0] // 2)), int(draws.integers(2))
            left, top = int(draws.integers(0, size[1] - side)), int(draws.integers(0, size[0] - side))
            pixels[top : top + side, left : left + side] = ([240, 30, 30], [30, 30, 240])[kind]
            boxes.append([float(value) for value in (left, top, side, side)])
            kinds.append(kind)
        images.append(Pictures.fromarray(pixels))
        objects.append({"bbox": boxes, "category": kinds})
    kinds_of = {"bbox": List(List(Value("float64"))), "category": List(ClassLabel(names=["red", "blue"]))}
    return Dataset.from_dict(
        {"image": images, "objects": objects}, features=Features({"image": Image(), "objects": kinds_of})
    )


def in_turns(
    arms: dict[str, Callable[[], object]], check: Check, rounds: int, seconds: float, warm_up: int = 3
) -> dict[str, list[float]]:
    """Seconds per step of each arm in each round; in each round the arms take turns in another order."""
    for step in arms.values():
        for _ in range(1 if check.tiny else warm_up):
            step()
    check.wait()
    found: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(1 if check.tiny else rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun, steps = time.perf_counter(), 0
            while steps < 1 or time.perf_counter() - begun < (0 if check.tiny else seconds):
                for _ in range(1 if check.tiny else 5):
                    arms[name]()
                    steps += 1
                check.wait()
            found[name].append((time.perf_counter() - begun) / steps)
    return found


def speeds(found: dict[str, list[float]], images: int, ours: str) -> Record:
    """Images per second of each arm (median of rounds), and the median over rounds of our rate to each other's."""
    rates = {name: round(images / statistics.median(times), 2) for name, times in found.items()}
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(found[ours], times, strict=True)), 3)
        for name, times in found.items()
        if name != ours
    }
    return {"images_per_second": rates, "ours_to": ratios}


def elsewhere(job: dict[str, Any], environment: dict[str, str], limit: float = 240) -> dict[str, Any]:
    """Result of `train_once.py` in a process of its own, with other environment variables.

    Raises:
        RuntimeError: The process failed; the message has the end of its output.
    """
    command = [sys.executable, str(Path(__file__).with_name("train_once.py"))]
    done = subprocess.run(
        command, input=json.dumps(job), env=os.environ | environment, capture_output=True, text=True, timeout=limit,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1500:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
