"""The learning rate as a function of the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up, then half a cosine (https://arxiv.org/abs/1608.03983, without restarts).

    Args:
        lr: Peak.
        total_steps: Of the whole training.
        warmup_steps: Of the rise from `warmup_lr` to `lr`.
        warmup_lr: At step 0.
        min_lr: At the last step.
    """

    lr: float
    total_steps: int
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0

    def __call__(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / self.warmup_steps
        last = max(1, self.total_steps - 1 - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / last)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2

    def factor(self, step: int) -> float:
        """The rate of a step relative to the peak."""
        return self(step) / self.lr


__all__ = ["CosineSchedule"]
