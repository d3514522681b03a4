"""Training loop on Accelerate."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device

from ..optim.ema import weights_ema
from ..optim.master_weights import autocast_precision, with_master_weights
from ..runtime.precision import resolve_precision
from ..runtime.processes import new_accelerator, process_state
from ..runtime.progress import Reporter
from ..tasks.compilation import compile_layers
from ..tasks.task import TrainingTask
from .interruption import StopRequest
from .step import StepEnd
from .training_state import TrainingState


@dataclass
class LoopResult:
    """Result of a training loop.

    Args:
        record: Training state at the end.
        accelerator: Accelerator of the processes.
        published_epoch: Epoch, counted from 1, whose weights are now in the task's model for publishing.
        precision: Number format of the training: "fp32", "bf16" or "fp16".
        front_end: Name of the loop: "accelerate" or "trainer".
    """

    record: TrainingState
    accelerator: Accelerator
    published_epoch: int
    precision: str
    front_end: str = "accelerate"


class AccelerateLoop:
    """Training loop that writes checkpoints below `folder` and ends with the weights to publish in the task's model."""

    def __init__(self, task: TrainingTask, folder: Path, reporter: Reporter) -> None:
        settings = task.recipe.training
        self.task, self.reporter = task, reporter
        checkpoints = folder / "checkpoints"
        self.precision = resolve_precision(settings.precision, process_state().device)
        self.accelerator = new_accelerator(
            mixed_precision=autocast_precision(settings, self.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
            if task.leaves_parameters
            else None,
        )
        task.prepare(self.accelerator.device, checkpoints)
        average = weights_ema(task.learner, settings, self.accelerator)
        optimizer = task.optimizer()
        if task.compiled == "layers":
            compile_layers(task.learner)
        runner = torch.compile(task.learner) if task.compiled == "whole" else task.learner
        self.model, self.optimizer = self.accelerator.prepare(runner, optimizer)
        self.forward = with_master_weights(self.model, task.learner, settings, self.precision)
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self.record = TrainingState(task, checkpoints, self.accelerator, inner, reporter, average)
        self.start = self.record.restore()

    def run(self) -> LoopResult:
        """Trains to the end or to an early stop.

        Raises:
            NonFiniteLossError: The loss is not finite, and the recipe does not skip such steps.
            Interrupted: The process received SIGTERM or SIGINT; a checkpoint is saved.
        """
        task, accelerator = self.task, self.accelerator
        loader = iter(task.train_loader(self.start, accelerator.process_index, accelerator.num_processes))
        per_epoch = task.steps_per_epoch
        with StopRequest() as request:
            self.record.catch_up(request)
            end = StepEnd(task, self.record, accelerator, self.reporter, request)
            for epoch in range(self.start // per_epoch, task.epochs):
                if self.record.stops_early() or self.start == task.total_steps:
                    break
                first, stop = max(self.start, epoch * per_epoch), min((epoch + 1) * per_epoch, task.total_steps)
                self.model.train()
                end.begin_epoch(epoch, first, stop)
                for step in range(first, stop):
                    self.step(loader, step, end)
                end.end_epoch(stop)
        published = self.record.load_published()
        return LoopResult(self.record, accelerator, published, self.precision)

    def step(self, loader: Iterator[Any], step: int, end: StepEnd, parts: int | None = None) -> None:
        """Makes one optimizer step: forward and backward passes over the batch's parts, optimizer, records.

        Args:
            loader: Parts of the batches of this step and the following ones.
            step: Number of the step, from 0.
            end: End of the step.
            parts: Number of parts to compute, for a measurement; None computes all of them.
        """
        asked = time.perf_counter()
        batches = [next(loader) for _ in range(parts or self.task.recipe.training.accumulation)]
        self.record.waited(time.perf_counter() - asked)
        self.task.prepare_step(batches)
        for loaded in batches:
            end.add_piece(loaded)
        self._compute(batches, step, end)

    def _compute(self, batches: Sequence[dict[str, Any]], step: int, end: StepEnd) -> None:
        """Computes a step from its parts on the host; what runs on the device is not waited for."""
        task, accelerator, settings = self.task, self.accelerator, self.task.recipe.training
        rate, pieces = task.set_lr(self.optimizer, step), []
        for micro, loaded in enumerate(batches):
            batch = send_to_device(loaded, accelerator.device, non_blocking=True)
            last = micro == settings.accumulation - 1
            with accelerator.no_sync(self.model) if not last else nullcontext():
                with accelerator.autocast():
                    loss = task.loss(self.forward, batch)
                accelerator.backward(loss / settings.accumulation)
            pieces.append(loss.detach())
        if end.agree(step, torch.stack(pieces).mean(), rate):
            if settings.clip_norm is not None:
                accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            self.optimizer.step()
        self.optimizer.zero_grad()
        end.end(step)


__all__ = ["AccelerateLoop", "LoopResult"]
