"""Reading more images than fit on the disk: a stream, shuffled block by block, that goes on from any row."""

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
    """A row of a stream, and what a training sample is drawn from.

    Args:
        row: Columns "image" (encoded) and "label" (a number, or a list of them).
        index: Number of the row in this process's pass over the stream.
        epoch: From 0.
        position: Within the epoch.
    """

    row: dict[str, Any]
    index: int
    epoch: int
    position: int


@dataclass(frozen=True)
class StreamOrder:
    """Sizes of the steps of a stream, whose length is not known.

    Args:
        batch_size: Of all processes and accumulation steps together.
        steps_per_epoch: After how many steps an epoch is said to end.
    """

    batch_size: int
    steps_per_epoch: int


@dataclass
class StreamPlace:
    """Where a stream is.

    Args:
        passes: How often it was read to its end.
        block: Number of the block within the pass.
        offset: Rows of the block that are done.
        state: Of the stream at the block's start.
    """

    passes: int = 0
    block: int = 0
    offset: int = 0
    state: dict[str, Any] = field(default_factory=dict)


class ShuffledStream:
    """Rows of a data set, pass after pass, without end.

    `buffer` rows are read and given out in a drawn order, then the next ones. A place within a block is found again by
    reading the block again, so that nothing is lost or repeated, however often it is resumed.

    Args:
        table: Columns "image" (encoded) and "label".
        seed: Of the order.
        buffer: Rows in a block.
        process: Number of this process; each reads its own part, by shards where their number allows it.
        processes: Number of processes.
    """

    def __init__(self, table: IterableDataset, seed: int, buffer: int, process: int = 0, processes: int = 1) -> None:
        self.table = split_dataset_by_node(table, process, processes) if processes > 1 else table
        self.seed, self.buffer = seed, buffer
        self.start = self.table.state_dict() or {}

    def rows(self, place: StreamPlace) -> Iterator[tuple[StreamPlace, int, dict[str, Any]]]:
        """From a place on: the place after each row, the row's number in its pass, and the row.

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
    """What one process loads: its piece of every accumulation step, from one training step to another.

    Rows are read in the process that asks for batches; those that load get them to decode.

    Args:
        stream: Of this process.
        order: Sizes.
        start: First step.
        stop: One past the last step.
        accumulation: Pieces of a step that are computed one after the other.
        process: Number of this process.
        processes: Number of processes.
        place: Where the stream is at the first step.
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
        """Where the stream is when `step` steps are done; steps before are forgotten."""
        for old in [number for number in self.places if number < step]:
            del self.places[old]
        return self.places[step]


__all__ = ["ShuffledStream", "StreamBatches", "StreamKey", "StreamOrder", "StreamPlace"]
