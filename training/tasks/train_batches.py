"""The training data of a run, and which of it comes at which step: from a table, or from a stream."""

from collections.abc import Callable, Sized
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from ...data.samplers import EpochMicroBatches, MicroBatches, TrainingOrder
from ...data.streaming.images import StreamedImages, collate_streamed
from ...data.streaming.streams import ShuffledStream, StreamBatches, StreamOrder, StreamPlace
from ..recipe.recipe import Recipe, RecipeError
from ..recipe.sections import TrainingSettings
from ..runtime.loading_processes import outlive_requests


class TrainBatches(Protocol):
    """Training data that gives each process its batches."""

    @property
    def order(self) -> TrainingOrder | StreamOrder:
        """Which images come at which step."""

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """A process's batches from step `start` to `stop`, one per accumulation step."""

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """A process's batches of one epoch; its `batch_sampler.set_epoch` tells which."""

    def planned_steps(self, settings: TrainingSettings) -> int:
        """Optimizer steps of a whole training with these settings."""

    def images_seen(self, step: int) -> int:
        """Number of images of which undecodable ones are a share, when so many steps are done."""

    def describe(self, row: int) -> str:
        """File or row of an image, for messages."""

    def place_at(self, step: int) -> dict[str, Any] | None:
        """What this process must keep to go on after a step, as plain data; None where the step says it all."""

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Takes what `place_at` gave, of all processes."""


class TableBatches:
    """Rows of a table, in an order that the seed and the epoch decide.

    Args:
        recipe: Accumulation and length of the training.
        images: Makes the training images when it is called: their augmentation may differ from one caller to the next.
        order: Which rows come at which step.
        workers: Loading processes.
        collate: Makes a batch of samples.
    """

    def __init__(
        self, recipe: Recipe, images: Callable[[], Any], order: TrainingOrder, workers: int, collate: Any
    ) -> None:
        self.recipe, self.images, self._order, self.workers, self.collate = recipe, images, order, workers, collate

    @property
    def order(self) -> TrainingOrder:
        """Which rows come at which step."""
        return self._order

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """A process's batches from step `start` to `stop`, one per accumulation step."""
        return self._loader(
            MicroBatches(self.order, start, stop, self.recipe.training.accumulation, process, processes)
        )

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """A process's batches of one epoch; its `batch_sampler.set_epoch` tells which."""
        return self._loader(EpochMicroBatches(self.order, self.recipe.training.accumulation, process, processes))

    def _loader(self, batches: MicroBatches) -> DataLoader[Any]:
        return DataLoader(
            self.images(),
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=self.collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=outlive_requests,
        )

    def planned_steps(self, settings: TrainingSettings) -> int:
        """Optimizer steps of a whole training with these settings."""
        steps = settings.epochs * self.order.steps_per_epoch
        return steps if settings.max_steps is None else min(steps, settings.max_steps)

    def images_seen(self, step: int) -> int:  # noqa: ARG002
        """Number of images of the table, whatever the step."""
        return len(self.images())

    def describe(self, row: int) -> str:
        """File or row of an image, for messages."""
        return str(self.images().describe(row))

    def place_at(self, step: int) -> None:
        """Nothing: the step says it all."""

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Nothing: the step says it all."""


class StreamedBatches:
    """Images of a stream, in the order in which they come from a buffer that shuffles them.

    Args:
        recipe: Seed, shuffling and accumulation.
        table: The stream.
        order: Sizes.
        images: What makes a row a sample.
        workers: Decoding processes.
    """

    def __init__(self, recipe: Recipe, table: Any, order: StreamOrder, images: StreamedImages, workers: int) -> None:
        self.recipe, self.table, self._order, self.images, self.workers = recipe, table, order, images, workers
        self.places: list[dict[str, Any]] = []
        self.batches: StreamBatches | None = None

    @property
    def order(self) -> StreamOrder:
        """Sizes of batches and epochs."""
        return self._order

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """A process's batches from step `start` to `stop`, one per accumulation step.

        Raises:
            RecipeError: The run to resume had another number of processes.
        """
        if self.places and len(self.places) != processes:
            raise RecipeError(
                f"data.streaming: the run to resume had {len(self.places)} processes, this one has {processes}"
            )
        stream = ShuffledStream(self.table, self.recipe.seed, self.recipe.data.shuffle_buffer, process, processes)
        place = StreamPlace(**self.places[process]) if self.places else None
        self.batches = StreamBatches(
            stream, self.order, start, stop, self.recipe.training.accumulation, process, processes, place
        )
        return DataLoader(
            self.images,
            batch_sampler=self.batches,
            num_workers=self.workers,
            collate_fn=collate_streamed,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=outlive_requests,
        )

    def epoch_loader(self, process: int, processes: int) -> DataLoader[Any]:
        """Refused: `Trainer` wants to know the length of an epoch.

        Raises:
            RecipeError: Always.
        """
        del process, processes
        raise RecipeError("data.streaming: only with the front end of Accelerate")

    def planned_steps(self, settings: TrainingSettings) -> int:
        """The settings' `max_steps`, without which a recipe with a stream is refused."""
        return settings.max_steps or 0

    def images_seen(self, step: int) -> int:
        """Number of images that were read in so many steps."""
        return step * self.order.batch_size

    def describe(self, row: int) -> str:
        """Row of an image, for messages."""
        return self.images.describe(row)

    def place_at(self, step: int) -> dict[str, Any]:
        """This process's place in the stream when `step` steps are done, as plain data."""
        assert self.batches is not None
        return asdict(self.batches.place_at(step))

    def go_on_at(self, places: list[dict[str, Any]]) -> None:
        """Begins at these places, one for each process."""
        self.places = places


def table_order(recipe: Recipe, images: Sized, processes: int) -> TrainingOrder:
    """Which rows of a table come at which step; the batch size is the recipe's, or the largest that fits fewer images.

    Raises:
        RecipeError: The batch cannot be shared out evenly.
    """
    batch_size = _batch_size(recipe, len(images), processes)
    return TrainingOrder(len(images), batch_size, recipe.seed, recipe.augmentation.repeats)


def stream_order(recipe: Recipe, processes: int) -> StreamOrder:
    """Sizes of the batches of a stream.

    Raises:
        RecipeError: The batch cannot be shared out evenly.
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


__all__ = ["StreamedBatches", "TableBatches", "TrainBatches", "stream_order", "table_order"]
