"""Measured steps and evaluations of a task that is thrown away afterwards."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from ..loop.accelerate_loop import AccelerateLoop
from ..loop.interruption import EvaluationStoppedError, StopRequest
from ..loop.step import StepEnd
from ..recipe.recipe import Recipe
from ..runtime.cuda_settings import deterministic_algorithms, fast_arithmetic
from ..runtime.precision import undo_autocast
from ..runtime.processes import process_state
from ..runtime.progress import QuietReporter
from ..tasks.compilation import undo_compilation
from ..tasks.task import TrainingTask
from .step_memory import StepMemory

# Fields that keep a trial from writing and from work before its steps: no trackers, no checkpoints within the steps
# that are measured, no head that is trained first.
WRITES_NOTHING: dict[str, Any] = {
    "training.trackers": [], "training.checkpoint_steps": None, "training.head_first_epochs": 0,
}  # fmt: skip
_ROUNDS = 3  # steps per trial of a task whose batches differ in shape


@dataclass(frozen=True)
class StepTimes:
    """Times of measured training steps, waiting for images included.

    Args:
        seconds: Seconds of each step after the first, which also starts the loading processes; of the first one if
            there is no other.
        first: Seconds of the first step.
        losses: Loss of each step.
    """

    seconds: list[float]
    first: float
    losses: list[float]

    @property
    def median(self) -> float:
        """Median of the seconds of a step."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class EvaluationTime:
    """Time of a measured evaluation of the first images of a split.

    Args:
        split: Name of the split.
        images: Number of images whose time was measured.
        seconds: Seconds for them.
        of: Number of images of the split.
    """

    split: str
    images: int
    seconds: float
    of: int

    @property
    def whole(self) -> float:
        """Seconds for the whole split, in proportion."""
        return self.seconds * self.of / self.images

    def to_dict(self) -> dict[str, Any]:
        """Returns the time as plain data."""
        return asdict(self)


class TrialSteps:
    """Training steps and evaluations as the run makes them, on a task that is not used afterwards.

    Args:
        task: Task of a recipe with `WRITES_NOTHING`; its weights change.
        folder: Folder for what the task computes once and keeps.
    """

    def __init__(self, task: TrainingTask, folder: Path) -> None:
        begun = time.perf_counter()
        self.task, self.loop = task, AccelerateLoop(task, folder, QuietReporter())
        self.device = self.loop.accelerator.device
        self.preparation = time.perf_counter() - begun
        self.batches: list[dict[str, Any]] = []

    def measure(self, most: int, seconds: float, keep: int = 0) -> StepTimes:
        """Makes whole training steps and times them.

        Args:
            most: Largest number of steps; no more than the run has are made.
            seconds: Seconds after which no further step is begun, if there are three.
            keep: Number of images whose batches are kept in `batches`, as they are loaded.
        """
        task, loop = self.task, self.loop
        loader = _Kept(self._loader(), self.batches, keep)
        times: list[float] = []
        end = self._begun()
        for step in range(min(most, task.total_steps)):
            if len(times) >= 3 and sum(times) >= seconds:
                break
            begun = time.perf_counter()
            loop.step(loader, step, end)
            self._wait()
            times.append(time.perf_counter() - begun)
        return StepTimes(times[1:] or times, times[0], list(loop.record.losses))

    def needed(self, images: int, memory: StepMemory) -> int:
        """Computes steps with so many images at once; returns their peak memory in bytes.

        Of a batch in several parts two are computed, as the gradients of the first are kept beside the second.

        Args:
            images: Images at once, in this process; divides the batch.
            memory: Measures the peak.

        Raises:
            torch.OutOfMemoryError: The device has not the memory.
        """
        divide(self.task, self.task.batch_size // images)
        loader, parts = self._loader(), min(2, self.task.recipe.training.accumulation)
        memory.begin()
        try:
            end = self._begun()
            for step in range(_ROUNDS if self.task.varying_shapes else 1):
                self.loop.step(loader, step, end, parts)
            self._wait()
        finally:
            self.loop.optimizer.zero_grad()
        return memory.needed()

    def evaluate(self, split: str, batches: int, *, published: bool = False) -> EvaluationTime:
        """Evaluates the first batches of a split and times them.

        Args:
            split: Name of the split.
            batches: Number of batches after the first, which also starts the loading processes.
            published: Whether the whole model is evaluated in fp32, as at the end of a run; no step may follow.
        """
        task, record = self.task, self.loop.record
        if published:
            undo_compilation(task.learner)
            undo_autocast(task.learner)
            task.finish(None)
        model, autocast = (task.model, None) if published else (record.judged, record.autocast)
        watch = _FirstBatches(batches + 1)
        begun = time.perf_counter()
        with suppress(EvaluationStoppedError):
            task.evaluate(model, split, self.loop.accelerator, watch, autocast)
        if len(watch.times) > 1:  # without the first batch
            images, spent = sum(watch.images[1:]), watch.times[-1] - watch.times[0]
        else:
            images, spent = sum(watch.images), watch.times[-1] - begun
        return EvaluationTime(split, images, spent, watch.total)

    def _loader(self) -> Iterator[Any]:
        return iter(self.task.train_loader(0))

    def _begun(self) -> StepEnd:
        """Returns the end of a first step, with the model in training mode."""
        self.loop.model.train()
        end = StepEnd(self.task, self.loop.record, self.loop.accelerator, QuietReporter(), StopRequest())
        end.begin_epoch(0, 0, self.task.steps_per_epoch)
        return end

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


@contextmanager
def as_in_a_run(recipe: Recipe) -> Iterator[None]:
    """Context with the arithmetic of a recipe's run."""
    device = process_state().device
    with deterministic_algorithms(recipe.training, device), fast_arithmetic(recipe.training, device):
        yield


def divide(task: TrainingTask, parts: int) -> None:
    """Divides the batches of a task into a number of parts that are computed one after the other."""
    task.recipe = task.batches.recipe = task.recipe.with_values({"training.accumulation": parts})


def possible_parts(recipe: Recipe, batch_size: int, images: int) -> list[int]:
    """Returns the numbers of parts, ascending, into which a batch can be divided without a change of its size.

    Args:
        recipe: Recipe of the run.
        batch_size: Images per step of the run, which are fewer than the recipe's where there are few images.
        images: Number of training images.
    """
    pair = 2 if recipe.augmentation.mixes else 1
    wanted = recipe.training.batch_size
    found = []
    for parts in range(1, batch_size // pair + 1):
        unit = parts * pair
        if wanted % unit == 0 and batch_size == min(wanted, images // unit * unit):
            found.append(parts)
    return found


class _Kept:
    """Iterator that keeps the first batches as they are loaded, before a step prepares them."""

    def __init__(self, parts: Iterator[Any], kept: list[dict[str, Any]], images: int) -> None:
        self.parts, self.kept, self.wanted = parts, kept, images

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        batch: dict[str, Any] = next(self.parts)
        if self.wanted > 0:
            self.kept.append(dict(batch))
            self.wanted -= len(batch["index"])
        return batch


class _FirstBatches(QuietReporter):
    """Reporter that notes the time of each batch of an evaluation and stops it after some."""

    def __init__(self, most: int) -> None:
        self.most, self.total = most, 0
        self.times, self.images = list[float](), list[int]()

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Notes the number of images."""
        del task, done
        self.total = total or 0

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Notes the time of a batch."""
        del figures
        self.times.append(time.perf_counter())
        self.images.append(amount)
        if len(self.times) == self.most:
            raise EvaluationStoppedError


__all__ = ["WRITES_NOTHING", "EvaluationTime", "StepTimes", "TrialSteps", "as_in_a_run", "divide", "possible_parts"]
