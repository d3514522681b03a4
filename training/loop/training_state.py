"""Training state of a run: its history, best weights, EMA and checkpoints.

Both front ends report every step and every epoch to it, and it does the rest.
"""

import resource
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import nn

from ..optim.master_weights import uses_master_weights
from ..recipe.resumable import LENGTH, changeable
from ..runtime.precision import resolve_precision, undo_autocast
from ..runtime.progress import Reporter, time_left
from ..tasks.compilation import undo_compilation
from ..tasks.evaluation import Evaluation, check_bad_share
from ..tasks.task import TrainingTask
from .checkpoints import (
    BEST,
    EMA,
    MODEL,
    best_name,
    last_checkpoint,
    load_whole,
    read_state,
    read_tensors,
    restore,
    save_best,
    save_checkpoint,
    whole_state,
)
from .interruption import EvaluationStoppedError, Interrupted, InterruptibleReporter, StopRequest, agreed_signal
from .trackers import Trackers


@dataclass
class Progress:
    """Progress of a run: everything in a checkpoint except tensors.

    Args:
        history: Entries of the epochs, one per evaluation.
        best: Headline metric, and the negative loss, of the best epoch.
        best_epoch: Number of the best epoch, from 1; 0 before the first evaluation.
        seconds: Time spent in training and validation, over all resumptions.
        loss_sum: Sum of the losses in the current epoch.
        skipped_steps: Numbers of the steps whose loss was not finite.
        bad_images: Names of training images that could not be decoded.
        loss_steps: Number of steps summed in `loss_sum`.
        changes: Recipe fields that were changed on resuming, each with the step and both values.
        best_file: Name of the file with the weights of the best epoch.
        timing: Number of steps of the current epoch made by this process, their seconds, and the seconds spent waiting
            for images.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, 0.0)
    best_epoch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    skipped_steps: list[int] = field(default_factory=list)
    bad_images: list[str] = field(default_factory=list)
    loss_steps: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    best_file: str = BEST
    timing: tuple[int, float, float] = (0, 0.0, 0.0)


class TrainingState:
    """Training state that is kept in `folder`, the folder of the run's checkpoints.

    Args:
        task: Training task; its model is on its device already.
        folder: Folder of the run's checkpoints.
        accelerator: Accelerator of all processes.
        optimizer: Optimizer of the model's parameters, not wrapped by Accelerate.
        reporter: Receives a message per epoch.
        average: EMA of the weights, or None if the recipe asks for none.
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
        if accelerator.device.type == "cuda":  # an earlier run of the process may have needed more
            torch.cuda.reset_peak_memory_stats(accelerator.device)

    @property
    def judged(self) -> nn.Module:
        """Model to evaluate and publish: the EMA if there is one."""
        if self.ema is not None:
            return self.ema.module
        return self.task.learner

    def restore(self) -> int:
        """Restores the last checkpoint, if there is one; returns the number of steps made."""
        checkpoint = last_checkpoint(self.folder)
        if checkpoint is None:
            return 0
        state = read_state(checkpoint)
        restore(checkpoint, self.task.learner, self.optimizer, self.ema.module if self.ema else None)
        self.progress = Progress(**{name: state[name] for name in vars(self.progress) if name in state})
        self.resumed_from = int(state["step"])
        self._fill_old(state)
        self._note_changes(state.get("recipe", {}))
        scaler = self.accelerator.scaler
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        if "stream" in state:
            self.task.batches.go_on_at(state["stream"])
        self.reporter.message(f"resuming from step {self.resumed_from} of {self.task.total_steps}")
        return self.resumed_from

    def _fill_old(self, state: dict[str, Any]) -> None:
        """Counts the steps of an unfinished epoch, which checkpoints of version 0.1 do not hold."""
        if "loss_steps" not in state and not self.ends_epoch(state["step"]):
            begun = state["step"] // self.task.steps_per_epoch * self.task.steps_per_epoch
            skipped = sum(number >= begun for number in self.progress.skipped_steps)
            self.progress.loss_steps = state["step"] - begun - skipped

    def _note_changes(self, before: dict[str, Any]) -> None:
        """Records the recipe fields whose values differ from those in the checkpoint."""
        step, now = self.resumed_from, changeable(self.task.recipe)
        for name in (name for name in now if name in before and before[name] != now[name]):
            self.progress.changes.append({"step": step, "field": name, "from": before[name], "to": now[name]})
            self.reporter.message(f"{name} is {now[name]!r} from step {step} on, it was {before[name]!r}")
            if name in LENGTH and step < self.task.total_steps:
                schedule = self.task.schedule
                self.reporter.message(
                    f"the learning rate follows the {schedule.kind} schedule of {schedule.total_steps} steps: "
                    f"{schedule(step):.3g} in step {step}, {schedule(schedule.total_steps - 1):.3g} in the last"
                )

    def begin_epoch(self, step: int) -> None:
        """Starts timing an epoch, or the rest of one."""
        self._clock = self._epoch_begun = time.perf_counter()
        self._waited, self._first = 0.0, step

    def waited(self, seconds: float) -> None:
        """Adds the time that a step waited for its images, in seconds."""
        self._waited += seconds

    def ends_epoch(self, step: int) -> bool:
        """Whether an evaluation follows after `step` steps."""
        return step > 0 and (step % self.task.steps_per_epoch == 0 or step == self.task.total_steps)

    def evaluated(self, step: int) -> bool:
        """Whether the weights after `step` steps have been evaluated."""
        return bool(self.progress.history) and int(self.progress.history[-1]["step"]) == step

    def catch_up(self, request: StopRequest) -> None:
        """Evaluates the resumed epoch, if the run was stopped between its last step and the end of its evaluation.

        Args:
            request: Stop request, checked during the evaluation.

        Raises:
            Interrupted: A signal came again.
        """
        step = self.resumed_from
        if not self.ends_epoch(step) or self.evaluated(step):
            return
        self.begin_epoch(step)
        self.end_epoch(step, request)

    def end_step(self, step: int, loss: float, lr: float, bad: list[str]) -> None:
        """Records the loss and the images of the optimizer's step number `step` (from 0).

        Args:
            step: Number of the step, from 0.
            loss: Loss of the whole batch; not finite if the step was skipped.
            lr: Learning rate of the head.
            bad: Names of the batch's images that could not be decoded.
        """
        self.losses.append(loss)
        self.trackers.log({"train/loss": loss, "train/lr": lr}, step)
        if loss - loss == 0:
            self.progress.loss_sum += loss
            self.progress.loss_steps += 1
        else:
            self.progress.skipped_steps.append(step)
        self.progress.bad_images = sorted({*self.progress.bad_images, *bad})
        self.progress.timing = (step + 1 - self._first, time.perf_counter() - self._epoch_begun, self._waited)

    def average(self, step: int) -> None:
        """Updates the EMA by the weights after step number `step`, if there is one."""
        if self.ema is not None:
            self.ema.update(self.task.learner, step=step)

    def saves_after(self, step: int) -> bool:
        """Whether the recipe asks for a checkpoint after step number `step`, within an epoch."""
        every = self.task.recipe.training.checkpoint_steps
        return every is not None and (step + 1) % every == 0 and not self.ends_epoch(step + 1)

    def end_epoch(self, step: int, request: StopRequest) -> dict[str, Any]:
        """Ends an epoch: evaluates, keeps the best weights, saves a checkpoint, and returns the history's entry.

        Args:
            step: Number of steps made.
            request: Stop request, checked during and after the evaluation.

        Raises:
            Interrupted: A signal came; a checkpoint is saved, and a resumed run makes up for the evaluation.
        """
        self._gather_bad_images()
        share = self.task.recipe.data.max_bad_share
        check_bad_share(self.progress.bad_images, self.task.batches.images_seen(step), share, "train")
        evaluation = self._evaluate(step, request)
        entry = self._entry(step, evaluation)
        self.progress.history.append(entry)
        if step % self.task.steps_per_epoch == 0:  # otherwise the epoch may continue, if the run is made longer
            self.progress.loss_sum, self.progress.loss_steps = 0.0, 0
        self._tell(entry, evaluation)
        self._keep_best((evaluation.quality, -evaluation.values["loss"]), entry["epoch"], step)
        # A step within an epoch is evaluated only if it is made the last one; the run may still continue from an
        # earlier one.
        keeps = self.task.end_step is None or step % self.task.steps_per_epoch == 0
        checkpoint = self.save(step) if keeps else last_checkpoint(self.folder)
        if signum := agreed_signal(self.accelerator, request):
            raise Interrupted(signum, step, checkpoint)
        return entry

    def _evaluate(self, step: int, request: StopRequest) -> Evaluation:
        """Evaluates the validation split; a signal interrupts it only if no other process waits in collective calls."""
        alone = self.accelerator.num_processes == 1
        reporter = InterruptibleReporter(self.reporter, request) if alone else self.reporter
        # Compiled layers would be compiled again for evaluation, and for its last batch once more.
        eager = torch.compiler.set_stance("force_eager") if self.task.compiled == "layers" else nullcontext()
        try:
            with eager:
                return self.task.evaluate(self.judged, "validation", self.accelerator, reporter, self.autocast)
        except EvaluationStoppedError:
            raise Interrupted(request.signum, step, self.save(step)) from None

    def autocast(self) -> Any:
        """Returns the context of an evaluation's forward pass, in the precision of the training."""
        settings, device = self.task.recipe.training, self.accelerator.device
        if uses_master_weights(settings, resolve_precision(settings.precision, device)):
            return torch.autocast(device.type, torch.bfloat16)
        return self.accelerator.autocast()

    def _entry(self, step: int, evaluation: Evaluation) -> dict[str, Any]:
        """Returns the history's entry of an epoch."""
        task, progress, per_epoch = self.task, self.progress, self.task.steps_per_epoch
        steps, trained, waited = progress.timing
        return {
            "epoch": -(-step // per_epoch),
            "step": step,
            "train_loss": progress.loss_sum / max(1, progress.loss_steps),
            "validation_loss": evaluation.values["loss"],
            f"validation_{evaluation.metrics.headline}": evaluation.quality,
            **task.epoch_facts(evaluation),
            "lr": task.schedule(step - 1),
            "seconds": progress.seconds + time.perf_counter() - self._clock,
            "images_per_second": steps * task.batch_size / max(trained, 1e-9),
            "waited_for_images": waited / max(trained, 1e-9),
            "peak_memory_mb": peak_memory_mb(self.accelerator.device),
        }

    def _tell(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Reports an epoch in one line, and logs its metrics to the trackers."""
        self.reporter.message(
            f"epoch {entry['epoch']:>3}  loss {entry['train_loss']:.4f}  "
            f"validation loss {entry['validation_loss']:.4f}  "
            f"{evaluation.metrics.headline.replace('_', ' ')} {100 * evaluation.quality:.2f} %  "
            f"{_rate(entry['images_per_second'])} images/s{self._left(entry)}"
        )
        told = {f"epoch/{name}": float(value) for name, value in entry.items() if name not in ("epoch", "step")}
        self.trackers.log(told, entry["step"])

    def _left(self, entry: dict[str, Any]) -> str:
        """Estimates the time left from the steps so far, evaluations included; an early stop may come before."""
        rest = self.task.total_steps - entry["step"]
        return f"  {time_left(entry['seconds'] / entry['step'] * rest)}" if rest else ""

    def _keep_best(self, quality: tuple[float, float], epoch: int, step: int) -> None:
        if quality <= tuple(self.progress.best):
            return
        self.progress.best, self.progress.best_epoch = quality, epoch
        self.progress.best_file = best_name(step)
        state = whole_state(self.judged)
        if self.accelerator.is_main_process:
            save_best(self.folder, self.progress.best_file, state)

    def _gather_bad_images(self) -> None:
        """Merges the lists of undecodable images of all processes."""
        if self.accelerator.num_processes > 1:
            self.progress.bad_images = sorted(set(gather_object(self.progress.bad_images)))

    def save(self, step: int) -> Path | None:
        """Saves the checkpoint of a step; only the main process writes it."""
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        self._gather_bad_images()
        scaler = self.accelerator.scaler
        state = asdict(self.progress) | {
            "scaler": scaler.state_dict() if scaler is not None else None,
            "recipe": changeable(self.task.recipe),
        }
        if (place := self.task.batches.place_at(step)) is not None:
            state["stream"] = gather_object([place])
        return save_checkpoint(
            self.folder, step, self.task.learner, self.optimizer, state, self.task.recipe.training.keep_checkpoints,
            ema=self.ema.module if self.ema else None, write=self.accelerator.is_main_process,
        )  # fmt: skip

    def stops_early(self) -> bool:
        """Whether the epochs without improvement have reached the recipe's `early_stop`."""
        patience, history = self.task.recipe.training.early_stop, self.progress.history
        done = history[-1]["epoch"] if history else 0
        return patience is not None and done - self.progress.best_epoch >= patience

    def load_published(self) -> int:
        """Loads the weights to publish into the task's model; returns their epoch."""
        self.trackers.finish()
        undo_compilation(self.task.learner)
        undo_autocast(self.task.learner)  # the published weights are evaluated as they are served, in fp32
        self.accelerator.wait_for_everyone()
        last = last_checkpoint(self.folder)
        if self.task.recipe.training.publish == "best" or last is None:
            file, epoch = self.folder / self.progress.best_file, self.progress.best_epoch
        else:
            file, epoch = last / (EMA if self.ema is not None else MODEL), self.progress.history[-1]["epoch"]
        load_whole(self.task.learner, read_tensors(file), file)
        self.task.model.eval()
        return epoch


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def peak_memory_mb(device: torch.device) -> float:
    """Returns the peak memory in MiB: of a CUDA device since the run began, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return process_peak() / 2**20


def process_peak() -> int:
    """Returns the peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


__all__ = ["Progress", "TrainingState", "peak_memory_mb", "process_peak"]
