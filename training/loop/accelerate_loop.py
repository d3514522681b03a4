"""The training loop, on Accelerate."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from ..optim.ema import weight_average
from ..runtime.precision import resolve_precision
from ..runtime.processes import new_accelerator, process_state
from ..runtime.progress import Reporter
from ..tasks.classification.task import TrainingTask
from .checkpoints import last_checkpoint
from .interruption import Interrupted, StopRequest
from .training_state import RunRecord


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass
class LoopResult:
    """What a training left.

    Args:
        record: Of the run; the weights to publish are in the task's model.
        accelerator: Of the processes.
        published_epoch: From 1, the epoch whose weights are in the task's model now.
        precision: "fp32", "bf16" or "fp16".
        front_end: "accelerate" or "trainer".
    """

    record: RunRecord
    accelerator: Accelerator
    published_epoch: int
    precision: str
    front_end: str = "accelerate"


class AccelerateLoop:
    """Trains a task, leaving checkpoints below `folder`, and the weights to publish in the task's model at the end."""

    def __init__(self, task: TrainingTask, folder: Path, reporter: Reporter) -> None:
        settings = task.recipe.training
        self.task, self.reporter = task, reporter
        checkpoints = folder / "checkpoints"
        self.precision = resolve_precision(settings.precision, process_state().device)
        self.accelerator = new_accelerator(
            mixed_precision="no" if self.precision == "fp32" else self.precision,
        )
        task.prepare(self.accelerator.device, checkpoints)
        average = weight_average(task.learner, settings, self.accelerator)
        optimizer = task.optimizer()
        runner = torch.compile(task.learner) if task.recipe.model.compile else task.learner
        self.model, self.optimizer = self.accelerator.prepare(runner, optimizer)
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self.record = RunRecord(task, checkpoints, self.accelerator, inner, reporter, average)
        self.start = self.record.restore()

    def run(self) -> LoopResult:
        """Trains to the end, or to an early stop.

        Raises:
            NonFiniteLossError: The loss is not finite, and the recipe does not skip such steps.
            Interrupted: SIGTERM or SIGINT came; a checkpoint is saved.
        """
        task, accelerator = self.task, self.accelerator
        loader = iter(task.train_loader(self.start, accelerator.process_index, accelerator.num_processes))
        per_epoch = task.order.steps_per_epoch
        with StopRequest() as request:
            self.record.catch_up(request)
            for epoch in range(self.start // per_epoch, task.epochs):
                if self.record.stops_early() or self.start == task.total_steps:
                    break
                self._train_epoch(loader, epoch, max(self.start, epoch * per_epoch), request)
        published = self.record.load_published()
        return LoopResult(self.record, accelerator, published, self.precision)

    def _train_epoch(self, loader: Iterator[Any], epoch: int, first: int, request: StopRequest) -> None:
        task, per_epoch = self.task, self.task.order.steps_per_epoch
        self.model.train()
        before, stop = epoch * per_epoch, min((epoch + 1) * per_epoch, task.total_steps)
        self.reporter.start(f"epoch {epoch + 1}/{task.epochs}", stop - before, first - before)
        self.record.begin_epoch(first)
        begun = time.perf_counter()
        for step in range(first, stop):
            rate = task.set_lr(self.optimizer, step)
            loss, signum, bad = self._step(loader, step, rate, request)
            self.record.end_step(step, loss, rate, bad)
            speed = (step + 1 - first) * task.batch_size / (time.perf_counter() - begun)
            self.reporter.advance(1, loss=loss, lr=rate, **{"images/s": speed})
            if signum:
                self.reporter.stop()
                raise Interrupted(signum, step + 1, self.record.save(step + 1))
        self.reporter.stop()
        self.record.end_epoch(stop, request)

    def _step(
        self, loader: Iterator[Any], step: int, rate: float, request: StopRequest
    ) -> tuple[float, int, list[str]]:
        """One optimizer step; returns the whole batch's loss, a signal that came, and undecodable images."""
        task, accelerator, settings = self.task, self.accelerator, self.task.recipe.training
        pieces, rows, bad = [], list[int](), list[str]()
        asked = time.perf_counter()
        batches = [next(loader) for _ in range(settings.accumulation)]
        self.record.waited(time.perf_counter() - asked)
        task.prepare_step(batches)
        for micro, loaded in enumerate(batches):
            rows += loaded["index"].tolist()
            bad += task.bad_images(loaded)
            batch = send_to_device(loaded, accelerator.device, non_blocking=True)
            last = micro == settings.accumulation - 1
            with accelerator.no_sync(self.model) if not last else nullcontext():
                with accelerator.autocast():
                    loss = task.loss(self.model, batch)
                accelerator.backward(loss / settings.accumulation)
            pieces.append(loss.detach())
        # read once: a signal that comes after the processes have agreed is for the next step
        asked_to_stop = request.signum
        mine = torch.stack([torch.stack(pieces).mean(), torch.tensor(float(asked_to_stop), device=accelerator.device)])
        value, signum = accelerator.reduce(mine, "mean").tolist()
        if math.isfinite(value):
            if settings.clip_norm is not None:
                accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            self.optimizer.step()
        elif settings.on_nonfinite == "stop":
            checkpoint = last_checkpoint(self.record.folder)
            raise NonFiniteLossError(task.nonfinite_message(step, value, rate, rows, checkpoint))
        self.optimizer.zero_grad()
        return value, asked_to_stop or (signal.SIGTERM if signum else 0), bad


__all__ = ["AccelerateLoop", "LoopResult", "NonFiniteLossError"]
