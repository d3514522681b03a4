"""What is learned from what: the part of a run that the Accelerate loop and `Trainer` share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ....data.argument_names import stated
from ....data.image_processing import PixelFormat, pixel_format
from ....data.labelled.augmentation import TrainTransform
from ....data.labelled.dataset import EvaluationTransform, LabelledImages, collate
from ....data.labelled.mixing import mix_batch, targets_from_labels
from ....data.labelled.tables import ImageData
from ....data.samplers import EpochMicroBatches, MicroBatches, TrainingOrder
from ....data.seeding import Stream, derived_seed
from ....data.streaming.images import StreamedImages
from ....data.streaming.streams import StreamOrder
from ....modeling.modeling_vit import HubViTPreTrainedModel
from ...optim.lora import ADAPTER, Adapters
from ...optim.optimizers import build_optimizer
from ...optim.parameter_groups import keep_frozen_statistics
from ...optim.sample_dropout import SampleDropout, drops_activations
from ...optim.schedules import Schedule, build_schedule
from ...recipe.recipe import Recipe, RecipeError
from ...recipe.sections import TrainingSettings
from ...runtime.progress import Reporter
from ..train_batches import StreamLoading, table_loader
from .closer_look import closer_look
from .evaluation import Evaluation, default_workers, evaluate_classifier
from .feature_cache import FeatureRows, LinearHeads, cached_features, caches_features
from .losses import TrainingLoss
from .teacher_cache import cached_logits
from .teachers import Teacher


@dataclass
class TrainingTask:
    """A recipe with its model and data.

    Args:
        recipe: As given; `batch_size` is what is really used.
        model: On the CPU, in fp32.
        image_processor: The evaluation transform, saved with the model.
        data: The splits.
        order: Which images come at which step.
        criterion: The loss.
        teacher: On the model's device, or None.
        teacher_table: (N, L), its cached logits, or None.
        heads: What learns, where the backbone is frozen and its features are cached.
        features: Of the splits, in that case.
        adapters: In the model, until `finish`.
        stream: Of the training images, where they are one.
        end_step: Steps after which the training ends, where that is before its planned end.
    """

    recipe: Recipe
    model: PreTrainedModel
    image_processor: Any
    data: ImageData
    order: TrainingOrder | StreamOrder
    criterion: TrainingLoss
    teacher: Teacher | None = None
    teacher_table: torch.Tensor | None = None
    heads: LinearHeads | None = None
    features: dict[str, FeatureRows] = field(default_factory=dict)
    adapters: Adapters | None = None
    stream: StreamLoading | None = None
    end_step: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.order, StreamOrder):
            skip = self.recipe.data.on_bad_image == "skip"
            images = StreamedImages(self._train_transform(), self._label_width(), self.recipe.seed, skip)
            self.stream = StreamLoading(self.recipe, self.data, self.order, images, self.workers)

    @property
    def batch_size(self) -> int:
        """Images per step, over all processes and accumulation steps."""
        return self.order.batch_size

    @property
    def epochs(self) -> int:
        """How often it is evaluated; the last epoch may be cut short."""
        return -(-self.total_steps // self.order.steps_per_epoch)

    @property
    def learner(self) -> nn.Module:
        """What is trained and kept in checkpoints: the model, or its heads where features are cached."""
        return self.model if self.heads is None else self.heads

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
        if self.stream is not None:
            return settings.max_steps or 0
        steps = settings.epochs * self.order.steps_per_epoch
        return steps if settings.max_steps is None else min(steps, settings.max_steps)

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.data.labels.names)

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.data.labels.names)

    @property
    def image_hw(self) -> list[int]:
        """Height and width of what the model sees."""
        return list(self.pixels.image_hw)

    @property
    def problem(self) -> str:
        """What `metrics.json` calls it."""
        return str(self.model.config.problem_type)

    @property
    def about_data(self) -> dict[str, Any]:
        """What `metrics.json` says of the data."""
        return {"name": self.data.name, "sizes": self.data.sizes, "notes": self.data.notes}

    @property
    def workers(self) -> int:
        """Loading processes."""
        workers = self.recipe.data.workers
        return default_workers() if workers is None else workers

    @property
    def schedule(self) -> Schedule:
        """Learning rate by step."""
        return build_schedule(self.recipe.training, self.batch_size, self.order.steps_per_epoch, self.planned_steps)

    @property
    def pixels(self) -> PixelFormat:
        """What the model sees."""
        return pixel_format(self.image_processor)

    def train_images(self) -> LabelledImages:
        """The training split with the training transform."""
        return self._images("train", self._train_transform())

    def _train_transform(self) -> TrainTransform:
        pixels = self.pixels
        return TrainTransform(self.recipe.augmentation, pixels.image_hw, list(pixels.mean), list(pixels.std))

    def validation_rows(self) -> LabelledImages | FeatureRows:
        """What the learner is judged on after each epoch."""
        return self.features.get("validation") or self.evaluation_images("validation")

    def evaluation_images(self, split: str) -> LabelledImages:
        """A split with the evaluation transform, the saved processor's."""
        return self._images(split, EvaluationTransform(self.image_processor))

    def _images(self, split: str, transform: Callable[[Any], torch.Tensor]) -> LabelledImages:
        return LabelledImages(
            self.data.splits[split],
            transform,
            self._label_width(),
            self.recipe.seed,
            split,
            skip_bad=self.recipe.data.on_bad_image == "skip",
        )

    def _label_width(self) -> int | None:
        return self.num_labels if self.data.labels.multi_label else None

    def train_loader(self, start: int = 0, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """This process's batches from step `start` to the end, one per accumulation step."""
        if self.stream is not None:
            return self.stream.loader(start, self.total_steps, process, processes)
        assert isinstance(self.order, TrainingOrder)
        accumulation = self.recipe.training.accumulation
        return self._loader(MicroBatches(self.order, start, self.total_steps, accumulation, process, processes))

    def epoch_loader(self, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """This process's batches of one epoch; its `batch_sampler.set_epoch` tells which."""
        if not isinstance(self.order, TrainingOrder):
            raise RecipeError("data.streaming: only with the front end of Accelerate")
        return self._loader(EpochMicroBatches(self.order, self.recipe.training.accumulation, process, processes))

    def _loader(self, batches: MicroBatches) -> DataLoader[Any]:
        images = self.features.get("train") or self.train_images()
        return table_loader(images, batches, 0 if self.features else self.workers, collate)

    def evaluate(
        self, model: nn.Module, split: str, accelerator: Accelerator, reporter: Reporter, autocast: Any = None
    ) -> Evaluation:
        """Counts on a split of the learner or the whole model.

        Args:
            model: What is judged.
            split: Its name; where features are cached, the learner needs "validation".
            accelerator: Of all processes.
            reporter: Told of each batch.
            autocast: A context manager factory for the forward pass; None computes in fp32.
        """
        cached = model is not self.model and split in self.features
        images = self.features[split] if cached else self.evaluation_images(split)
        return evaluate_classifier(
            model, images, self.num_labels, multi_label=self.data.labels.multi_label,
            batch_size=self.recipe.evaluation.batch_size, workers=self.workers, autocast=autocast,
            accelerator=accelerator, max_bad_share=self.recipe.data.max_bad_share, reporter=reporter,
        )  # fmt: skip

    def looked_closer(self, split: str) -> dict[str, Any]:
        """What `metrics.json` says of single images of a split."""
        return closer_look(
            self.model, self.evaluation_images(split), self.names, multi_label=self.data.labels.multi_label,
            batch_size=self.recipe.evaluation.batch_size, seed=self.recipe.seed,
        )  # fmt: skip

    def prepare_step(self, batches: Sequence[dict[str, Any]]) -> None:
        """What the pieces of a step's batch must know of each other before they are computed: nothing."""

    def optimizer(self) -> torch.optim.Optimizer:
        """The recipe's optimizer over what learns."""
        return build_optimizer(self.learner, self.recipe.training, self.schedule.lr)

    def prepare(self, device: torch.device, folder: Path) -> None:
        """Moves the model and its teacher to a device, and fills the caches that the recipe calls for in a folder."""
        self.model.to(device)
        if self.recipe.model.activation_checkpointing:
            self.model.activation_checkpointing_enable()
        if caches_features(self.recipe):
            self.heads = LinearHeads(self.model)
            size = self.recipe.evaluation.batch_size
            self.features = {
                images.name: cached_features(self.model, self.heads, images, folder, size, self.workers)
                for images in (self.train_images(), self.evaluation_images("validation"))
            }
        if self.teacher is None:
            return
        self.teacher.to(device)
        if self.recipe.distillation.cache and self.teacher_table is None:
            self.teacher_table = cached_logits(
                self.teacher, self.train_images(), folder, device, self.recipe.evaluation.batch_size, self.workers
            )

    def finish(self, folder: Path | None) -> None:
        """Makes the model what is published: adapters merged, and saved into a run's folder where asked for."""
        if self.adapters is None:
            return
        if folder is not None and self.recipe.lora.publish == "adapter":
            self.adapters.save(folder / ADAPTER, self.recipe.model.source)
        self.adapters.merge()
        self.adapters = None

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Gives every group its rate of a step, and returns the head's."""
        schedule = self.schedule
        factor = schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * group["scale"] * factor
        return schedule(step)

    def describe(self, row: int) -> str:
        """File or row of a training image, for messages."""
        return self.stream.images.describe(row) if self.stream is not None else self.train_images().describe(row)

    def images_seen(self, step: int) -> int:
        """Number of training images of a table, or how many of a stream were read in so many steps."""
        return step * self.batch_size if self.stream is not None else len(self.data.train)

    def bad_images(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Names of the images for which others stand in a batch."""
        return [self.describe(int(row)) for row in batch["bad"] if row >= 0] if "bad" in batch else []

    def nonfinite_message(self, step: int, value: float, rate: float, rows: list[int], checkpoint: Path | None) -> str:
        """What to say of a loss that is not finite, with the images of its step."""
        names = ", ".join(self.describe(row) for row in rows[:8])
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return (
            f"the loss of step {step} is {value} at a learning rate of {rate:.3g}; its images: {names}{more}; "
            f"the last good checkpoint is {checkpoint or 'none'}; "
            f"{stated(resume=True, on_nonfinite='skip')} leaves such steps out"
        )

    def step_of(self, batch: dict[str, torch.Tensor]) -> int:
        """The training step that a batch belongs to, from 0."""
        epoch, position = int(batch["epoch"][0]), int(batch["position"][0])
        return epoch * self.order.steps_per_epoch + position // self.batch_size

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss of a batch, or of a part of one; equal parts average to the loss of the whole.

        Args:
            model: In training mode, perhaps wrapped.
            batch: As the train loader gives it, on the model's device.
        """
        recipe, step = self.recipe, self.step_of(batch)
        keep_frozen_statistics(self.learner)
        targets = targets_from_labels(batch["labels"], self.num_labels, recipe.training.label_smoothing)
        pixels = batch["pixel_values"]
        off = recipe.augmentation.mix_off_epoch
        if recipe.augmentation.mixes and (off is None or int(batch["epoch"][0]) < off):
            pixels, targets = mix_batch(pixels, targets, recipe.augmentation, recipe.seed, Stream.MIX, step)
        torch.manual_seed(derived_seed(recipe.seed, Stream.MODEL, step))
        arguments: dict[str, Any] = {}
        if isinstance(self.learner, HubViTPreTrainedModel):
            arguments["batch_window"] = (int(batch["position"][0]) % self.batch_size, self.batch_size)
        with self._dropout(batch, step):
            outputs = model(pixel_values=pixels, **arguments)
        return self.criterion(outputs, targets, self._teacher_logits(pixels, batch["index"]))

    def _dropout(self, batch: dict[str, torch.Tensor], step: int) -> AbstractContextManager[Any]:
        """Draws dropout by sample, where there is any and the graph is that of this very pass."""
        model = self.recipe.model
        if model.compile or model.activation_checkpointing or not drops_activations(self.learner):
            return nullcontext()
        places = (batch["position"] % self.batch_size).tolist()
        return SampleDropout([derived_seed(self.recipe.seed, Stream.DROPOUT, step, place) for place in places])

    def _teacher_logits(self, pixels: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
        if self.teacher is None:
            return None
        if self.teacher_table is not None:
            return self.teacher_table[index.cpu()].to(pixels.device)
        return self.teacher.logits(pixels)


__all__ = ["TrainingTask"]
