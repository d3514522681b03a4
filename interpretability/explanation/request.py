"""Input and output of an explanation method.

Shapes: B images, h x w cells of the grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...data.argument_names import argument
from ..capture.subject import ExplanationError, Subject
from .targets import Choice, Target, choose

OnPass = Callable[[int, int], None]  # number of passes that are done, and of all passes


@dataclass(frozen=True)
class Request:
    """Arguments of `explain` that the methods use; see there."""

    target: Target = None
    query: int | Sequence[int] | None = None
    layer: int | None = None
    head: int | None = None
    token: int | str | None = None
    steps: int = 32
    seed: int = 0
    batch_size: int = 16
    on_pass: OnPass | None = None

    def choice(self, subject: Subject, logits: torch.Tensor | None) -> Choice:
        """Score that is explained, one per image."""
        return choose(subject.model, logits, self.target, self.query)


@dataclass(frozen=True)
class Found:
    """Output of a method.

    Args:
        grid: Map (B, h, w); larger values mean a larger contribution.
        logits: Logits of the images; None for a model without a head.
        maps: Map (B, height, width) in pixels, if the method has a higher resolution than the grid; otherwise None.
    """

    grid: torch.Tensor
    logits: torch.Tensor | None
    maps: torch.Tensor | None = None


def in_range(name: str, value: int, count: int) -> int:
    """Converts an index that may be negative to one from 0 to `count` - 1.

    Raises:
        ExplanationError: The index is out of range; the message names the argument `name`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -count <= value < count:
        raise ExplanationError(
            f"{argument(name)} must lie in 0 to {count - 1}, or {-count} to -1 from the end, got {value!r}"
        )
    return value % count


__all__ = ["Found", "OnPass", "Request", "in_range"]
