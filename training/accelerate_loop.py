"""The training loop, on Accelerate."""

import math
import resource
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from .evaluating import evaluate_classifier
from .precision import resolve_precision
from .progress import Reporter
from .run_checkpoints import MODEL, last_checkpoint, read_state, restore, save_checkpoint, save_tensors
from .task import TrainingTask

BEST = "best.safetensors"


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass
class LoopResult:
    """What a training left.

    Args:
        history: One entry per epoch.
        published_epoch: From 1, the epoch whose weights are in the task's model now.
        seconds: Spent in training and validation, over all resumptions.
        precision: "fp32", "bf16" or "fp16".
        device: Where it ran.
        processes: Number of processes.
        resumed_from: Steps that an earlier process had done.
    """

    history: list[dict[str, Any]]
    published_epoch: int
    seconds: float
    precision: str
    device: str
    processes: int
    resumed_from: int = 0
    losses: list[float] = field(default_factory=list)


@dataclass
class _Progress:
    """What a checkpoint holds besides tensors."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, 0.0)
    best_epoch: int = 0
    seconds: float = 0.0


class AccelerateLoop:
    """Trains a task, leaving checkpoints in `folder`, and the best weights in the task's model at the end."""

    def __init__(self, task: TrainingTask, folder: Path, reporter: Reporter) -> None:
        AcceleratorState._reset_state()  # another run in this process may have had another precision
        settings = task.recipe.training
        self.task, self.folder, self.reporter = task, folder / "checkpoints", reporter
        probe = Accelerator()
        self.precision = resolve_precision(settings.precision, probe.device)
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(mixed_precision="no" if self.precision == "fp32" else self.precision)
        model: Any = task.model.to(self.accelerator.device)
        if task.recipe.model.activation_checkpointing:
            model.activation_checkpointing_enable()
        optimizer = task.optimizer(model)
        self.start = self._restore(model, optimizer)
        runner = torch.compile(model) if task.recipe.model.compile else model
        self.model, self.optimizer = self.accelerator.prepare(runner, optimizer)
        self.losses: list[float] = []

    def _restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        self.progress = _Progress()
        checkpoint = last_checkpoint(self.folder)
        if checkpoint is None:
            return 0
        state = read_state(checkpoint)
        restore(checkpoint, model, optimizer)
        self.progress = _Progress(**{name: state[name] for name in vars(self.progress)})
        return int(state["step"])

    def run(self) -> LoopResult:
        """Trains to the end, or to an early stop."""
        task, accelerator = self.task, self.accelerator
        loader = iter(task.train_loader(self.start, accelerator.process_index, accelerator.num_processes))
        per_epoch, epochs = task.order.steps_per_epoch, task.recipe.training.epochs
        if self.start:
            self.reporter.message(f"resuming from step {self.start} of {task.total_steps}")
        for epoch in range(self.start // per_epoch, epochs):
            if self._stops_early():
                break
            first = max(self.start, epoch * per_epoch)
            self._train_epoch(loader, epoch, first, (epoch + 1) * per_epoch)
        return LoopResult(
            history=self.progress.history,
            published_epoch=self._load_published(),
            seconds=self.progress.seconds,
            precision=self.precision,
            device=accelerator.device.type,
            processes=accelerator.num_processes,
            resumed_from=self.start,
            losses=self.losses,
        )

    def _train_epoch(self, loader: Any, epoch: int, first: int, stop: int) -> None:
        task, begun = self.task, time.perf_counter()
        self.model.train()
        before = epoch * task.order.steps_per_epoch
        self.reporter.start(f"epoch {epoch + 1}/{task.recipe.training.epochs}", stop - before, first - before)
        total, rate = 0.0, 0.0
        for step in range(first, stop):
            rate = task.set_lr(self.optimizer, step)
            loss = self._step(loader, step)
            total += loss
            self.losses.append(loss)
            speed = (step + 1 - first) * task.batch_size / (time.perf_counter() - begun)
            self.reporter.advance(1, loss=loss, lr=rate, **{"images/s": speed})
        self.reporter.stop()
        trained = time.perf_counter() - begun
        counts = evaluate_classifier(
            self.accelerator.unwrap_model(self.model), task.evaluation_images("validation"), task.num_labels,
            batch_size=task.recipe.evaluation.batch_size, workers=task.workers, autocast=self.accelerator.autocast,
            reporter=self.reporter,
        )  # fmt: skip
        figures = counts.compute()
        self.progress.seconds += time.perf_counter() - begun
        entry = {
            "epoch": epoch + 1,
            "step": stop,
            "train_loss": total / (stop - first),
            "validation_loss": figures["loss"],
            "validation_accuracy": figures["accuracy"],
            "lr": rate,
            "images_per_second": (stop - first) * task.batch_size / trained,
            "peak_memory_mb": _peak_memory_mb(),
        }
        self.progress.history.append(entry)
        self.reporter.message(
            f"epoch {epoch + 1:>3}  loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}  "
            f"accuracy {100 * entry['validation_accuracy']:.2f} %  {entry['images_per_second']:.0f} images/s"
        )
        self._save(stop, (figures["accuracy"], -figures["loss"]), epoch + 1)

    def _step(self, loader: Any, step: int) -> float:
        """One optimizer step; returns the loss of the whole batch."""
        task, accelerator, settings = self.task, self.accelerator, self.task.recipe.training
        pieces = []
        for micro in range(settings.accumulation):
            batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in next(loader).items()}
            last = micro == settings.accumulation - 1
            with accelerator.no_sync(self.model) if not last else nullcontext():
                with accelerator.autocast():
                    loss = task.loss(self.model, batch)
                accelerator.backward(loss / settings.accumulation)
            pieces.append(loss.detach())
        value = float(accelerator.reduce(torch.stack(pieces).mean(), "mean"))
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss of step {step} is {value} at a learning rate of {task.schedule(step):.3g}; the last good "
                f"checkpoint is {last_checkpoint(self.folder) or 'none'}"
            )
        if settings.clip_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def _save(self, step: int, quality: tuple[float, float], epoch: int) -> None:
        if not self.accelerator.is_main_process:
            return
        model = self.accelerator.unwrap_model(self.model)
        if quality > tuple(self.progress.best):
            self.progress.best, self.progress.best_epoch = quality, epoch
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tensors(dict(model.state_dict()), self.folder / f".{BEST}")
            (self.folder / f".{BEST}").replace(self.folder / BEST)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        save_checkpoint(
            self.folder, step, model, optimizer, vars(self.progress), self.task.recipe.training.keep_checkpoints
        )

    def _stops_early(self) -> bool:
        patience, done = self.task.recipe.training.early_stop, len(self.progress.history)
        return patience is not None and done - self.progress.best_epoch >= patience

    def _load_published(self) -> int:
        """Puts the weights to publish into the task's model; returns their epoch."""
        self.accelerator.wait_for_everyone()
        last = last_checkpoint(self.folder)
        if self.task.recipe.training.publish == "best" or last is None:
            file, epoch = self.folder / BEST, self.progress.best_epoch
        else:
            file, epoch = last / MODEL, len(self.progress.history)
        self.task.model.load_state_dict(safetensors.torch.load_file(file))
        self.task.model.eval()
        return epoch


def _peak_memory_mb() -> float:
    """Largest memory of this process, of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


__all__ = ["BEST", "MODEL", "AccelerateLoop", "LoopResult", "NonFiniteLossError"]
