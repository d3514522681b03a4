"""Samplers of training images, whose batches depend only on the seed and the step and are split among processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from .argument_names import argument
from .seeding import Stream, derived_generator


@dataclass(frozen=True)
class SampleKey:
    """Key that determines a training sample and its random choices.

    Args:
        index: Row of the data set.
        epoch: Epoch, from 0.
        position: Position within the epoch, from 0; two copies of one image have two positions.
    """

    index: int
    epoch: int
    position: int


class TrainingOrder:
    """Order of all training images in all epochs, in global batches.

    Each epoch is a new permutation. With repeated augmentation (https://arxiv.org/abs/1901.09335, as DeiT uses it) a
    batch holds `repeats` copies of fewer images, so that an epoch has the same number of steps but uses only some of
    the images.

    Args:
        size: Number of images.
        batch_size: Global batch size, over all processes and accumulation steps; at most `size`.
        seed: Seed of the permutations.
        repeats: Number of copies of each image in a batch.

    Raises:
        ValueError: `batch_size` is not 1 to `size`.
    """

    def __init__(self, size: int, batch_size: int, seed: int, repeats: int = 1) -> None:
        if not 1 <= batch_size <= size:
            raise ValueError(
                f"{argument('batch_size')} must be 1 to {size}, the number of training images, got {batch_size}"
            )
        self.size, self.batch_size, self.seed, self.repeats = size, batch_size, seed, repeats
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in an epoch; the images left over are drawn anew in each epoch."""
        return self.size // self.batch_size

    def batch(self, step: int) -> list[SampleKey]:
        """Global batch of a step; steps count from 0 over all epochs."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._permutation = self._rows(derived_generator(self.seed, Stream.ORDER, epoch))
            self._epoch = epoch
        start = step_in_epoch * self.batch_size
        distinct = -(-self.batch_size // self.repeats)
        first = step_in_epoch * distinct
        # copies stand a block apart, so that neighbours, which may be mixed, are different images
        rows = [int(self._permutation[first + slot % distinct]) for slot in range(self.batch_size)]
        return [SampleKey(row, epoch, start + slot) for slot, row in enumerate(rows)]

    def _rows(self, generator: np.random.Generator) -> np.ndarray:
        """Permutation of all rows for an epoch, (N,)."""
        return generator.permutation(self.size)


class AspectGroupedOrder(TrainingOrder):
    """Training order that differs from `TrainingOrder` by batches of similar aspect ratio, which need less padding.

    Images are grouped by width to height; the remainders of the groups fill further batches together. The composition
    of the batches, their order, and the images that fill no batch are drawn anew in each epoch.

    Args:
        aspect_ratios: Width to height of each image, (N,).
        batch_size: Global batch size, over all processes and accumulation steps; at most N.
        seed: Seed of the permutations.
        groups: Number of groups, which have about equal numbers of images.

    Raises:
        ValueError: A ratio is not positive and finite, or `groups` is below 1.
    """

    def __init__(self, aspect_ratios: Sequence[float], batch_size: int, seed: int, groups: int = 4) -> None:
        super().__init__(len(aspect_ratios), batch_size, seed)
        ratios = np.asarray(aspect_ratios, dtype=np.float64)
        if groups < 1 or not (np.isfinite(ratios) & (ratios > 0)).all():
            raise ValueError("aspect ratios must be positive and finite, and `groups` 1 or more")
        # limits lie between ratios that differ, so that images of one shape are in one group
        limits = np.unique(np.quantile(ratios, np.arange(1, groups) / groups, method="inverted_cdf"))
        self.group = np.searchsorted(limits, ratios, side="left")

    def _rows(self, generator: np.random.Generator) -> np.ndarray:
        rows = generator.permutation(self.size)
        by_group = [rows[self.group[rows] == group] for group in range(int(self.group.max()) + 1)]
        whole = [part[: len(part) // self.batch_size * self.batch_size] for part in by_group]
        rest = np.concatenate([part[len(taken) :] for part, taken in zip(by_group, whole, strict=True)])
        rest = generator.permutation(rest)
        count = len(rest) // self.batch_size * self.batch_size
        mixed = rest[:count][np.argsort(self.group[rest[:count]], kind="stable")]
        batches = np.concatenate([*whole, mixed]).reshape(-1, self.batch_size)
        return np.concatenate([generator.permutation(batches).reshape(-1), rest[count:]])


class BalancedOrder(TrainingOrder):
    """Training order that differs from `TrainingOrder` by drawing each class equally often.

    An epoch has as many images as the data set, divided among the classes that occur as evenly as possible. Of a class
    with more images than its part, each epoch draws others; the images of a class with fewer appear several times, no
    image more than once more often than another of its class. Composition and order are drawn anew in each epoch.

    Args:
        labels: Class of each image, (N,).
        batch_size: Global batch size, over all processes and accumulation steps; at most N.
        seed: Seed of the draws.
        repeats: Number of copies of each image in a batch.
    """

    def __init__(self, labels: Sequence[int], batch_size: int, seed: int, repeats: int = 1) -> None:
        super().__init__(len(labels), batch_size, seed, repeats)
        classes = np.asarray(labels, dtype=np.int64)
        self.rows_of = [np.flatnonzero(classes == number) for number in np.unique(classes)]

    def _rows(self, generator: np.random.Generator) -> np.ndarray:
        part, left = divmod(self.size, len(self.rows_of))
        with_one_more = set(generator.permutation(len(self.rows_of))[:left].tolist())
        drawn = [
            _drawn_evenly(rows, part + (number in with_one_more), generator) for number, rows in enumerate(self.rows_of)
        ]
        return generator.permutation(np.concatenate(drawn))


def _drawn_evenly(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws `count` rows; each appears count // N or one more times."""
    whole, rest = divmod(count, len(rows))
    return np.concatenate([*[rows] * whole, generator.permutation(rows)[:rest]])


def part_of(batch: Sequence[SampleKey], part: int, parts: int) -> list[SampleKey]:
    """Piece number `part` (from 0) of a batch that is split into `parts` equal pieces."""
    size = len(batch) // parts
    return list(batch[part * size : (part + 1) * size])


class MicroBatches(Sampler[list[SampleKey]]):
    """Sampler of the batches of one process: its piece of every accumulation step, over a range of training steps.

    Args:
        order: Order of all images.
        start: First training step.
        stop: Training step after the last one.
        accumulation: Number of accumulation steps of a training step.
        process: Index of this process, from 0.
        processes: Number of processes.

    Raises:
        ValueError: The batch size is no multiple of accumulation steps times processes.
    """

    def __init__(
        self, order: TrainingOrder, start: int, stop: int, accumulation: int = 1, process: int = 0, processes: int = 1
    ) -> None:
        if order.batch_size % (accumulation * processes):
            raise ValueError(
                f"`batch_size` {order.batch_size} must be a multiple of accumulation steps times processes, "
                f"{accumulation} x {processes}"
            )
        self.order, self.start, self.stop = order, start, stop
        self.accumulation, self.process, self.processes = accumulation, process, processes

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[SampleKey]]:
        parts = self.accumulation * self.processes
        for step in range(self.start, self.stop):
            batch = self.order.batch(step)
            for micro in range(self.accumulation):
                yield part_of(batch, micro * self.processes + self.process, parts)


class EpochMicroBatches(MicroBatches):
    """Sampler that differs from `MicroBatches` by covering one epoch, which `set_epoch` chooses."""

    def __init__(self, order: TrainingOrder, accumulation: int = 1, process: int = 0, processes: int = 1) -> None:
        super().__init__(order, 0, order.steps_per_epoch, accumulation, process, processes)

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch, counted from 0."""
        self.start = epoch * self.order.steps_per_epoch
        self.stop = self.start + self.order.steps_per_epoch


__all__ = [
    "AspectGroupedOrder",
    "BalancedOrder",
    "EpochMicroBatches",
    "MicroBatches",
    "SampleKey",
    "TrainingOrder",
    "part_of",
]
