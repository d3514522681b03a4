"""Builder of a pretraining task from a recipe: reads the images, builds the backbone and the parts of its loss."""

from typing import Any

import torch
from datasets import IterableDataset

from ....data.image_processing import pixel_format
from ....data.image_soundness import check_readable
from ....data.samplers import TrainingOrder
from ....data.seeding import Stream, derived_seed
from ....data.streaming.streams import StreamOrder
from ....modeling.modeling_vit import HubViTModel
from ...recipe.effects import check_data_effects
from ...recipe.recipe import Recipe, RecipeError
from ..teaching import teaches_in_bf16
from ..train_batches import stream_order, table_order
from .feature_distillation import FeatureDistillation
from .feature_teacher import FeatureTeacher
from .images import load_unlabelled
from .learners import Learner
from .masked_images import MAE, SimMIM
from .model_source import build_backbone
from .probe import Probe
from .self_distillation import SelfDistillation
from .task import PretrainingTask

_NEEDS_QUALITY = "needs a measure of quality, which images without labels do not give"


def build_pretraining(recipe: Recipe, source: Any, processes: int = 1, teacher: Any = None) -> PretrainingTask:
    """Reads the images and builds the backbone named by a recipe, with the parts of its loss.

    Args:
        recipe: Recipe of the run.
        source: Recipe's data source, or a `Dataset` or `DatasetDict` in memory.
        processes: Number of training processes.
        teacher: Vision model in memory that replaces the recipe's teacher and takes the student's pixels, or None.

    Raises:
        RecipeError: A field does not suit the model or the images.
        DataError: The images cannot be used.
    """
    if recipe.training.publish == "best" and recipe.pretraining.probe is None:
        raise RecipeError(f"training.publish: best {_NEEDS_QUALITY} (pretraining.probe does); use last, got best")
    if recipe.training.early_stop is not None and recipe.pretraining.probe is None:
        raise RecipeError(
            f"training.early_stop: {_NEEDS_QUALITY} (pretraining.probe does), got {recipe.training.early_stop}"
        )
    images = load_unlabelled(source, recipe.data)
    streamed = isinstance(images.train, IterableDataset)
    if not streamed:
        check_data_effects(recipe, images.drawn)
        check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share)
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    settings = recipe.pretraining
    masks = settings.method == "simmim" or (settings.method == "dino" and settings.masked_weight > 0)
    vit, processor = build_backbone(recipe, masks)
    taught = build_teacher(recipe, teacher, vit, processor)
    learner = build_learner(recipe, vit, taught)
    order: TrainingOrder | StreamOrder = (
        stream_order(recipe, processes) if streamed else table_order(recipe, images.train, processes)
    )
    return PretrainingTask(recipe, learner, processor, images, order, taught, Probe.load(recipe.pretraining))


def build_learner(recipe: Recipe, vit: HubViTModel, teacher: FeatureTeacher | None = None) -> Learner:
    """Builds the parts of a recipe's loss around its backbone.

    Args:
        recipe: Recipe of the run.
        vit: Backbone of the recipe.
        teacher: Teacher whose features are learned, if the method is "features".
    """
    settings = recipe.pretraining
    if settings.method == "features":
        assert teacher is not None
        return FeatureDistillation(vit, settings, teacher.width)
    if settings.method == "dino":
        if recipe.augmentation.crop != "random_resized":
            raise RecipeError(
                "augmentation.crop: must be random_resized for pretraining.method dino, which compares different parts "
                f"of an image, got {recipe.augmentation.crop}"
            )
        return SelfDistillation(vit, settings)
    return MAE(vit, settings) if settings.method == "mae" else SimMIM(vit, settings)


def build_teacher(recipe: Recipe, given: Any, vit: HubViTModel, processor: Any) -> FeatureTeacher | None:
    """Loads the recipe's teacher, or wraps a model in its place; None for a method without a teacher.

    Raises:
        RecipeError: The method needs a teacher and there is none, or the reverse, or it has no features of patches.
        CheckpointError: The teacher cannot be loaded.
    """
    settings, method = recipe.distillation, recipe.pretraining.method
    if method != "features":
        if settings.teacher is not None:
            raise RecipeError(
                f"distillation.teacher: has an effect on pretraining.method features alone, got {settings.teacher} "
                f"with {method}"
            )
        return None
    if settings.teacher is None:
        raise RecipeError("distillation.teacher: is missing; pretraining.method features learns from a vision model")
    pixels, grid = pixel_format(processor), vit.config.grid_size
    if given is None:
        return FeatureTeacher.load(settings, pixels, grid)
    return FeatureTeacher(given, pixels, pixels, grid, teaches_in_bf16(settings), type(given).__name__)


__all__ = ["build_learner", "build_pretraining", "build_teacher"]
