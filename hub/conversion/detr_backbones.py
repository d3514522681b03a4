"""Backbone of a new detector from a classifier's folder: configuration, weights and normalisation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from ...configuration.configuration_vit import HubViTConfig
from ...modeling.modeling_detr import HubDetrForObjectDetection
from ...modeling.modeling_vit import HubViTModel
from ..checkpoints import CheckpointError, read_checkpoint
from .key_tables import KeyMismatchError
from .opening import is_convertible, open_checkpoint


@dataclass
class BackboneStart:
    """Initial backbone of a detector.

    Args:
        name: Path of the source.
        config: Configuration of the backbone, for `HubDetrConfig.backbone_config`.
        state: Tensors under the backbone's own names; tensors of a head may be among them.
        mean: Mean per channel of the pixels that the backbone was trained on, in [0, 1].
        std: Standard deviation per channel of these pixels, on the same scale.
    """

    name: str
    config: PreTrainedConfig
    state: dict[str, torch.Tensor]
    mean: list[float]
    std: list[float]


def backbone_from(path: Path, stride: int | None = None) -> BackboneStart:
    """Reads the backbone of a detector from a classifier's folder.

    Args:
        path: Folder of a ViT that `load` accepts, of a timm CNN (`config.json` has `architecture`) or of a model that
            transformers has a backbone class for.
        stride: Stride in pixels of the feature map to use, such as 16; None uses the last one. A ViT has only one.

    Raises:
        CheckpointError: The model cannot be a backbone.
        ValueError: The model has no feature map of that stride.
    """
    checkpoint = None if path.is_dir() and is_convertible(path) else read_checkpoint(path)
    if checkpoint is None:
        opened = open_checkpoint(path, task="backbone", verify=False)
        if not isinstance(opened.model.config, HubViTConfig):
            raise CheckpointError(f"{path} is no backbone: it holds a {type(opened.model).__name__}")
        processor = opened.image_processor
        state = dict(opened.model.state_dict())
        return BackboneStart(
            str(path), opened.model.config, state, list(processor.image_mean), list(processor.image_std)
        )
    if "architecture" in checkpoint.config:
        config, pixels = _timm_backbone(checkpoint.config, stride), checkpoint.config.get("pretrained_cfg") or {}
        state = {f"_backbone.{name}": tensor for name, tensor in checkpoint.state.items()}
    else:
        config, state = _transformers_backbone(checkpoint.config, checkpoint.state, stride, str(path))
        pixels = {name.removeprefix("image_"): value for name, value in (checkpoint.processor or {}).items()}
    mean = list(pixels.get("mean") or IMAGENET_DEFAULT_MEAN)
    return BackboneStart(str(path), config, state, mean, list(pixels.get("std") or IMAGENET_DEFAULT_STD))


def _timm_backbone(values: dict[str, Any], stride: int | None) -> PreTrainedConfig:
    name = values["architecture"]
    strides = timm.create_model(name, features_only=True).feature_info.reduction()
    index = len(strides) - 1 if stride is None else _last(strides, stride, name)
    return AutoConfig.for_model("timm_backbone", backbone=name, out_indices=[index])


def _transformers_backbone(
    values: dict[str, Any], state: dict[str, torch.Tensor], stride: int | None, name: str
) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    model_type = values.get("model_type")
    if model_type not in MODEL_FOR_BACKBONE_MAPPING_NAMES:
        raise CheckpointError(f"{name} holds a model of type {model_type!r}, which transformers has no backbone of")
    stages = len(values.get("depths") or ())
    if not stages:
        raise CheckpointError(f"{name}/config.json names no stages (`depths`)")
    # stage 1 has stride 4, and each further stage doubles it
    number = stages if stride is None else _last([2 ** (n + 1) for n in range(1, stages + 1)], stride, name) + 1
    config = AutoConfig.for_model(**{**values, "out_features": [f"stage{number}"], "out_indices": None})
    inner = {key.removeprefix(f"{model_type}."): tensor for key, tensor in state.items()}
    return config, inner


def _last(strides: list[int], stride: int, name: str) -> int:
    if stride not in strides:
        raise ValueError(f"{name} has feature maps of the strides {sorted(set(strides))}, got {stride}")
    return max(index for index, value in enumerate(strides) if value == stride)


def load_backbone_weights(model: HubDetrForObjectDetection, start: BackboneStart) -> None:
    """Loads backbone weights into a new detector, in place; weights of a head or of unused stages are ignored.

    Raises:
        KeyMismatchError: Tensors of the backbone are missing or of another shape; they are listed.
    """
    backbone = model.detr.backbone.model
    wanted, given = backbone.state_dict(), dict(start.state)
    if isinstance(backbone, HubViTModel):  # its pooler is not used here
        given = {name: tensor for name, tensor in given.items() if name in wanted}
    flat = {name.replace(".", "_"): name for name in given}  # timm's extractors hold stages.0 as stages_0
    found = {name: given.get(name, given.get(flat.get(name.replace(".", "_"), ""))) for name in wanted}
    missing = sorted(
        name for name, tensor in found.items() if tensor is None and not name.endswith("num_batches_tracked")
    )
    shapes = [f"{name} {tuple(t.shape)} for {tuple(wanted[name].shape)}" for name, t in found.items()
              if t is not None and t.shape != wanted[name].shape]  # fmt: skip
    if missing or shapes:
        raise KeyMismatchError(f"{start.name}: missing tensors: {missing}; of another shape: {shapes}")
    backbone.load_state_dict({name: tensor for name, tensor in found.items() if tensor is not None}, strict=False)


__all__ = ["BackboneStart", "backbone_from", "load_backbone_weights"]
