"""What a method of explanation is asked, and what it answers.

Shapes: B images, h x w the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...data.argument_names import argument
from ..capture.subject import ExplanationError, Subject
from .targets import Choice, Target, choose


@dataclass(frozen=True)
class Request:
    """The arguments of `explain`; see there."""

    target: Target = None
    query: int | Sequence[int] | None = None
    layer: int | None = None
    head: int | None = None
    token: int | str | None = None
    steps: int = 32
    seed: int = 0
    batch_size: int = 16

    def choice(self, subject: Subject, logits: torch.Tensor | None) -> Choice:
        """The score of each image that is explained."""
        return choose(subject.model, logits, self.target, self.query)


@dataclass(frozen=True)
class Found:
    """What a method found.

    Args:
        grid: (B, h, w), larger where it matters more.
        logits: Of the images, or None.
        maps: (B, height, width), where the method is finer than its grid.
    """

    grid: torch.Tensor
    logits: torch.Tensor | None
    maps: torch.Tensor | None = None


def in_range(name: str, value: int, count: int) -> int:
    """An index that may be negative, as one from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not -count <= value < count:
        raise ExplanationError(
            f"{argument(name)} must lie in 0 to {count - 1}, or {-count} to -1 from the end, got {value!r}"
        )
    return value % count


__all__ = ["Found", "Request", "in_range"]
