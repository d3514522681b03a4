"""The contract of a task: what differs between classifying, detecting, and whatever comes next.

A task is a folder beside this file. It offers one `Task`, which `registry.py` lists, and a class that derives from
`TrainingTask`. The loops, `evaluate`, `predict` and the run's folder know these contracts only.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch
from accelerate import Accelerator
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ...data.argument_names import stated
from ..optim.optimizers import build_optimizer
from ..optim.schedules import Schedule, build_schedule
from ..recipe.recipe import Recipe
from ..recipe.sections import TrainingSettings
from ..runtime.progress import Reporter
from .evaluation import Evaluation, SplitEvaluator, default_workers, evaluate_split
from .predictions import OpenedImages
from .train_batches import TrainBatches


class TrainingTask(ABC):
    """Model, data, loss and metrics of one run, shared by the Accelerate loop and `Trainer`.

    Args:
        recipe: The recipe of the run.
        model: The model, on the CPU, in fp32.
        image_processor: The evaluation transform, which is saved with the model.
        batches: The training data, and which of it comes at which step.
        end_step: Number of steps after which the training ends, where that is before its planned end.
    """

    problem: str  # what `metrics.json` calls the task

    def __init__(self, recipe: Recipe, model: PreTrainedModel, image_processor: Any, batches: TrainBatches) -> None:
        self.recipe, self.model, self.image_processor, self.batches = recipe, model, image_processor, batches
        self.end_step: int | None = None

    # What each task says for itself.

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Class names, in label order."""

    @property
    @abstractmethod
    def image_hw(self) -> list[int]:
        """Height and width in pixels of what the model sees."""

    @property
    @abstractmethod
    def data(self) -> Any:
        """The data: `name`, `sizes` (images by split), `notes`, and `test`, None where there is no such split."""

    @abstractmethod
    def evaluator(self, model: nn.Module, split: str, autocast: Any = None) -> SplitEvaluator:
        """One pass of a model over a split.

        Args:
            model: The whole model, or the part of it that learns.
            split: Name of the split.
            autocast: Context manager factory for the forward pass; None computes in fp32.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """The mean loss of a batch, or of a part of one; equal parts average to the loss of the whole.

        Args:
            model: In training mode, perhaps wrapped.
            batch: As the train loader gives it, on the model's device.
        """

    # What a task may add.

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:  # noqa: B027  # most tasks need none
        """Tells the pieces of a step's batch what they must know of each other before they are computed."""

    def prepare(self, device: torch.device, folder: Path) -> None:
        """Moves the model to a device.

        Args:
            device: Where to train.
            folder: Folder of the run's checkpoints, for what is computed once and kept.
        """
        del folder
        self.model.to(device)
        if self.recipe.model.activation_checkpointing:
            self.model.activation_checkpointing_enable()

    def finish(self, folder: Path | None) -> None:  # noqa: B027  # most tasks need none
        """Makes the model what is published; None writes nothing into the run's folder."""

    def data_facts(self) -> dict[str, Any]:
        """What `metrics.json` says of the data."""
        return {"name": self.data.name, "sizes": self.data.sizes, "notes": self.data.notes}

    def sample_facts(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        """What `metrics.json` says of single images of a split."""
        return {}

    def teacher_facts(self) -> dict[str, Any] | None:
        """What `metrics.json` says of a teacher; None where there is none."""
        return None

    # What is the same for all tasks.

    @property
    def learner(self) -> nn.Module:
        """The module that is trained and kept in checkpoints."""
        return self.model

    @property
    def batch_size(self) -> int:
        """Images per step, over all processes and accumulation steps."""
        return self.batches.order.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps from one evaluation to the next."""
        return self.batches.order.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Number of epochs; the last may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of this training."""
        return self.planned_steps if self.end_step is None else min(self.planned_steps, self.end_step)

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of the whole training, over which its schedule runs."""
        return self.steps_of(self.recipe.training)

    def steps_of(self, settings: TrainingSettings) -> int:
        """Optimizer steps of a whole training with these settings."""
        return self.batches.planned_steps(settings)

    @property
    def workers(self) -> int:
        """Loading processes."""
        workers = self.recipe.data.workers
        return default_workers() if workers is None else workers

    @property
    def schedule(self) -> Schedule:
        """Learning rate by step."""
        return build_schedule(self.recipe.training, self.batch_size, self.steps_per_epoch, self.planned_steps)

    def optimizer(self) -> torch.optim.Optimizer:
        """The recipe's optimizer over what learns."""
        return build_optimizer(self.learner, self.recipe.training, self.schedule.lr)

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Gives every group its rate of a step, and returns the head's."""
        schedule = self.schedule
        factor = schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * group["scale"] * factor
        return schedule(step)

    def train_loader(self, start: int = 0, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """A process's batches from step `start` to the end, one per accumulation step."""
        return self.batches.loader(start, self.total_steps, process, processes)

    def epoch_loader(self, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """A process's batches of one epoch; its `batch_sampler.set_epoch` tells which."""
        return self.batches.epoch_loader(process, processes)

    def evaluate(
        self, model: nn.Module, split: str, accelerator: Accelerator, reporter: Reporter, autocast: Any = None
    ) -> Evaluation:
        """Metrics on a split.

        Args:
            model: As `evaluator`.
            split: As `evaluator`.
            accelerator: Shares the split out over its processes.
            reporter: Told of each batch.
            autocast: As `evaluator`.
        """
        return evaluate_split(
            self.evaluator(model, split, autocast), batch_size=self.recipe.evaluation.batch_size,
            workers=self.workers, accelerator=accelerator, max_bad_share=self.recipe.data.max_bad_share,
            reporter=reporter,
        )  # fmt: skip

    def step_of(self, batch: dict[str, torch.Tensor]) -> int:
        """The training step that a batch belongs to, from 0."""
        epoch, position = int(batch["epoch"][0]), int(batch["position"][0])
        return epoch * self.steps_per_epoch + position // self.batch_size

    def bad_images(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Names of the images for which others stand in a batch."""
        return [self.batches.describe(int(row)) for row in batch["bad"] if row >= 0] if "bad" in batch else []

    def nonfinite_message(self, step: int, value: float, rate: float, rows: list[int], checkpoint: Path | None) -> str:
        """What to say of a loss that is not finite, with the images of its step."""
        names = ", ".join(self.batches.describe(row) for row in rows[:8])
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return (
            f"the loss of step {step} is {value} at a learning rate of {rate:.3g}; its images: {names}{more}; "
            f"the last good checkpoint is {checkpoint or 'none'}; "
            f"{stated(resume=True, on_nonfinite='skip')} leaves such steps out"
        )


class SavedEvaluation(Protocol):
    """A saved model beside the labelled data that it is measured on."""

    data: str  # name of the data set
    split: str  # the split that was asked for, or the one that is reported by default
    rows: Any  # the table of that split

    def evaluator(self, device: torch.device) -> SplitEvaluator:
        """One pass over the split, with the model on a device."""

    def results(self, evaluation: Evaluation) -> dict[str, Any]:
        """Metrics and classes, for `metrics.json`."""

    def save_plots(self, folder: Path, evaluation: Evaluation, results: dict[str, Any]) -> None:
        """Writes plots, and files of predictions, beside `metrics.json`."""


class ImagePredictor(Protocol):
    """A saved model that answers single images."""

    def predictions(self, opened: OpenedImages) -> Iterator[dict[str, Any]]:
        """`image` and `predictions` of each image, and an `error` of one that could not be decoded."""


class DatasetPredictor(Protocol):
    """A saved model beside the images of a data set, as rows of a table."""

    splits: dict[str, Any]  # a table for each
    data: str  # name of the data set
    about: dict[str, Any]  # labels and options, for `about.json`

    def open(self, split: str, device: torch.device) -> Any:
        """The images of a split; the model goes to its device."""

    def tables(self, rows: range, batch_size: int, workers: int, reporter: Reporter) -> Iterator[pa.Table]:
        """One table per batch."""

    def finish(self, files: list[Path]) -> None:
        """Writes what is made of all files of rows together."""


class Task(Protocol):
    """A kind of job, from a recipe or from a saved model."""

    name: str  # `task` of a recipe

    def default_preset(self, model: str) -> str:
        """The named recipe for a model that was named without one."""

    def build(self, recipe: Recipe, source: Any, processes: int, teacher: Any) -> TrainingTask:
        """Reads the data and builds the model that a recipe names.

        Args:
            recipe: The recipe of the run.
            source: The recipe's data source, or a `Dataset` or `DatasetDict` in memory.
            processes: Number of training processes.
            teacher: A module in place of the recipe's teacher, or None.
        """

    def open_evaluation(
        self, path: Path, name: str, data: Any, split: str | None, label_column: str | None, skip_bad: bool
    ) -> SavedEvaluation:
        """A saved model and the data to measure it on.

        Args:
            path: Folder of the model.
            name: What messages call the model.
            data: A source or a data set in memory; None takes what the run was trained on, with the same splits.
            split: Name of the split; None takes the one that the run reported, or "test" where there is one.
            label_column: Name of the column of labels or objects; None finds it.
            skip_bad: Whether images that cannot be decoded are left out.
        """

    def skipping(self, own_data: bool) -> str:
        """What `on_bad_image="skip"` does in an evaluation, for messages.

        Args:
            own_data: Whether the model is measured on what its run was trained on.
        """

    def result_table(self, result: dict[str, Any]) -> Table:
        """The result of an evaluation for a terminal."""

    def open_images(
        self, path: Path, *, top: int | None, batch_size: int | None, threshold: float | None, output: Any
    ) -> ImagePredictor:
        """A saved model for single images; an option that has no effect on this task is a `ValueError`."""

    def open_dataset(
        self, path: Path, data: Any, *, embeddings: bool, threshold: float, skip_bad: bool
    ) -> DatasetPredictor:
        """A saved model for a data set; an option that has no effect on this task is a `ValueError`."""


__all__ = [
    "DatasetPredictor",
    "ImagePredictor",
    "SavedEvaluation",
    "Task",
    "TrainingTask",
]
