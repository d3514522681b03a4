"""Places of batches in the training, read on the host before the batches are copied to a device."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BatchPlace:
    """Place of a batch, or of part of one, in the training.

    A tensor on a device can be read only after the device has finished all its work; these numbers are known before.

    Args:
        epoch: Number of the epoch, from 0.
        positions: Position of each image in its epoch.
        rows: Row of each image in its table.
        bad: Rows of undecodable images that were replaced by others.
    """

    epoch: int
    positions: tuple[int, ...]
    rows: tuple[int, ...]
    bad: tuple[int, ...] = ()

    @classmethod
    def of(cls, batch: dict[str, Any]) -> "BatchPlace":
        """Returns the place that a batch holds as "place"; otherwise reads it from the batch's tensors."""
        known = batch.get("place")
        if isinstance(known, cls):
            return known
        bad = tuple(row for row in batch["bad"].tolist() if row >= 0) if "bad" in batch else ()
        return cls(int(batch["epoch"][0]), tuple(batch["position"].tolist()), tuple(batch["index"].tolist()), bad)


__all__ = ["BatchPlace"]
