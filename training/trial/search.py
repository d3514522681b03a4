"""Search for the largest number of images at once that fits into memory, by trials that are measured."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Trial = Callable[[int], int]  # number of images at once -> bytes of memory that they needed


@dataclass(frozen=True)
class Tried:
    """Result of one trial.

    Args:
        images: Number of images computed at once.
        needed: Peak memory of the trial in bytes; None if the device ran out of memory.
        fits: Whether the trial stayed within the budget.
    """

    images: int
    needed: int | None
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain data."""
        return asdict(self)


class Trials:
    """Trials of numbers of images against a budget of memory.

    Args:
        trial: Function that computes so many images at once and returns the peak memory in bytes; it may raise
            `torch.OutOfMemoryError`.
        budget: Largest peak memory in bytes that counts as fitting.
    """

    def __init__(self, trial: Trial, budget: int) -> None:
        self.trial, self.budget, self.done = trial, budget, list[Tried]()

    def fits(self, images: int) -> bool:
        """Tries a number of images."""
        try:
            needed: int | None = self.trial(images)
        except torch.OutOfMemoryError:
            needed = None
        self.done.append(Tried(images, needed, needed is not None and needed <= self.budget))
        return self.done[-1].fits

    @property
    def largest(self) -> int | None:
        """Largest number of images that was tried and fits; None if none does."""
        return max((one.images for one in self.done if one.fits), default=None)

    def descend(self, sizes: Sequence[int]) -> int | None:
        """Tries from the largest size down by halves until one fits, then those between it and the last that failed.

        For devices that refuse memory without harm.

        Args:
            sizes: Numbers of images to choose from, in ascending order.

        Returns:
            The largest size that fits; None if none does.
        """
        index, above = len(sizes) - 1, len(sizes)
        while not self.fits(sizes[index]):
            if index == 0:
                return None
            above, half = index, sizes[index] / 2
            index = max((place for place, size in enumerate(sizes) if size <= half), default=0)
        next((size for size in reversed(sizes[index + 1 : above]) if self.fits(size)), None)
        return self.largest

    def ascend(self, sizes: Sequence[int]) -> int | None:
        """Tries from the smallest size up, as long as the memory for the next one, in proportion, is in the budget.

        For the memory of the host, which the system grants first and then ends the process that took too much of it.

        Args:
            sizes: Numbers of images to choose from, in ascending order.

        Returns:
            The largest size that was tried and fits; None if the smallest does not.
        """
        for size in sizes:
            last = self.done[-1] if self.done else None
            if last is not None and (last.needed or 0) * size / last.images > self.budget:
                break
            if not self.fits(size):
                break
        return self.largest


__all__ = ["Trial", "Trials", "Tried"]
