"""End of a training step, shared by both loops: agreement of processes on the loss, signals, speed and records."""

import math
import signal
import time
from typing import Any

import torch
from accelerate import Accelerator

from ..runtime.progress import Reporter
from ..tasks.task import TrainingTask
from .checkpoints import last_checkpoint
from .interruption import Interrupted, StopRequest
from .training_state import TrainingState


class NonFiniteLossError(RuntimeError):
    """Error raised when the loss is infinite or NaN."""


class StepEnd:
    """Work after the backward pass of a step.

    Args:
        task: Training task.
        record: Training state, updated at each step.
        accelerator: Accelerator of all processes.
        reporter: Receives the progress.
        request: Stop request, checked at each step.
    """

    def __init__(
        self,
        task: TrainingTask,
        record: TrainingState,
        accelerator: Accelerator,
        reporter: Reporter,
        request: StopRequest,
    ) -> None:
        self.task, self.record, self.accelerator = task, record, accelerator
        self.reporter, self.request = reporter, request
        self.rows: list[int] = []
        self.bad: list[str] = []
        self.loss, self.signum, self.first, self.begun = 0.0, 0, 0, 0.0

    def begin_epoch(self, epoch: int, first: int, stop: int) -> None:
        """Starts the progress of an epoch, or of the rest of one.

        Args:
            epoch: Number of the epoch, from 0.
            first: Number of the first step to make.
            stop: Number of the epoch's last step plus 1.
        """
        before = epoch * self.task.steps_per_epoch
        self.reporter.start(f"epoch {epoch + 1}/{self.task.epochs}", stop - before, first - before)
        self.record.begin_epoch(first)
        self.first, self.begun = first, time.perf_counter()

    def add_piece(self, batch: dict[str, Any]) -> None:
        """Records the images of one part of the step's batch."""
        self.rows += batch["index"].tolist()
        self.bad += self.task.bad_images(batch)

    def agree(self, step: int, loss: torch.Tensor, rate: float) -> bool:
        """Averages the loss over all processes; returns whether the optimizer may make the step.

        Args:
            step: Number of the step, from 0.
            loss: Mean loss of this process's share of the batch, a scalar on the device.
            rate: Learning rate of the step.

        Raises:
            NonFiniteLossError: The loss is not finite, and the recipe does not skip such steps.
        """
        # Read once: a signal that comes after the processes have agreed counts for the next step.
        asked_to_stop = self.request.signum
        mine = torch.stack([loss, torch.tensor(float(asked_to_stop), device=loss.device)])
        self.loss, signum = self.accelerator.reduce(mine, "mean").tolist()
        self.signum = asked_to_stop or (signal.SIGTERM if signum else 0)
        if math.isfinite(self.loss):
            return True
        if self.task.recipe.training.on_nonfinite == "stop":
            checkpoint = last_checkpoint(self.record.folder)
            raise NonFiniteLossError(self.task.nonfinite_message(step, self.loss, rate, self.rows, checkpoint))
        return False

    def end(self, step: int, rate: float) -> None:
        """Records a completed step, and saves a checkpoint if a signal came.

        Raises:
            Interrupted: One of the processes received a signal.
        """
        self.record.end_step(step, self.loss, rate, self.bad)
        self.rows, self.bad = [], []
        speed = (step + 1 - self.first) * self.task.batch_size / (time.perf_counter() - self.begun)
        self.reporter.advance(1, loss=self.loss, lr=rate, **{"images/s": speed})
        if self.signum:
            self.reporter.stop()
            raise Interrupted(self.signum, step + 1, self.record.save(step + 1))

    def end_epoch(self, step: int) -> dict[str, Any]:
        """Evaluates after `step` steps and returns the epoch's entry of the history."""
        self.reporter.stop()
        return self.record.end_epoch(step, self.request)


__all__ = ["NonFiniteLossError", "StepEnd"]
