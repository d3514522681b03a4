"""End of a training step, shared by both loops: agreement of processes on the loss, signals, speed and records."""

import math
import signal
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ..optim.optimizers import set_skip_flag, skips_by_flag
from ..runtime.host_copies import HostCopy
from ..runtime.progress import Reporter
from ..tasks.batch_places import BatchPlace
from ..tasks.task import TrainingTask
from .checkpoints import last_checkpoint
from .interruption import Interrupted, StopRequest
from .training_state import TrainingState


class NonFiniteLossError(RuntimeError):
    """Error raised when the loss is infinite or NaN."""


@dataclass
class _Step:
    """Step whose loss the host has not read yet.

    Args:
        number: Number of the step, from 0.
        rate: Learning rate of the step.
        rows: Rows of this process's images.
        bad: Names of the undecodable images.
        asked_to_stop: Number of the signal that this process had received; 0 if none.
        values: Mean loss over the processes, and the mean number of the signals that they had received.
    """

    number: int
    rate: float
    rows: list[int]
    bad: list[str]
    asked_to_stop: int
    values: HostCopy


class StepEnd:
    """Work after the backward pass of a step.

    Reading a loss makes the host wait for an accelerator, which then has no work until the next step is begun. So where
    the optimizer can leave out a step by itself, the loss of a step is read after the next step, or where a checkpoint,
    an evaluation or the end follows. On the CPU, and with other optimizers, it is read before the optimizer.

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
        self.unread: list[_Step] = []
        self.signum, self.first, self.begun = 0, 0, 0.0
        averages_good_steps_only = record.ema is not None and task.recipe.training.on_nonfinite == "skip"
        by_flag = accelerator.scaler is None and skips_by_flag(record.optimizer)
        self.reads_late = self.runs_ahead(accelerator.device) and by_flag and not averages_good_steps_only

    @staticmethod
    def runs_ahead(device: torch.device) -> bool:
        """Whether the host goes on while a device computes."""
        return device.type != "cpu"

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
        self.rows += BatchPlace.of(batch).rows
        self.bad += self.task.bad_images(batch)

    def agree(self, step: int, loss: torch.Tensor, rate: float) -> bool:
        """Averages the loss over all processes; returns whether the optimizer may be called.

        Args:
            step: Number of the step, from 0.
            loss: Mean loss of this process's share of the batch, a scalar on the device.
            rate: Learning rate of the step.

        Raises:
            NonFiniteLossError: The loss is not finite, and the recipe does not skip such steps.
        """
        # Read once: a signal that comes after the processes have agreed counts for the next step.
        asked_to_stop = self.request.signum
        mine = torch.stack([loss, loss.new_full((), float(asked_to_stop))])
        values = self.accelerator.reduce(mine, "mean")
        self.unread.append(_Step(step, rate, self.rows, self.bad, asked_to_stop, HostCopy(values)))
        self.rows, self.bad = [], []
        if self.reads_late:
            set_skip_flag(self.record.optimizer, 1 - values[0].isfinite().float())
            return True
        loss_value, _ = self.unread[-1].values.read()
        self._refuse(self.unread[-1], loss_value)
        return math.isfinite(loss_value)

    def _refuse(self, step: _Step, loss: float) -> None:
        if math.isfinite(loss) or self.task.recipe.training.on_nonfinite != "stop":
            return
        checkpoint = last_checkpoint(self.record.folder)
        raise NonFiniteLossError(self.task.nonfinite_message(step.number, loss, step.rate, step.rows, checkpoint))

    def end(self, step: int) -> None:
        """Records the completed steps whose loss can be read, and saves a checkpoint if one is due or a signal came.

        Raises:
            NonFiniteLossError: A loss is not finite, and the recipe does not skip such steps.
            Interrupted: One of the processes received a signal.
        """
        set_skip_flag(self.record.optimizer, None)
        if self.reads_late:
            self.record.average(step)
        due = not self.reads_late or self.record.saves_after(step) or self.record.ends_epoch(step + 1)
        alone = self.accelerator.num_processes == 1  # of several processes all must stop after the same step
        read = self._read(1 if not due and not (alone and self.unread[-1].asked_to_stop) else 0)
        if self.signum:
            read += self._read(0)
        if self.record.saves_after(step):
            self.record.save(step + 1)
        for done, loss in read:
            speed = (done.number + 1 - self.first) * self.task.batch_size / (time.perf_counter() - self.begun)
            self.reporter.advance(1, loss=loss, lr=done.rate, **{"images/s": speed})
        if self.signum:
            self.reporter.stop()
            raise Interrupted(self.signum, step + 1, self.record.save(step + 1))

    def _read(self, left: int) -> list[tuple[_Step, float]]:
        """Reads and records the losses of all but the last `left` steps; returns those steps with their losses."""
        found: list[tuple[_Step, float]] = []
        while len(self.unread) > left:
            step = self.unread.pop(0)
            loss, signum = step.values.read()
            self.signum = step.asked_to_stop or (signal.SIGTERM if signum else self.signum)
            self._refuse(step, loss)
            if not self.reads_late and math.isfinite(loss):
                self.record.average(step.number)
            self.record.end_step(step.number, loss, step.rate, step.bad)
            found.append((step, loss))
        return found

    def end_epoch(self, step: int) -> dict[str, Any]:
        """Evaluates after `step` steps and returns the epoch's entry of the history."""
        self.reporter.stop()
        return self.record.end_epoch(step, self.request)


__all__ = ["NonFiniteLossError", "StepEnd"]
