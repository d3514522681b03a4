"""Training batches of a run, from a table or from a stream, with the order of the images by step."""

import os
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from ...data.argument_names import stated
from ...data.pixels.cache import SHARE, PixelCache, available_memory
from ...data.samplers import AspectGroupedOrder, BalancedOrder, EpochMicroBatches, MicroBatches, TrainingOrder
from ...data.streaming.images import StreamedImages, collate_streamed
from ...data.streaming.streams import ShuffledStream, StreamBatches, StreamOrder, StreamPlace
from ..recipe.recipe import Recipe, RecipeError
from ..recipe.sections import TrainingSettings
from ..runtime.batch_loading import BatchLoader


class TrainBatches(Protocol):
    """Source of each process's training batches."""

    recipe: Recipe  # its accumulation says into how many parts a batch is divided
    device: torch.device  # device to deliver the images on; all else stays on the host

    @property
    def order(self) -> TrainingOrder | StreamOrder:
        """Order of the images by step."""

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """Returns a process's batches from step `start` to `stop`, one per accumulation step."""

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """Returns a process's batches of one epoch, which is chosen by its `batch_sampler.set_epoch`."""

    def planned_steps(self, settings: TrainingSettings) -> int:
        """Returns the number of optimizer steps of a whole training with these settings."""

    def images_seen(self, step: int) -> int:
        """Returns the number of images, after `step` steps, that the share of undecodable images refers to."""

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""

    def place_at(self, step: int) -> dict[str, Any] | None:
        """Returns this process's position after a step, as plain data; None if the step alone determines it."""

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Restores the positions of all processes, as returned by `place_at`."""


class TableBatches:
    """Batches of rows of a table, in an order determined by the seed and the epoch.

    Args:
        recipe: Recipe with the accumulation and the length of the training.
        images: Function that makes the training images; each call may give another augmentation.
        order: Order of the rows by step.
        workers: Number of loading processes.
        collate: Function that makes a batch of samples.
    """

    def __init__(
        self, recipe: Recipe, images: Callable[[], Any], order: TrainingOrder, workers: int, collate: Any
    ) -> None:
        self.recipe, self.images, self._order, self.workers, self.collate = recipe, images, order, workers, collate
        self.device = torch.device("cpu")

    @property
    def order(self) -> TrainingOrder:
        """Order of the rows by step."""
        return self._order

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """Returns a process's batches from step `start` to `stop`, one per accumulation step."""
        return self._loader(
            MicroBatches(self.order, start, stop, self.recipe.training.accumulation, process, processes)
        )

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """Returns a process's batches of one epoch, which is chosen by its `batch_sampler.set_epoch`."""
        return self._loader(EpochMicroBatches(self.order, self.recipe.training.accumulation, process, processes))

    def _loader(self, batches: MicroBatches) -> DataLoader[Any]:
        return BatchLoader(self.images(), batches, self.collate, self.workers, self.device)

    def planned_steps(self, settings: TrainingSettings) -> int:
        """Returns the number of optimizer steps of a whole training with these settings."""
        steps = settings.epochs * self.order.steps_per_epoch
        return steps if settings.max_steps is None else min(steps, settings.max_steps)

    def images_seen(self, step: int) -> int:  # noqa: ARG002
        """Returns the number of images of the table, whatever the step."""
        return len(self.images())

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        return str(self.images().describe(row))

    def place_at(self, step: int) -> None:
        """Returns None: the step alone determines the position."""

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Does nothing: the step alone determines the position."""


class StreamedBatches:
    """Batches of images of a stream, in the order in which they leave a shuffle buffer.

    Args:
        recipe: Recipe with the seed, the shuffle buffer and the accumulation.
        table: Stream of rows.
        order: Sizes of batches and epochs.
        images: Converter of rows to samples.
        workers: Number of decoding processes.
    """

    def __init__(self, recipe: Recipe, table: Any, order: StreamOrder, images: StreamedImages, workers: int) -> None:
        self.recipe, self.table, self._order, self.images, self.workers = recipe, table, order, images, workers
        self.places: list[dict[str, Any]] = []
        self.device = torch.device("cpu")
        self.batches: StreamBatches | None = None

    @property
    def order(self) -> StreamOrder:
        """Sizes of batches and epochs."""
        return self._order

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """Returns a process's batches from step `start` to `stop`, one per accumulation step.

        Raises:
            RecipeError: The run to resume had another number of processes.
        """
        if self.places and len(self.places) != processes:
            raise RecipeError(
                f"data.streaming: must be resumed by the {len(self.places)} processes that the run had, got {processes}"
            )
        stream = ShuffledStream(self.table, self.recipe.seed, self.recipe.data.shuffle_buffer, process, processes)
        place = StreamPlace(**self.places[process]) if self.places else None
        self.batches = StreamBatches(
            stream, self.order, start, stop, self.recipe.training.accumulation, process, processes, place
        )
        return BatchLoader(self.images, self.batches, collate_streamed, self.workers, self.device)

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """Raises an error: `Trainer` needs the length of an epoch, which a stream does not have.

        Raises:
            RecipeError: Always.
        """
        del process, processes
        raise RecipeError(f"data.streaming: needs {stated(front_end='accelerate')}, got the front end trainer")

    def planned_steps(self, settings: TrainingSettings) -> int:
        """Returns the settings' `max_steps`, which a recipe with a stream must give."""
        return settings.max_steps or 0

    def images_seen(self, step: int) -> int:
        """Returns the number of images read in `step` steps."""
        return step * self.order.batch_size

    def describe(self, row: int) -> str:
        """Names the row of an image, for messages."""
        return self.images.describe(row)

    def place_at(self, step: int) -> dict[str, Any]:
        """Returns this process's position in the stream after `step` steps, as plain data."""
        assert self.batches is not None
        return asdict(self.batches.place_at(step))

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Sets the positions to begin at, one per process."""
        self.places = places


def pixel_caches(sizes: Mapping[str, int | None]) -> dict[str, PixelCache]:
    """Makes empty caches of the splits that are read again in every epoch.

    They may take `SHARE` of the memory that is available now, divided among the processes of a launch on this machine
    and between the splits by their numbers of images.

    Args:
        sizes: Number of images of each split.
    """
    again = {split: size for split, size in sizes.items() if split in ("train", "validation") and size}
    budget = SHARE * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return {split: PixelCache(size, int(budget * size / sum(again.values()))) for split, size in again.items()}


def table_order(
    recipe: Recipe,
    images: Sized,
    processes: int,
    aspect_ratios: Sequence[float] | None = None,
    labels: Sequence[int] | None = None,
) -> TrainingOrder:
    """Makes the order of a table's rows; the batch size is the recipe's, or the largest that fits fewer images.

    Args:
        recipe: Recipe with batch size, accumulation, seed and copies of an image.
        images: Rows of the table.
        processes: Number of training processes.
        aspect_ratios: Width to height of each image, for batches of similar shapes.
        labels: Class of each image, for batches that hold each class equally often.

    Raises:
        RecipeError: The batch cannot be divided evenly.
    """
    batch_size = _batch_size(recipe, len(images), processes)
    if aspect_ratios is not None:
        return AspectGroupedOrder(aspect_ratios, batch_size, recipe.seed)
    if labels is not None:
        return BalancedOrder(labels, batch_size, recipe.seed, recipe.augmentation.repeats)
    return TrainingOrder(len(images), batch_size, recipe.seed, recipe.augmentation.repeats)


def stream_order(recipe: Recipe, processes: int) -> StreamOrder:
    """Determines the sizes of a stream's batches and epochs.

    Raises:
        RecipeError: The batch cannot be divided evenly.
    """
    batch_size = _batch_size(recipe, recipe.training.batch_size, processes)
    return StreamOrder(batch_size, min(recipe.training.steps_per_epoch, recipe.training.max_steps or 1))


def _batch_size(recipe: Recipe, images: int, processes: int) -> int:
    parts = recipe.training.accumulation * processes
    unit = parts * (2 if recipe.augmentation.mixes else 1)
    if recipe.training.batch_size % unit:
        raise RecipeError(
            f"training.batch_size: must be a multiple of {unit} ({recipe.training.accumulation} accumulation steps, "
            f"{processes} processes{', pairs to mix' if recipe.augmentation.mixes else ''}), "
            f"got {recipe.training.batch_size}"
        )
    fitting = min(recipe.training.batch_size, images // unit * unit)
    if fitting == 0:
        raise RecipeError(f"training.batch_size: {images} training images are fewer than the smallest batch, {unit}")
    return fitting


__all__ = ["StreamedBatches", "TableBatches", "TrainBatches", "pixel_caches", "stream_order", "table_order"]
