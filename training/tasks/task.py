"""Contract of a task: everything that differs between classification, detection and further tasks.

A task is a folder beside this file. It provides one `Task`, which `registry.py` lists, and a class derived from
`TrainingTask`. The loops, `evaluate`, `predict` and the run's folder depend on these contracts only.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
from ...data.seeding import derived_seed
from ...data.splits import SplitTables
from ...hub.ready_model import Backend, ReadyModel
from ..optim.optimizers import build_optimizer
from ..optim.schedules import Schedule, build_schedule
from ..recipe.recipe import Recipe
from ..recipe.sections import TrainingSettings
from ..runtime.batch_loading import KeptLoaders
from ..runtime.progress import Reporter
from .batch_places import BatchPlace
from .compilation import channels_last, compilation, put_channels_last
from .evaluation import Evaluation, SplitEvaluator, default_workers, evaluate_split
from .overview import DataOverview
from .predictions import OpenedImages
from .train_batches import TrainBatches, pixel_caches


class TrainingTask(DataOverview, ABC):
    """Training task: model, data, loss and metrics of one run, shared by the Accelerate loop and `Trainer`.

    Args:
        recipe: Recipe of the run.
        model: Model on the CPU, in float32.
        image_processor: Image processor of the evaluation transform, saved with the model.
        data: Data with `name`, `sizes` (images by split), `notes`, and `reported` (name of the split to report).

    Attributes:
        batches: Training data with the batches of each step; each task sets it.
        caches: Caches of decoded images by split, if the recipe asks for them.
        loaders: Loaders of the splits that are evaluated again and again.
        end_step: Number of steps after which the training ends, if before its planned end; else None.
        compiled: What is compiled: "no", "layers" or "whole"; known after `prepare`.
        channels_last: Whether convolutions have channels last in memory; known after `prepare`.
    """

    batches: TrainBatches

    def __init__(self, recipe: Recipe, model: PreTrainedModel, image_processor: Any, data: Any) -> None:
        self.recipe, self.model, self.image_processor, self.data = recipe, model, image_processor, data
        self.end_step: int | None = None
        self.loaders = KeptLoaders()
        self.caches = pixel_caches(data.sizes) if recipe.data.cache == "memory" else {}
        self.compiled, self.channels_last = "no", False

    # Members that each task defines.

    @property
    @abstractmethod
    def problem(self) -> str:
        """Name of the problem in `metrics.json`."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Class names, in label order."""

    @abstractmethod
    def input_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the size of the model's input, in pixels."""

    @abstractmethod
    def evaluator(self, model: nn.Module, split: str, autocast: Any = None) -> SplitEvaluator:
        """Returns an evaluator of a model on a split.

        Args:
            model: Whole model, or the module that is trained.
            split: Name of the split.
            autocast: Context manager factory for the forward pass; None computes in float32.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Computes the mean loss of a batch, or of part of one; equal parts average to the loss of the whole.

        Args:
            model: Model in training mode, possibly wrapped.
            batch: Batch of the train loader, on the model's device.
        """

    # Members that a task may override.

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """Prepares the parts of a step's batch on the host, before they are copied to the device and computed.

        Whatever the step must know as a number is read here: reading it from the device would wait for its work.
        """
        for batch in batches:
            batch["place"] = BatchPlace.of(batch)

    def prepare(self, device: torch.device, folder: Path) -> None:
        """Moves the model to a device.

        Args:
            device: Device to train on.
            folder: Folder of the run's checkpoints, for results that are computed once and kept.
        """
        del folder
        self.model.to(device)
        self.batches.device = device
        self.compiled = compilation(self.recipe, self.model, device)
        self.channels_last = channels_last(self.recipe, self.model, device)
        if self.channels_last:
            put_channels_last(self.model)
        if self.recipe.model.activation_checkpointing:
            self.model.activation_checkpointing_enable()

    def finish(self, folder: Path | None) -> None:  # most tasks need none
        """Converts the model to the one to publish, and writes extra files into the run's folder unless it is None."""

    def data_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about the data."""
        drawn = {"drawn": sorted(self.data.drawn)} if isinstance(self.data, SplitTables) else {}
        return {"name": self.data.name, "sizes": self.data.sizes, "notes": self.data.notes, **drawn}

    @property
    def leaves_parameters(self) -> bool:
        """True if some trained parameters may get no gradient in a step."""
        return False

    def model_facts(self) -> dict[str, Any]:
        """Returns the entries of `metrics.json` about what the model began from, and about its loss."""
        return {}

    def sample_facts(self, split: str) -> dict[str, Any]:  # noqa: ARG002
        """Returns the entries of `metrics.json` about single images of a split."""
        return {}

    def calibration_facts(self, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the entries of `metrics.json` about calibration, from the published model's results by split."""
        return {}

    def epoch_facts(self, evaluation: Evaluation) -> dict[str, float]:  # noqa: ARG002
        """Returns further numbers of an epoch's evaluation for the history; those named "validation_..." are drawn."""
        return {}

    def teacher_facts(self) -> dict[str, Any] | None:
        """Returns the entry of `metrics.json` about a teacher; None if there is none."""
        return None

    # Members shared by all tasks.

    @property
    def learner(self) -> nn.Module:
        """Module that is trained and saved in checkpoints."""
        return self.model

    @property
    def batch_size(self) -> int:
        """Images per step, over all processes and accumulation steps."""
        return self.batches.order.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps between evaluations."""
        return self.batches.order.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Number of epochs; the last may be incomplete."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of this training, ended early or not."""
        return self.planned_steps if self.end_step is None else min(self.planned_steps, self.end_step)

    @property
    def planned_steps(self) -> int:
        """Number of optimizer steps of the whole training, over which its schedule runs."""
        return self.steps_of(self.recipe.training)

    def steps_of(self, settings: TrainingSettings) -> int:
        """Returns the number of optimizer steps of a whole training with these settings."""
        return self.batches.planned_steps(settings)

    @property
    def workers(self) -> int:
        """Number of loading processes."""
        workers = self.recipe.data.workers
        return default_workers() if workers is None else workers

    @property
    def schedule(self) -> Schedule:
        """Learning-rate schedule of the run."""
        return build_schedule(self.recipe.training, self.batch_size, self.steps_per_epoch, self.planned_steps)

    def optimizer(self) -> torch.optim.Optimizer:
        """Builds the recipe's optimizer over the trained parameters."""
        return build_optimizer(self.learner, self.recipe.training, self.schedule.lr)

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Sets the learning rate of every group for a step, and returns the head's."""
        schedule = self.schedule
        factor = schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * group["scale"] * factor
        return schedule(step)

    def train_loader(self, start: int = 0, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """Returns a process's batches from step `start` to the end, one per accumulation step."""
        return self.batches.loader(start, self.total_steps, process, processes)

    def epoch_loader(self, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """Returns a process's batches of one epoch, which is chosen by its `batch_sampler.set_epoch`."""
        return self.batches.epoch_loader(process, processes)

    def evaluate(
        self, model: nn.Module, split: str, accelerator: Accelerator, reporter: Reporter, autocast: Any = None
    ) -> Evaluation:
        """Computes metrics on a split.

        Args:
            model: Whole model, or the module that is trained.
            split: Name of the split.
            accelerator: Accelerator whose processes share the split.
            reporter: Receives the progress of each batch.
            autocast: Context manager factory for the forward pass; None computes in float32.
        """
        return evaluate_split(
            self.evaluator(model, split, autocast), batch_size=self.recipe.evaluation.batch_size,
            workers=self.workers, accelerator=accelerator, max_bad_share=self.recipe.data.max_bad_share,
            reporter=reporter,
        )  # fmt: skip

    def step_of(self, batch: dict[str, Any]) -> int:
        """Returns the training step that a batch belongs to, from 0."""
        place = BatchPlace.of(batch)
        return place.epoch * self.steps_per_epoch + place.positions[0] // self.batch_size

    def sample_seeds(self, stream: int, batch: dict[str, Any]) -> list[int]:
        """Returns one seed per sample of a batch, derived from its position in the step's whole batch.

        Args:
            stream: Purpose of the draws, one of `Stream`.
            batch: Batch, or part of one.
        """
        step, positions = self.step_of(batch), BatchPlace.of(batch).positions
        return [derived_seed(self.recipe.seed, stream, step, position % self.batch_size) for position in positions]

    def bad_images(self, batch: dict[str, Any]) -> list[str]:
        """Returns the names of the undecodable images that were replaced by others in a batch."""
        return [self.batches.describe(row) for row in BatchPlace.of(batch).bad]

    def nonfinite_message(self, step: int, value: float, rate: float, rows: list[int], checkpoint: Path | None) -> str:
        """Returns the error message for a loss that is not finite, with the images of its step."""
        names = ", ".join(self.batches.describe(row) for row in rows[:8])
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return (
            f"the loss of step {step} is {value} at a learning rate of {rate:.3g}; its images: {names}{more}; "
            f"the last good checkpoint is {checkpoint or 'none'}; "
            f"{stated(resume=True, on_nonfinite='skip')} leaves such steps out"
        )


class SavedEvaluation(Protocol):
    """Saved model with the labelled data to evaluate it on."""

    data: str  # name of the data set
    split: str  # requested split, or the one that is reported by default
    rows: Any  # table of that split

    def evaluator(self, device: torch.device) -> SplitEvaluator:
        """Returns an evaluator of the split, and moves the model to a device."""

    def results(self, evaluation: Evaluation) -> dict[str, Any]:
        """Returns metrics and results per class, for `metrics.json`."""

    def save_plots(self, folder: Path, evaluation: Evaluation, results: dict[str, Any]) -> None:
        """Writes plots and prediction files beside `metrics.json`."""


class ImagePredictor(Protocol):
    """Saved model that predicts single images."""

    def predictions(self, opened: OpenedImages) -> Iterator[dict[str, Any]]:
        """Yields `image` and `predictions` of each image, and an `error` for one that could not be decoded."""


class DatasetPredictor(Protocol):
    """Saved model with the images of a data set, whose predictions are rows of a table."""

    splits: dict[str, Any]  # tables by split name
    data: str  # name of the data set
    about: dict[str, Any]  # labels and options, for `about.json`

    def open(self, split: str, device: torch.device) -> Any:
        """Returns the images of a split and moves the model to its device."""

    def tables(self, rows: range, batch_size: int, workers: int, reporter: Reporter) -> Iterator[pa.Table]:
        """Yields one table per batch."""

    def finish(self, files: list[Path]) -> None:
        """Writes files that combine all files of rows."""


class Task(Protocol):
    """Task: builds training runs from recipes, and opens saved models for evaluation and prediction."""

    name: str  # value of a recipe's `task`
    takes_tiles: bool  # whether it takes `tiling: Tiling | None` wherever it opens a model; see `tile_options`

    def default_preset(self, model: str) -> str:
        """Returns the name of the preset for a model that is given without one."""

    def build(self, recipe: Recipe, source: Any, processes: int, teacher: Any) -> TrainingTask:
        """Reads the data and builds the model that a recipe names.

        Args:
            recipe: Recipe of the run.
            source: Recipe's data source, or a `Dataset` or `DatasetDict` in memory.
            processes: Number of training processes.
            teacher: Module that replaces the recipe's teacher, or None.
        """

    def open_evaluation(
        self,
        path: Path,
        name: str,
        data: Any,
        split: str | None,
        label_column: str | None,
        skip_bad: bool,
        backend: Backend = None,
    ) -> SavedEvaluation:
        """Opens a saved model and the data to evaluate it on.

        Args:
            path: Folder of the model.
            name: Name of the model in messages.
            data: Data source or a data set in memory; None takes the run's training data with the same splits.
            split: Name of the split; None takes the split that the run reported, or "test" if it exists.
            label_column: Name of the column of labels or objects; None finds it.
            skip_bad: Whether images that cannot be decoded are left out.
            backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
                there.
        """

    def skipping(self, own_data: bool) -> str:
        """Describes the effect of `on_bad_image="skip"` in an evaluation, for messages.

        Args:
            own_data: Whether the model is evaluated on its run's training data.
        """

    def result_table(self, result: dict[str, Any]) -> Table:
        """Formats the result of an evaluation for a terminal."""

    def open_mirrored(self, path: Path, backend: Backend) -> ReadyModel:
        """Opens a saved model, or a form of it, that answers from an image and its mirror image.

        Raises:
            ValueError: A model for this task cannot do so; see `refuse_mirrored`.
        """

    def open_images(
        self,
        path: Path,
        *,
        top: int | None,
        batch_size: int | None,
        threshold: float | None,
        output: Any,
        backend: Backend = None,
    ) -> ImagePredictor:
        """Opens a saved model for single images; raises `ValueError` for an option without effect on this task."""

    def open_dataset(
        self,
        path: Path,
        data: Any,
        *,
        embeddings: bool,
        threshold: float | None,
        skip_bad: bool,
        backend: Backend = None,
    ) -> DatasetPredictor:
        """Opens a saved model for a data set; raises `ValueError` for an option without effect on this task."""


__all__ = ["DatasetPredictor", "ImagePredictor", "SavedEvaluation", "Task", "TrainingTask"]
