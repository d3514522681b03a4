"""What is learned from what: the part of a run that the Accelerate loop and `Trainer` share."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..data.augmentation import TrainTransform
from ..data.image_data import ImageData, load_image_data
from ..data.image_dataset import EvaluationTransform, LabelledImages, collate
from ..data.mixing import mix_batch, targets_from_labels
from ..data.samplers import MicroBatches, TrainingOrder
from ..data.seeding import Stream, derived_seed
from ..modeling.modeling_vit import HubViTPreTrainedModel
from .evaluating import default_workers
from .losses import training_loss
from .model_source import build_classifier
from .parameter_groups import parameter_groups
from .recipe import Recipe, RecipeError
from .schedules import CosineSchedule


@dataclass
class TrainingTask:
    """A recipe with its model and data.

    Args:
        recipe: As given; `batch_size` is what is really used.
        model: On the CPU, in fp32.
        image_processor: The evaluation transform, saved with the model.
        data: The splits.
        order: Which images come at which step.
        batch_size: Images per step.
    """

    recipe: Recipe
    model: PreTrainedModel
    image_processor: Any
    data: ImageData
    order: TrainingOrder
    batch_size: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.recipe.training.epochs * self.order.steps_per_epoch

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.data.labels.names)

    @property
    def workers(self) -> int:
        """Loading processes."""
        workers = self.recipe.data.workers
        return default_workers() if workers is None else workers

    @property
    def schedule(self) -> CosineSchedule:
        """Learning rate by step."""
        settings = self.recipe.training
        warmup = min(round(settings.warmup * self.order.steps_per_epoch), self.total_steps - 1)
        return CosineSchedule(settings.lr, self.total_steps, max(0, warmup), settings.warmup_lr, settings.min_lr)

    def train_images(self) -> LabelledImages:
        """The training split with the training transform."""
        transform = TrainTransform(
            self.recipe.augmentation,
            self.model.config.image_hw,
            self.image_processor.image_mean,
            self.image_processor.image_std,
        )
        return LabelledImages(self.data.train, transform, self._label_width(), self.recipe.seed, "train")

    def evaluation_images(self, split: str) -> LabelledImages:
        """A split with the evaluation transform, the saved processor's."""
        transform = EvaluationTransform(self.image_processor)
        return LabelledImages(self.data.splits[split], transform, self._label_width(), self.recipe.seed, split)

    def _label_width(self) -> int | None:
        return self.num_labels if self.data.labels.multi_label else None

    def train_loader(self, start: int = 0, process: int = 0, processes: int = 1) -> DataLoader[Any]:
        """This process's batches from step `start` to the end, one per accumulation step."""
        batches = MicroBatches(
            self.order, start, self.total_steps, self.recipe.training.accumulation, process, processes
        )
        return DataLoader(
            self.train_images(),
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW over the parameter groups of a model."""
        settings = self.recipe.training
        groups = parameter_groups(model, settings.lr, settings.weight_decay, settings.layer_decay)
        kinds = {parameter.device.type for group in groups for parameter in group["params"]}
        fused = kinds <= {"cpu", "cuda"}
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.epsilon, fused=fused)

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Gives every group its rate of a step, and returns the head's."""
        factor = self.schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.training.lr * group["scale"] * factor
        return self.recipe.training.lr * factor

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
        targets = targets_from_labels(batch["labels"], self.num_labels, recipe.training.label_smoothing)
        pixels = batch["pixel_values"]
        off = recipe.augmentation.mix_off_epoch
        if recipe.augmentation.mixes and (off is None or int(batch["epoch"][0]) < off):
            pixels, targets = mix_batch(pixels, targets, recipe.augmentation, recipe.seed, Stream.MIX, step)
        torch.manual_seed(derived_seed(recipe.seed, Stream.MODEL, step))
        arguments: dict[str, Any] = {}
        if isinstance(self.model, HubViTPreTrainedModel):
            arguments["batch_window"] = (int(batch["position"][0]) % self.batch_size, self.batch_size)
        outputs = model(pixel_values=pixels, **arguments)
        return training_loss(outputs, targets, self.data.labels.multi_label)


def build_task(recipe: Recipe, data: Any = None, processes: int = 1) -> TrainingTask:
    """Reads the data and builds the model that a recipe names.

    Args:
        recipe: What to train.
        data: A `Dataset` or `DatasetDict` in memory, instead of the recipe's source.
        processes: Number of training processes.
    """
    settings = recipe.data
    images = load_image_data(
        settings.source if data is None else data,
        image_column=settings.image_column,
        label_column=settings.label_column,
        train_split=settings.train_split,
        validation_split=settings.validation_split,
        test_split=settings.test_split,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        split_seed=settings.split_seed,
        revision=settings.revision,
    )
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    model, processor = build_classifier(recipe.model, recipe.evaluation, images.labels.names, images.labels.multi_label)
    batch_size = _batch_size(recipe, len(images.train), processes)
    order = TrainingOrder(len(images.train), batch_size, recipe.seed, recipe.augmentation.repeats)
    return TrainingTask(recipe, model, processor, images, order, batch_size)


def _batch_size(recipe: Recipe, images: int, processes: int) -> int:
    """The recipe's batch size, or the largest that fits a smaller training split."""
    parts = recipe.training.accumulation * processes
    unit = parts * (2 if recipe.augmentation.mixes else 1)
    if recipe.training.batch_size % unit:
        raise RecipeError(
            f"training.batch_size: must be a multiple of {unit} ({recipe.training.accumulation} accumulation steps, "
            f"{processes} processes{', pairs to mix' if recipe.augmentation.mixes else ''}), "
            f"got {recipe.training.batch_size}"
        )
    fitting = min(recipe.training.batch_size, images // unit * unit)
    if fitting == 0:
        raise RecipeError(f"training.batch_size: {images} training images are fewer than the smallest batch, {unit}")
    return fitting


__all__ = ["TrainingTask", "build_task"]
