"""The batches that a run trains on, from a table or from a stream."""

from dataclasses import asdict
from typing import Any

import torch
from datasets import IterableDataset
from torch.utils.data import DataLoader

from ...data.labelled.tables import ImageData
from ...data.samplers import EpochMicroBatches, MicroBatches, TrainingOrder
from ...data.streaming.images import StreamedImages, collate_streamed
from ...data.streaming.streams import ShuffledStream, StreamBatches, StreamOrder, StreamPlace
from ..recipe.recipe import Recipe, RecipeError
from ..runtime.loading_processes import outlive_requests


def build_order(recipe: Recipe, data: ImageData, processes: int) -> TrainingOrder | StreamOrder:
    """Which images come at which step; its batch size is the recipe's, or the largest that fits fewer images.

    Raises:
        RecipeError: The batch cannot be shared out evenly.
    """
    streamed = isinstance(data.train, IterableDataset)
    size = recipe.training.batch_size if streamed else len(data.train)
    batch_size = _batch_size(recipe, size, processes)
    if streamed:
        return StreamOrder(batch_size, min(recipe.training.steps_per_epoch, recipe.training.max_steps or 1))
    return TrainingOrder(size, batch_size, recipe.seed, recipe.augmentation.repeats)


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


def table_loader(images: Any, batches: MicroBatches | EpochMicroBatches, workers: int, collate: Any) -> DataLoader[Any]:
    """Batches of rows of a table."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=outlive_requests,
    )


class StreamLoading:
    """Batches of a stream, and its place when some steps are done.

    Args:
        recipe: Seed, shuffling and accumulation.
        data: With a stream to train on.
        order: Sizes.
        images: What makes a row a sample.
        workers: Decoding processes.
    """

    def __init__(
        self, recipe: Recipe, data: ImageData, order: StreamOrder, images: StreamedImages, workers: int
    ) -> None:
        self.recipe, self.table, self.order, self.images, self.workers = recipe, data.train, order, images, workers
        self.places: list[dict[str, Any]] = []
        self.batches: StreamBatches | None = None

    def loader(self, start: int, stop: int, process: int, processes: int) -> DataLoader[Any]:
        """This process's batches from step `start` to `stop`.

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

    def place_at(self, step: int) -> dict[str, Any]:
        """This process's place when `step` steps are done, as plain data."""
        assert self.batches is not None
        return asdict(self.batches.place_at(step))


__all__ = ["StreamLoading", "build_order", "table_loader"]
