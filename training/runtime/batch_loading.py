"""Loading of batches: processes that outlast evaluations, and the last steps of images on the model's device."""

import atexit
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from .compat import end_processes
from .loading_processes import outlive_requests

_open: "weakref.WeakSet[BatchLoader]" = weakref.WeakSet()  # loaders whose processes may run


class RowBatches(Sampler[list[int]]):
    """Sampler of stated batches of rows; `batches` may be replaced between two iterations."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(rows) for rows in self.batches])


class BatchLoader(DataLoader[Any]):
    """Data loader that differs from torch's by finishing images on the model's device.

    A data set with a method `finish` returns images as uint8. For a CPU they are finished where they are collated, in
    the loading processes if there are any. For a GPU they are pinned, copied and finished by a stream of its own, one
    batch ahead of the model; only `pixel_values` are moved, so that all else can be read without waiting for the
    device. The processes are kept from one iteration to the next, and there are at most as many as batches.

    Args:
        images: Data set.
        batches: Sampler, or list, of the batches' rows or keys.
        collate: Function that makes a batch of samples.
        workers: Largest number of loading processes; 0 loads in this process.
        device: Device of the model.
    """

    def __init__(
        self,
        images: Any,
        batches: Sampler[Any] | Sequence[Any],
        collate: Callable[[list[Any]], Any],
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        finish = getattr(images, "finish", None)
        self.finish = None if self.device.type == "cpu" else finish
        workers = min(workers, len(batches))  # type: ignore[arg-type]  # every sampler of this package has a length
        super().__init__(
            images,
            batch_sampler=batches if isinstance(batches, Sampler) else RowBatches(batches),
            num_workers=workers,
            collate_fn=collate if finish is None or self.finish is not None else FinishedCollate(collate, finish),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=outlive_requests,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Any:
        batches = super().__iter__()
        if self.num_workers > 0:
            self._process = os.getpid()
            _open.add(self)
            # Last registered, first called: torch and Python would otherwise end these processes by signals, the first
            # of which they outlive, and of two at once they see one.
            atexit.unregister(close_loaders)
            atexit.register(close_loaders)
        if self.finish is None:
            return batches
        if self.device.type == "cuda":
            return _ahead(batches, self.finish, self.device)
        return (self.finish(batch, self.device) for batch in batches)

    def close(self) -> None:
        """Ends the loading processes; the next iteration starts others."""
        if getattr(self, "_process", None) == os.getpid():  # not those that a forked process knows of
            end_processes(self)
        _open.discard(self)


def close_loaders(but: Iterable[BatchLoader] = ()) -> None:
    """Ends the loading processes of all loaders of this process except some."""
    for loader in set(_open) - set(but):
        loader.close()


@contextmanager
def closing_loaders() -> Iterator[None]:
    """Context at whose end the loading processes that were started in it are ended, also where it raises."""
    before = set(_open)
    try:
        yield
    finally:
        close_loaders(before)


class FinishedCollate:
    """Collation followed by the last steps of the images, on the CPU."""

    def __init__(self, collate: Callable[[list[Any]], Any], finish: Callable[[Any], Any]) -> None:
        self.collate, self.finish = collate, finish

    def __call__(self, samples: list[Any]) -> Any:
        return self.finish(self.collate(samples))


def _ahead(batches: Iterable[Any], finish: Callable[[Any, torch.device], Any], device: torch.device) -> Iterator[Any]:
    """Yields finished batches; each is copied and finished, in another stream, while the one before it is computed."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    upcoming: tuple[Any, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            done = finish(batch, device), stream.record_event()
        if upcoming is not None:
            yield _received(*upcoming, device)
        upcoming = done
    if upcoming is not None:
        yield _received(*upcoming, device)


def _received(batch: Any, finished: torch.cuda.Event, device: torch.device) -> Any:
    """Lets the computing stream wait for a batch, whose memory is not reused before that stream has read it."""
    current = torch.cuda.current_stream(device)
    current.wait_event(finished)
    batch["pixel_values"].record_stream(current)
    return batch


class KeptLoaders:
    """Loaders of evaluations, whose processes are kept from one evaluation of a split to the next."""

    def __init__(self) -> None:
        self._kept: dict[str, BatchLoader] = {}

    def loader(
        self,
        images: Any,
        batches: Sequence[Sequence[int]],
        collate: Callable[[list[Any]], Any],
        workers: int,
        device: torch.device | str,
    ) -> BatchLoader:
        """Loader of rows of a split: that of its last evaluation, if the images are the same; see `BatchLoader`."""
        kept = self._kept.get(images.name)
        same = kept is not None and kept.dataset is images and kept.num_workers == min(workers, len(batches))
        if kept is None or not same or kept.device != torch.device(device):
            kept = self._kept[images.name] = BatchLoader(images, batches, collate, workers, device)
        sampler = kept.batch_sampler
        assert isinstance(sampler, RowBatches)
        sampler.batches = batches
        return kept


__all__ = ["BatchLoader", "FinishedCollate", "KeptLoaders", "RowBatches", "close_loaders", "closing_loaders"]
