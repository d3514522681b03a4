"""Builder of a pretraining task from a recipe: reads the images, builds the backbone and the parts of its loss."""

from typing import Any

import torch
from datasets import IterableDataset

from ....data.image_soundness import check_readable
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed
from ....data.streaming.streams import StreamOrder
from ...recipe.effects import check_data_effects
from ...recipe.recipe import Recipe, RecipeError
from ..train_batches import stream_order, table_order
from .images import load_unlabelled
from .learners import Learner
from .masked_images import MAE, SimMIM
from .model_source import build_backbone
from .task import PretrainingTask

_NEEDS_QUALITY = "needs a measure of quality, which images without labels do not give"


def build_pretraining(recipe: Recipe, source: Any, processes: int = 1) -> PretrainingTask:
    """Reads the images and builds the backbone named by a recipe, with the parts of its loss.

    Args:
        recipe: Recipe of the run.
        source: Recipe's data source, or a `Dataset` or `DatasetDict` in memory.
        processes: Number of training processes.

    Raises:
        RecipeError: A field does not suit the model or the images.
        DataError: The images cannot be used.
    """
    if recipe.training.publish == "best":
        raise RecipeError(f"training.publish: best {_NEEDS_QUALITY}; use last, got best")
    if recipe.training.early_stop is not None:
        raise RecipeError(f"training.early_stop: {_NEEDS_QUALITY}, got {recipe.training.early_stop}")
    images = load_unlabelled(source, recipe.data)
    streamed = isinstance(images.train, IterableDataset)
    if not streamed:
        check_data_effects(recipe, images.drawn)
        check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share)
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    learner, processor = build_learner(recipe)
    order: TrainingOrder | StreamOrder = (
        stream_order(recipe, processes) if streamed else table_order(recipe, images.train, processes)
    )
    return PretrainingTask(recipe, learner, processor, images, order)


def build_learner(recipe: Recipe) -> tuple[Learner, Any]:
    """Builds the backbone of a recipe with the parts of its loss, and its image processor."""
    settings = recipe.pretraining
    vit, processor = build_backbone(recipe, masks=settings.method == "simmim")
    return (MAE(vit, settings) if settings.method == "mae" else SimMIM(vit, settings)), processor


__all__ = ["build_learner", "build_pretraining"]
