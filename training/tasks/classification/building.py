"""Builder of a classification task from a recipe: reads the images, builds the classifier, loads the teacher."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import IterableDataset
from torch import nn

from ....data.checking.leakage import check_leakage
from ....data.columns import LABEL
from ....data.image_processing import PixelFormat, pixel_format
from ....data.image_soundness import check_readable
from ....data.labelled.labels import label_counts
from ....data.labelled.tables import load_image_data
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed
from ....data.streaming.streams import StreamOrder
from ....data.streaming.tables import load_streamed_data
from ...optim.lora import Adapters
from ...optim.parameter_groups import depth_of, freeze_parameters
from ...recipe.effects import check_data_effects
from ...recipe.recipe import Recipe, RecipeError
from ..teaching import teaches_in_bf16
from ..train_batches import stream_order, table_order
from .imbalance import ClassBalance
from .losses import TrainingLoss
from .model_source import build_classifier
from .task import ClassificationTask
from .teacher_cache import TeacherAnswers, check_cacheable
from .teachers import Teacher


def build_classification(
    recipe: Recipe, source: Any, processes: int = 1, teacher: nn.Module | Teacher | None = None
) -> ClassificationTask:
    """Reads the data and builds the model named by a recipe.

    Args:
        recipe: Recipe of the run.
        source: Recipe's data source, or a `Dataset` or `DatasetDict` in memory.
        processes: Number of training processes.
        teacher: Module or `Teacher` that replaces the recipe's teacher; a module maps the student's pixels to logits in
            the order of the student's labels.
    """
    if recipe.data.streaming:
        images = load_streamed_data(source, **recipe.data.streamed())
    else:
        images = load_image_data(source, **recipe.data.reading())
        check_data_effects(recipe, images.drawn)
        prints: dict[str, Any] = {}
        check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share, prints)
        check_leakage(images, prints, recipe.data.on_leakage)
    labels, streamed = images.labels, isinstance(images.train, IterableDataset)
    counts = None if streamed else label_counts(images.train, LABEL, labels).tolist()
    balance = ClassBalance(recipe, labels.names, counts, None if streamed else len(images.train), labels.multi_label)
    balance.warn()
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    model, processor = build_classifier(recipe, labels.names, labels.multi_label)
    if recipe.training.freeze:
        _freeze(model, recipe.training.freeze)
    adapters = Adapters(model, recipe.lora) if recipe.lora.rank is not None else None
    if streamed:
        order: TrainingOrder | StreamOrder = stream_order(recipe, processes)
    else:
        each_class = list(images.train[LABEL]) if recipe.data.sampler == "balanced" else None
        order = table_order(recipe, images.train, processes, labels=each_class)
    has_token = getattr(model, "distillation_classifier", None) is not None
    criterion = TrainingLoss(
        recipe.training, recipe.distillation, has_token, labels.multi_label, balance.weights, balance.prior
    )
    teaching = _teaching(recipe, teacher, pixel_format(processor), labels.names)
    return ClassificationTask(recipe, model, processor, images, order, criterion, balance, teaching, adapters)


def _freeze(model: nn.Module, lowest: int | str) -> None:
    """Freezes the lowest parts of a model; rejects a number above that of embeddings and layers."""
    parts = 1 + depth_of(model)
    if isinstance(lowest, int) and lowest > parts:
        raise RecipeError(
            f"training.freeze: must be at most {parts}, the embeddings and the {parts - 1} layers of the model, or "
            f"backbone, got {lowest}"
        )
    freeze_parameters(model, lowest)


def _teaching(
    recipe: Recipe, given: nn.Module | Teacher | None, pixels: PixelFormat, labels: Sequence[str]
) -> TeacherAnswers | None:
    """Makes the answers of the recipe's teacher, or of a module in its place; None if there is no teacher."""
    settings = recipe.distillation
    if settings.teacher is None:
        return None
    if settings.cache:
        check_cacheable(recipe)
    if given is None:
        teacher = Teacher.load(settings, pixels, labels)
    elif isinstance(given, Teacher):
        teacher = given
    else:
        teacher = Teacher(given, pixels, bf16=teaches_in_bf16(settings), name=type(given).__name__)
    return TeacherAnswers(teacher, settings.cache)


__all__ = ["build_classification"]
