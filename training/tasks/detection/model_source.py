"""Detector named by a recipe: a DETR on a pretrained backbone, or any detector that can be loaded."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ....configuration.configuration_detr import HubDetrConfig
from ....data.boxes.dataset import box_pixels, build_box_processor
from ....hub.checkpoints import locate
from ....hub.conversion.detr_backbones import backbone_from, load_backbone_weights
from ....hub.conversion.opening import is_convertible, open_checkpoint
from ....modeling.modeling_detr import HubDetrForObjectDetection
from ...recipe.model_names import DETECTOR_FROM_SCRATCH
from ...recipe.recipe import Recipe, RecipeError
from .third_party_models import Start, is_detector_of_transformers, third_party_detector

_LONGEST = 1333 / 800  # DETR's ratio of the longer to the shorter side


def build_detector(recipe: Recipe, labels: Sequence[str]) -> tuple[PreTrainedModel, Any, Start | None]:
    """Builds the detector of a recipe, in float32 and with the given classes, and its image processor.

    "detr" is a new model, drawn from torch's generator, on the backbone in `model.backbone`, or without one on a
    randomly initialized ResNet-50. Any other source is a checkpoint with a detector: classes that it has under the same
    name keep their weights.

    Raises:
        RecipeError: A field does not suit the model.
        CheckpointError: The source does not exist or is not a detector.
    """
    settings = recipe.model
    if settings.patch_size is not None:
        raise RecipeError(f"model.patch_size: a detector has none, got {settings.patch_size}")
    if settings.source == DETECTOR_FROM_SCRATCH:
        _check_side(settings.image_size)
        return *_from_scratch(recipe, labels), None
    if settings.backbone is not None:
        raise RecipeError(f"model.backbone: {settings.source} has one already; model.source detr takes another")
    path = locate(settings.source, settings.revision, field="model.source")
    if is_detector_of_transformers(path) and not (settings.convert and is_convertible(path)):
        return third_party_detector(path, labels, settings.fields, settings.image_size)
    _check_side(settings.image_size)
    opened = open_checkpoint(path, task="object-detection", labels=list(labels), dtype=torch.float32, **settings.fields)
    pixels = box_pixels(opened.image_processor)
    shortest = settings.image_size or pixels.shortest
    assert isinstance(shortest, int)
    longest = pixels.longest if settings.image_size is None else round(shortest * pixels.longest / pixels.shortest)
    focal = bool(opened.model.config.focal_loss)
    return opened.model, build_box_processor(shortest, longest, pixels.mean, pixels.std, focal), None


def _check_side(image_size: int | tuple[int, int] | None) -> None:
    if image_size is not None and not isinstance(image_size, int):
        raise RecipeError(f"model.image_size: of a detector the shorter side's pixels, one number, got {image_size}")


def _from_scratch(recipe: Recipe, labels: Sequence[str]) -> tuple[PreTrainedModel, Any]:
    settings = recipe.model
    values: dict[str, Any] = {"id2label": dict(enumerate(labels)), **settings.fields}
    start = None
    if settings.backbone is not None:
        place = locate(settings.backbone, settings.revision, field="model.backbone")
        start = backbone_from(place, settings.backbone_stride)
        values["backbone_config"] = start.config
    try:
        model = HubDetrForObjectDetection(HubDetrConfig(**values))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    shortest = settings.image_size or 800
    assert isinstance(shortest, int)
    pixels: dict[str, Any] = {}
    if start is not None:
        load_backbone_weights(model, start)
        pixels = {"mean": start.mean, "std": start.std}
    longest = round(shortest * _LONGEST)
    return model, build_box_processor(shortest, longest, focal=model.config.focal_loss, **pixels)


__all__ = ["build_detector"]
