"""What a run has reached: its history, its best weights, its average of weights, its checkpoints.

Both front ends tell it of every step and every epoch, and leave the rest to it.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import nn

from .evaluating import check_bad_share
from .precision import undo_autocast
from .progress import Reporter
from .run_checkpoints import (
    BEST,
    EMA,
    MODEL,
    last_checkpoint,
    load_whole,
    read_state,
    restore,
    save_best,
    save_checkpoint,
    whole_state,
)
from .task import TrainingTask
from .trackers import Trackers


@dataclass
class Progress:
    """What a checkpoint holds besides tensors.

    Args:
        history: One entry per epoch.
        best: Headline metric and minus the loss of the best epoch.
        best_epoch: From 1; 0 before the first evaluation.
        seconds: Spent in training and validation, over all resumptions.
        loss_sum: Of the steps of the epoch that is under way.
        skipped_steps: Steps whose loss was not finite.
        bad_images: Training images that could not be decoded.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, 0.0)
    best_epoch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    skipped_steps: list[int] = field(default_factory=list)
    bad_images: list[str] = field(default_factory=list)


class RunRecord:
    """Keeps the record of a run in `folder`, the run's folder of checkpoints.

    Args:
        task: What is trained; its model is on its device, and the optimizer works on its parameters.
        folder: Of checkpoints.
        accelerator: Of all processes.
        optimizer: Not wrapped.
        reporter: Told of each epoch.
        average: Of the weights, where the recipe asks for one.
    """

    def __init__(
        self,
        task: TrainingTask,
        folder: Path,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        reporter: Reporter,
        average: ModelEmaV3 | None,
    ) -> None:
        self.task, self.folder, self.accelerator, self.reporter = task, folder, accelerator, reporter
        self.optimizer, self.progress, self.losses = optimizer, Progress(), list[float]()
        self.resumed_from = 0
        self.ema = average
        self.trackers = Trackers(task.recipe.training.trackers, folder.parent / "logs", task.recipe)
        self._clock, self._epoch_begun, self._waited = time.perf_counter(), time.perf_counter(), 0.0
        self._first = 0

    @property
    def judged(self) -> nn.Module:
        """The model that is evaluated and published: the average where there is one."""
        if self.ema is not None:
            return self.ema.module
        return self.task.learner

    def restore(self) -> int:
        """Puts back the last checkpoint, if there is one; returns the number of steps done."""
        checkpoint = last_checkpoint(self.folder)
        if checkpoint is None:
            return 0
        state = read_state(checkpoint)
        restore(checkpoint, self.task.learner, self.optimizer, self.ema.module if self.ema else None)
        self.progress = Progress(**{name: state[name] for name in vars(self.progress)})
        scaler = self.accelerator.scaler
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        if self.task.stream is not None:
            self.task.stream.places = state["stream"]
        self.resumed_from = int(state["step"])
        self.reporter.message(f"resuming from step {self.resumed_from} of {self.task.total_steps}")
        return self.resumed_from

    def begin_epoch(self, step: int) -> None:
        """Starts the clock of an epoch, or of the rest of one."""
        self._clock = self._epoch_begun = time.perf_counter()
        self._waited, self._first = 0.0, step

    def waited(self, seconds: float) -> None:
        """Time that a step waited for its images."""
        self._waited += seconds

    def end_step(self, step: int, loss: float, lr: float, bad: list[str]) -> None:
        """After the optimizer's step number `step` (from 0); saves a checkpoint where the recipe says so.

        Args:
            step: Number of the step.
            loss: Of its whole batch; not finite where the step was left out.
            lr: Of the head.
            bad: Names of its images that could not be decoded.
        """
        self.losses.append(loss)
        self.trackers.log({"train/loss": loss, "train/lr": lr}, step)
        if loss - loss == 0:
            self.progress.loss_sum += loss
            if self.ema is not None:
                self.ema.update(self.task.learner, step=step)
        else:
            self.progress.skipped_steps.append(step)
        self.progress.bad_images = sorted({*self.progress.bad_images, *bad})
        every = self.task.recipe.training.checkpoint_steps
        ends = (step + 1) % self.task.order.steps_per_epoch == 0 or step + 1 == self.task.total_steps
        if every is not None and (step + 1) % every == 0 and not ends:
            self.save(step + 1)

    def end_epoch(self, step: int, lr: float) -> dict[str, Any]:
        """After the last step of an epoch: evaluates, remembers the best, saves a checkpoint, returns the entry.

        Args:
            step: Steps done.
            lr: Of the last step.
        """
        task, progress = self.task, self.progress
        trained = time.perf_counter() - self._epoch_begun
        per_epoch = task.order.steps_per_epoch
        epoch = -(-step // per_epoch)
        begun = (epoch - 1) * per_epoch
        if self.accelerator.num_processes > 1:
            progress.bad_images = sorted(set(gather_object(progress.bad_images)))
        check_bad_share(progress.bad_images, task.images_seen(step), task.recipe.data.max_bad_share, "train")
        evaluation = task.evaluate(
            self.judged, "validation", self.accelerator, self.reporter, self.accelerator.autocast
        )
        headline, loss, quality = evaluation.counts.headline, evaluation.figures["loss"], evaluation.quality
        skipped = sum(begun <= number < step for number in progress.skipped_steps)
        entry = {
            "epoch": epoch,
            "step": step,
            "train_loss": progress.loss_sum / max(1, step - begun - skipped),
            "validation_loss": loss,
            f"validation_{headline}": quality,
            "lr": lr,
            "seconds": progress.seconds + time.perf_counter() - self._clock,
            "images_per_second": (step - self._first) * task.batch_size / trained,
            "waited_for_images": self._waited / trained,
            "peak_memory_mb": peak_memory_mb(),
        }
        progress.history.append(entry)
        progress.loss_sum = 0.0
        self.reporter.message(
            f"epoch {epoch:>3}  loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}  "
            f"{headline.replace('_', ' ')} {100 * quality:.2f} %  "
            f"{entry['images_per_second']:.0f} images/s"
        )
        told = {f"epoch/{name}": float(value) for name, value in entry.items() if name not in ("epoch", "step")}
        self.trackers.log(told, step)
        self._keep_best((quality, -loss), epoch)
        self.save(step)
        return entry

    def _keep_best(self, quality: tuple[float, float], epoch: int) -> None:
        if quality <= tuple(self.progress.best):
            return
        self.progress.best, self.progress.best_epoch = quality, epoch
        state = whole_state(self.judged)
        if self.accelerator.is_main_process:
            save_best(self.folder, state)

    def save(self, step: int) -> Path | None:
        """Saves the checkpoint of a step; the main process writes it."""
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        scaler = self.accelerator.scaler
        state = asdict(self.progress) | {"scaler": scaler.state_dict() if scaler is not None else None}
        if self.task.stream is not None:
            state["stream"] = gather_object([self.task.stream.place_at(step)])
        return save_checkpoint(
            self.folder, step, self.task.learner, self.optimizer, state, self.task.recipe.training.keep_checkpoints,
            ema=self.ema.module if self.ema else None, write=self.accelerator.is_main_process,
        )  # fmt: skip

    def stops_early(self) -> bool:
        """Whether the recipe's patience is over."""
        patience, done = self.task.recipe.training.early_stop, len(self.progress.history)
        return patience is not None and done - self.progress.best_epoch >= patience

    def load_published(self) -> int:
        """Puts the weights to publish into the task's model; returns their epoch."""
        self.trackers.finish()
        undo_autocast(self.task.learner)  # what is published is judged as it is served, in fp32
        self.accelerator.wait_for_everyone()
        last = last_checkpoint(self.folder)
        if self.task.recipe.training.publish == "best" or last is None:
            file, epoch = self.folder / BEST, self.progress.best_epoch
        else:
            file, epoch = last / (EMA if self.ema is not None else MODEL), len(self.progress.history)
        load_whole(self.task.learner, safetensors.torch.load_file(file))
        self.task.model.eval()
        return epoch


def peak_memory_mb() -> float:
    """Largest memory of this process, of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


__all__ = ["Progress", "RunRecord", "peak_memory_mb"]
