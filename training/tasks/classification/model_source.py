"""Classifier named by a recipe: a preset from scratch, or any image classifier that can be loaded."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ....configuration.configuration_deit import HubDeiTConfig
from ....configuration.configuration_vit import HubViTConfig
from ....data.image_processing import build_image_processor
from ....hub.checkpoints import locate, read_config
from ....hub.conversion.opening import is_convertible, open_checkpoint
from ....modeling.modeling_deit import HubDeiTForImageClassification
from ....modeling.modeling_vit import HubViTForImageClassification
from ...recipe.model_names import CLASSIFIER_FROM_SCRATCH, SIZES, misspelt_from_scratch
from ...recipe.recipe import Recipe, RecipeError
from ...recipe.sections import EvaluationSettings
from .third_party_models import third_party_classifier

SINGLE_LABEL = "single_label_classification"


def build_classifier(recipe: Recipe, labels: Sequence[str], multi_label: bool = False) -> tuple[PreTrainedModel, Any]:
    """Builds the classifier of a recipe, in float32 and with the given labels, and its image processor.

    The weights of a model from scratch are drawn from torch's generator. A checkpoint keeps the weights of labels that
    it has under the same name; those of new labels are initialized anew, with a warning. Third-party models that are
    not convertible to this package (such as a CNN of transformers or timm) are trained unchanged.

    Raises:
        RecipeError: A field does not suit the model.
        CheckpointError: The source does not exist or is not a classifier.
    """
    settings, evaluation = recipe.model, recipe.evaluation
    fields: dict[str, Any] = {"problem_type": "multi_label_classification" if multi_label else SINGLE_LABEL}
    fields |= settings.fields
    sizes: dict[str, Any] = {"image_size": settings.image_size, "patch_size": settings.patch_size}
    if match := CLASSIFIER_FROM_SCRATCH.fullmatch(settings.source):
        if match["family"].lower() == "deit":
            fields = distillation_fields(recipe) | fields
        return _from_scratch(match, evaluation, labels, fields, sizes)
    if (hint := misspelt_from_scratch(settings.source)) and not Path(settings.source).expanduser().exists():
        raise RecipeError(f"model.source: there is no model {settings.source!r}; {hint}")
    path = locate(settings.source, settings.revision, field="model.source")
    if path.is_dir() and not (settings.convert and is_convertible(path)):
        return third_party_classifier(path, settings, evaluation, labels, fields)
    if _is_deit(path):
        fields = distillation_fields(recipe) | fields
    opened = open_checkpoint(path, task="image-classification", labels=labels, dtype=torch.float32, **sizes, **fields)
    config: Any = opened.model.config
    processor = opened.image_processor
    return opened.model, build_image_processor(
        config.image_hw,
        crop_ratio=evaluation.crop_ratio,
        mean=processor.image_mean,
        std=processor.image_std,
        interpolation=evaluation.interpolation,
    )


def distillation_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a DeiT's configuration that describe a recipe's distillation."""
    settings = recipe.distillation
    if settings.teacher is None:
        return {"distillation": "none"}
    return {
        "distillation": settings.kind,
        "distillation_temperature": settings.temperature,
        "distillation_alpha": settings.alpha,
        "distillation_reduction": settings.reduction,
    }


def _is_deit(path: Path) -> bool:
    if not (path / "config.json").is_file():
        return False
    config = read_config(path)
    return config.get("model_type") in (HubDeiTConfig.model_type, "deit") or "distilled" in config.get(
        "architecture", ""
    )


def _from_scratch(
    match: re.Match[str],
    evaluation: EvaluationSettings,
    labels: Sequence[str],
    fields: dict[str, Any],
    sizes: dict[str, Any],
) -> tuple[PreTrainedModel, Any]:
    config_class = HubDeiTConfig if match["family"].lower() == "deit" else HubViTConfig
    model_class = HubDeiTForImageClassification if config_class is HubDeiTConfig else HubViTForImageClassification
    patch = {"patch_size": int(match["patch"])} if match["patch"] else {}
    given = {name: size for name, size in sizes.items() if size is not None}
    values = {**patch, **given, **fields, "id2label": dict(enumerate(labels))}
    try:
        config = config_class.preset(SIZES[match["size"].lower()], **values)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error
    processor = build_image_processor(
        config.image_hw, crop_ratio=evaluation.crop_ratio, interpolation=evaluation.interpolation
    )
    return model_class(config), processor


__all__ = ["build_classifier", "distillation_fields"]
