"""The model that a recipe names: a preset from scratch, or any image classifier that can be loaded."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_vit import HubViTConfig
from ..data.image_processing import build_image_processor
from ..hub.conversion import open_checkpoint
from ..modeling.modeling_deit import HubDeiTForImageClassification
from ..modeling.modeling_vit import HubViTForImageClassification
from .recipe import EvaluationSettings, ModelSettings

_PRESET = re.compile(r"(?P<family>vit|deit)-(?P<size>ti|s|b|l|h)(?:/(?P<patch>\d+))?", re.IGNORECASE)
_SIZES = {"ti": "Ti", "s": "S", "b": "B", "l": "L", "h": "H"}


def is_from_scratch(source: str) -> bool:
    """Whether a source names a preset such as "deit-s" or "vit-b/32"."""
    return _PRESET.fullmatch(source) is not None


def build_classifier(
    settings: ModelSettings, evaluation: EvaluationSettings, labels: Sequence[str], multi_label: bool = False
) -> tuple[PreTrainedModel, Any]:
    """The classifier of a recipe, in fp32, with these labels, and its image processor.

    A model from scratch draws its weights from torch's generator. A checkpoint keeps the weights of labels that it
    has under the same name; new ones start anew, with a warning.
    """
    problem = "multi_label_classification" if multi_label else "single_label_classification"
    fields = dict(settings.fields)
    sizes: dict[str, Any] = {"image_size": settings.image_size, "patch_size": settings.patch_size}
    if match := _PRESET.fullmatch(settings.source):
        return _from_scratch(match, evaluation, labels, {**fields, "problem_type": problem}, sizes)
    opened = open_checkpoint(
        settings.source,
        task="image-classification",
        labels=labels,
        dtype=torch.float32,
        revision=settings.revision,
        problem_type=problem,
        **sizes,
        **fields,
    )
    config: Any = opened.model.config
    processor = opened.image_processor
    return opened.model, build_image_processor(
        config.image_hw,
        crop_ratio=evaluation.crop_ratio,
        mean=processor.image_mean,
        std=processor.image_std,
        interpolation=evaluation.interpolation,
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
    config = config_class.preset(
        _SIZES[match["size"].lower()], **{**patch, **given, **fields, "id2label": dict(enumerate(labels))}
    )
    processor = build_image_processor(
        config.image_hw, crop_ratio=evaluation.crop_ratio, interpolation=evaluation.interpolation
    )
    return model_class(config), processor


__all__ = ["build_classifier", "is_from_scratch"]
