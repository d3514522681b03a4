"""Backbone named by a recipe: a ViT from scratch, or one to pretrain further."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....configuration.configuration_deit import HubDeiTConfig
from ....configuration.configuration_vit import HubViTConfig
from ....data.image_processing import build_image_processor
from ....hub.checkpoints import CheckpointError, locate
from ....hub.conversion.opening import is_convertible, open_checkpoint
from ....modeling.modeling_deit import HubDeiTModel
from ....modeling.modeling_vit import HubViTModel, freeze_mask_token
from ...recipe.model_names import CLASSIFIER_FROM_SCRATCH, SIZES, misspelt_from_scratch
from ...recipe.recipe import Recipe, RecipeError


def build_backbone(recipe: Recipe, masks: bool) -> tuple[HubViTModel, Any]:
    """Builds the backbone of a recipe, in fp32, and its image processor.

    The weights of a model from scratch are drawn from torch's generator. Of a checkpoint with a head the backbone is
    taken.

    Args:
        recipe: Recipe of the run.
        masks: Whether the backbone needs a mask token; a checkpoint without one gets it, as zeros.

    Raises:
        RecipeError: A field does not suit the model, or the model is no ViT.
        CheckpointError: The source does not exist or cannot be read.
    """
    settings, evaluation = recipe.model, recipe.evaluation
    fields: dict[str, Any] = {"add_pooling_layer": False, **settings.fields}
    sizes: dict[str, Any] = {"image_size": settings.image_size, "patch_size": settings.patch_size}
    if match := CLASSIFIER_FROM_SCRATCH.fullmatch(settings.source):
        config_class = HubDeiTConfig if match["family"].lower() == "deit" else HubViTConfig
        patch = {"patch_size": int(match["patch"])} if match["patch"] else {}
        given = {name: size for name, size in sizes.items() if size is not None}
        try:
            config = config_class.preset(SIZES[match["size"].lower()], **{**patch, **given, **fields})
        except ValueError as error:
            raise RecipeError(f"model: {error}") from error
        model = HubDeiTModel(config) if isinstance(config, HubDeiTConfig) else HubViTModel(config)
        processor = build_image_processor(
            config.image_hw, crop_ratio=evaluation.crop_ratio, interpolation=evaluation.interpolation
        )
    else:
        model, processor = _from_checkpoint(recipe, sizes, fields)
    if masks:
        _give_mask_token(model)
    else:
        freeze_mask_token(model)
    return model, processor


def _from_checkpoint(recipe: Recipe, sizes: dict[str, Any], fields: dict[str, Any]) -> tuple[HubViTModel, Any]:
    source, evaluation = recipe.model.source, recipe.evaluation
    if (hint := misspelt_from_scratch(source)) and not Path(source).expanduser().exists():
        raise RecipeError(f"model.source: there is no model {source!r}; {hint}")
    path = locate(source, recipe.model.revision, field="model.source")
    if path.is_dir() and not is_convertible(path):
        raise RecipeError(f"model.source: must be a ViT, which can be pretrained, got {source!r}")
    try:
        opened = open_checkpoint(path, task="backbone", dtype=torch.float32, **sizes, **fields)
    except CheckpointError:
        raise
    except ValueError as error:  # a size or a field that does not suit the model
        raise RecipeError(f"model: {error}") from error
    if not isinstance(opened.model, HubViTModel):
        raise RecipeError(
            f"model.source: must be a ViT, which can be pretrained, got {source!r}, a {type(opened.model).__name__}"
        )
    processor = opened.image_processor
    return opened.model, build_image_processor(
        opened.model.config.image_hw, crop_ratio=evaluation.crop_ratio, mean=processor.image_mean,
        std=processor.image_std, interpolation=evaluation.interpolation,
    )  # fmt: skip


def _give_mask_token(model: HubViTModel) -> None:
    """Adds the mask token that a backbone lacks."""
    if model.embeddings.mask_token is None:
        model.config.use_mask_token = True
        model.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, model.config.hidden_size))


__all__ = ["build_backbone"]
