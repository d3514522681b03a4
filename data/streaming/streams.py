"""Streams of images that need not fit on the disk, shuffled block by block and resumable at any row."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Sampler

from ..seeding import Stream, derived_generator
from ..sources import DataError


@dataclass(frozen=True)
class StreamKey:
    """Row of a stream, with the key that determines the random choices of its training sample.

    Args:
        row: Values of the columns "image" (encoded) and "label" (a number, or a list of them).
        index: Number of the row in this process's pass over the stream, from 0.
        epoch: Epoch, from 0.
        position: Position within the epoch, from 0.
    """

    row: dict[str, Any]
    index: int
    epoch: int
    position: int


@dataclass(frozen=True)
class StreamOrder:
    """Batch size and epoch length of a stream, whose number of images is not known.

    Args:
        batch_size: Global batch size, over all processes and accumulation steps.
        steps_per_epoch: Number of steps that count as an epoch.
    """

    batch_size: int
    steps_per_epoch: int


@dataclass
class StreamPlace:
    """Position in a stream.

    Args:
        passes: Number of completed passes over the stream.
        block: Number of the block within the pass, from 0.
        offset: Number of rows of the block that were used.
        state: State of the `IterableDataset` at the start of the block.
    """

    passes: int = 0
    block: int = 0
    offset: int = 0
    state: dict[str, Any] = field(default_factory=dict)


class ShuffledStream:
    """Endless stream of the rows of a data set, pass after pass, shuffled in blocks.

    Each block of `buffer` rows is read and returned in a random order. A position within a block is restored by reading
    the block again, so that no row is lost or repeated, however often the stream is resumed.

    Args:
        table: Streamed table with the columns "image" (encoded) and "label".
        seed: Seed of the order.
        buffer: Number of rows in a block.
        process: Index of this process, from 0; each reads its own part, by shards where their number allows it.
        processes: Number of processes.
    """

    def __init__(self, table: IterableDataset, seed: int, buffer: int, process: int = 0, processes: int = 1) -> None:
        self.table = split_dataset_by_node(table, process, processes) if processes > 1 else table
        self.seed, self.buffer = seed, buffer
        self.start = self.table.state_dict() or {}

    def rows(self, place: StreamPlace) -> Iterator[tuple[StreamPlace, int, dict[str, Any]]]:
        """Rows from a position on, each as (position after it, its number in its pass, row).

        Raises:
            DataError: The stream is empty.
        """
        passes, number, offset = place.passes, place.block, place.offset
        if place.state:
            self.table.load_state_dict(place.state)
        reader, state = iter(self.table), place.state
        while True:
            block = list(islice(reader, self.buffer))
            if not block:
                if number == 0:
                    raise DataError("the stream holds no images for this process")
                self.table.load_state_dict(self.start)
                reader, state, passes, number, offset = iter(self.table), {}, passes + 1, 0, 0
                continue
            order = derived_generator(self.seed, Stream.ORDER, passes, number).permutation(len(block))
            for done in range(offset, len(block)):
                chosen = int(order[done])
                yield StreamPlace(passes, number, done + 1, state), number * self.buffer + chosen, block[chosen]
            state, number, offset = self.table.state_dict(), number + 1, 0


class StreamBatches(Sampler[list[StreamKey]]):
    """Sampler of the batches of one process: its piece of every accumulation step, over a range of training steps.

    Rows are read in the process that iterates the sampler; the workers of the data loader only decode them.

    Args:
        stream: Stream of this process.
        order: Batch size and epoch length.
        start: First training step.
        stop: Training step after the last one.
        accumulation: Number of accumulation steps of a training step.
        process: Index of this process, from 0.
        processes: Number of processes.
        place: Position in the stream at the first step; None means its beginning.
    """

    def __init__(
        self,
        stream: ShuffledStream,
        order: StreamOrder,
        start: int,
        stop: int,
        accumulation: int = 1,
        process: int = 0,
        processes: int = 1,
        place: StreamPlace | None = None,
    ) -> None:
        self.stream, self.order, self.start, self.stop = stream, order, start, stop
        self.accumulation, self.process, self.processes = accumulation, process, processes
        self.places = {start: place or StreamPlace()}

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[StreamKey]]:
        rows = self.stream.rows(self.places[self.start])
        size = self.order.batch_size // self.accumulation // self.processes
        for step in range(self.start, self.stop):
            epoch, step_in_epoch = divmod(step, self.order.steps_per_epoch)
            for micro in range(self.accumulation):
                first = step_in_epoch * self.order.batch_size + (micro * self.processes + self.process) * size
                piece = list(islice(rows, size))
                self.places[step + 1] = piece[-1][0]
                yield [StreamKey(row, index, epoch, first + slot) for slot, (_, index, row) in enumerate(piece)]

    def place_at(self, step: int) -> StreamPlace:
        """Position in the stream after `step` steps; positions of earlier steps are discarded."""
        for old in [number for number in self.places if number < step]:
            del self.places[old]
        return self.places[step]


__all__ = ["ShuffledStream", "StreamBatches", "StreamKey", "StreamOrder", "StreamPlace"]
