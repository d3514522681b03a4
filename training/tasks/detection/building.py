"""Builder of a detection task from a recipe: reads the images with boxes and builds the detector."""

from typing import Any

import torch

from ....data.boxes.augmentation_settings import BoxAugmentation
from ....data.boxes.loading import load_box_data
from ....data.image_soundness import check_readable
from ....data.seeding import Stream, derived_seed
from ...recipe.effects import check_data_effects
from ...recipe.presets import preset, preset_names
from ...recipe.recipe import Recipe, RecipeError
from ..train_batches import table_order
from .metrics import require_evaluator
from .model_source import build_detector
from .task import DetectionTask
from .third_party_losses import loss_of, queries_of
from .third_party_models import fixed_size


def build_detection(recipe: Recipe, source: Any, processes: int = 1) -> DetectionTask:
    """Reads the data and builds the detector named by a recipe.

    Args:
        recipe: Recipe of the run.
        source: Recipe's data source, or a data set in memory.
        processes: Number of training processes.

    Raises:
        DataError: The data cannot be used.
        EvaluatorMissingError: No package that computes COCO's figures is installed.
        RecipeError: A setting does not fit the data or the model.
    """
    require_evaluator()
    images = load_box_data(source, **recipe.data.reading_boxes())
    check_data_effects(recipe, images.drawn)
    check_readable(images.splits, recipe.data.on_bad_image, recipe.data.max_bad_share)
    torch.manual_seed(derived_seed(recipe.seed, Stream.WEIGHTS))
    model, processor, start = build_detector(recipe, images.classes.names)
    _check_sizes(recipe, fixed_size(processor))
    most, queries = images.most_boxes(), queries_of(model.config)
    if most > queries:
        field = "num_queries" if hasattr(model.config, "num_queries") else "num_detection_tokens"
        raise RecipeError(
            f"model.fields.{field}: must be at least {most}, the boxes of the fullest training image, got {queries}"
        )
    criterion = loss_of(model)
    assert criterion is not None  # models without a loss were refused
    ratios = None
    if recipe.data.group_shapes:
        ratios = [width / height for width, height in zip(images.train["width"], images.train["height"], strict=True)]
    order = table_order(recipe, images.train, processes, ratios)
    return DetectionTask(recipe, model, processor, images, order, criterion, start)


def _check_sizes(recipe: Recipe, image_hw: tuple[int, int] | None) -> None:
    """Rejects settings of sizes that were set and have no effect on a model with one size of images, or without one."""
    usual, boxes = BoxAugmentation(), recipe.boxes
    begun_as = preset(recipe.preset).boxes if recipe.preset in preset_names() else usual
    unused: tuple[str, ...]
    if image_hw is None:
        unused, why = ("batch_scale",), "the model's images keep their shapes; boxes.sides draws their sizes"
    else:
        unused = ("sides", "longest")
        why = f"the model's images are all {image_hw[0]} x {image_hw[1]} pixels; boxes.batch_scale varies that"
    for name in unused:
        value = getattr(boxes, name)
        if value not in (getattr(usual, name), getattr(begun_as, name)):
            raise RecipeError(f"boxes.{name} {value!r} has no effect: {why}")


__all__ = ["build_detection"]
