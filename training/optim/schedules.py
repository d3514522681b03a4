"""Learning-rate schedule as a function of the step."""

import math
from dataclasses import dataclass

from ..recipe.sections import TrainingSettings


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule with linear warm-up, followed by the decline named by `kind`.

    Args:
        kind: Decline: "cosine" (https://arxiv.org/abs/1608.03983, without restarts), "linear", "step" or "constant".
        lr: Peak learning rate.
        total_steps: Number of steps of the whole training.
        warmup_steps: Number of steps of the rise from `warmup_lr` to `lr`.
        warmup_lr: Learning rate at step 0.
        min_lr: Learning rate at the last step of "cosine" and "linear".
        drop_steps: Steps between the drops of "step", counted from step 0.
        drop_factor: Factor applied to the learning rate at each drop.
    """

    kind: str
    lr: float
    total_steps: int
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    drop_steps: int = 1
    drop_factor: float = 0.1

    def __call__(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / self.warmup_steps
        if self.kind == "constant":
            return self.lr
        if self.kind == "step":
            return float(self.lr * self.drop_factor ** (step // self.drop_steps))
        last = max(1, self.total_steps - 1 - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / last)
        share = (1 + math.cos(math.pi * progress)) / 2 if self.kind == "cosine" else 1 - progress
        return self.min_lr + (self.lr - self.min_lr) * share

    def factor(self, step: int) -> float:
        """Returns the learning rate of a step relative to the peak."""
        return self(step) / self.lr


def build_schedule(settings: TrainingSettings, batch_size: int, steps_per_epoch: int, total_steps: int) -> Schedule:
    """Builds the schedule of a recipe.

    Args:
        settings: Training settings with learning rates and lengths.
        batch_size: Images per step; with `lr_batch` all rates are scaled by batch_size / lr_batch.
        steps_per_epoch: Number of optimizer steps per epoch.
        total_steps: Number of steps of the whole training.
    """
    scale = 1.0 if settings.lr_batch is None else batch_size / settings.lr_batch
    unit = {"epochs": steps_per_epoch, "steps": 1, "ratio": total_steps}[settings.warmup_unit]
    return Schedule(
        settings.schedule,
        settings.lr * scale,
        total_steps,
        max(0, round(min(settings.warmup * unit, total_steps - 1))),
        min(settings.warmup_lr, settings.lr) * scale,
        min(settings.min_lr, settings.lr) * scale,
        settings.step_epochs * steps_per_epoch,
        settings.step_factor,
    )


__all__ = ["Schedule", "build_schedule"]
