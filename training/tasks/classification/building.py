"""From a recipe to what is trained: the data read, the model built, the teacher loaded."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ....data.boxes.loading import load_box_data
from ....data.image_processing import PixelFormat, pixel_format
from ....data.image_soundness import check_readable
from ....data.labelled.tables import load_image_data
from ....data.seeding import Stream, derived_seed
from ....data.streaming.tables import load_streamed_data
from ...optim.lora import Adapters
from ...optim.parameter_groups import depth_of, freeze_parameters
from ...recipe.effects import check_data_effects
from ...recipe.recipe import Recipe, RecipeError
from ..detection.model_source import build_detector
from ..detection.task import DetectionTask
from ..train_batches import build_order
from .losses import TrainingLoss
from .model_source import build_classifier
from .task import TrainingTask
from .teacher_cache import check_cacheable
from .teachers import Teacher, teaches_in_bf16


def build_task(
    recipe: Recipe, data: Any = None, processes: int = 1, teacher: nn.Module | Teacher | None = None
) -> TrainingTask:
    """Reads the data and builds the model that a recipe names.

    Args:
        recipe: What to train.
        data: A `Dataset` or `DatasetDict` in memory, instead of the recipe's source.
        processes: Number of training processes.
        teacher: A module, or a `Teacher`, instead of the recipe's; a module gets the student's pixels and answers
            with logits in the order of the student's labels.
    """
    source = recipe.data.source if data is None else data
    if recipe.task == "detection":
        return _detection_task(recipe, source, processes)
    if recipe.data.streaming:
        images = load_streamed_data(source, **recipe.data.streamed())
    else:
        images = load_image_data(source, **recipe.data.reading())
        check_data_effects(recipe, images.drawn)
        check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share)
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    labels = images.labels
    model, processor = build_classifier(recipe, labels.names, labels.multi_label)
    if recipe.training.freeze:
        _freeze(model, recipe.training.freeze)
    adapters = Adapters(model, recipe.lora) if recipe.lora.rank is not None else None
    order = build_order(recipe, images, processes)
    has_token = getattr(model, "distillation_classifier", None) is not None
    criterion = TrainingLoss(recipe.training, recipe.distillation, has_token, labels.multi_label)
    return TrainingTask(
        recipe, model, processor, images, order, criterion,
        teacher=_teacher(recipe, teacher, pixel_format(processor), labels.names), adapters=adapters,
    )  # fmt: skip


def _freeze(model: nn.Module, lowest: int | str) -> None:
    """Keeps the lowest parts of a model from learning, where something is left that learns."""
    parts = 1 + depth_of(model)
    if isinstance(lowest, int) and lowest > parts:
        raise RecipeError(
            f"training.freeze: must be at most {parts}, the embeddings and the {parts - 1} layers of the model, or "
            f"backbone, got {lowest}"
        )
    freeze_parameters(model, lowest)


def _detection_task(recipe: Recipe, source: Any, processes: int) -> DetectionTask:
    images = load_box_data(source, **recipe.data.reading_boxes())
    check_data_effects(recipe, images.drawn)
    check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share)
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    model, processor = build_detector(recipe, images.classes.names)
    most, queries = images.most_boxes(), model.config.num_queries
    if most > queries:
        raise RecipeError(
            f"model.fields.num_queries: must be at least {most}, the boxes of the fullest training image, got {queries}"
        )
    criterion = TrainingLoss(recipe.training, recipe.distillation, has_token=False, multi_label=False)
    order = build_order(recipe, images, processes)  # type: ignore[arg-type]
    return DetectionTask(recipe, model, processor, images, order, criterion)  # type: ignore[arg-type]


def _teacher(
    recipe: Recipe, given: nn.Module | Teacher | None, pixels: PixelFormat, labels: Sequence[str]
) -> Teacher | None:
    if recipe.distillation.teacher is None:
        return None
    if recipe.distillation.cache:
        check_cacheable(recipe)
    if isinstance(given, Teacher):
        return given
    if given is not None:
        return Teacher(given, pixels, bf16=teaches_in_bf16(recipe.distillation), name=type(given).__name__)
    return Teacher.load(recipe.distillation, pixels, labels)


__all__ = ["build_task"]
