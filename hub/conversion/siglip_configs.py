"""Conversion of configurations between ours and transformers' vision tower of SigLIP (https://arxiv.org/abs/2303.15343)."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ...configuration.config_checks import as_pair
from ...configuration.configuration_vit import HubViTConfig

FAMILY = "siglip_vision_model"
WITH_TEXT = "siglip"  # model type of the two towers, and of the classifiers, which keep the text's configuration
_NOT_VISION = ("text_model.", "logit_scale", "logit_bias")
_SAME = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "num_channels",
    "image_size",
    "patch_size",
)
_ALWAYS: dict[str, Any] = {
    "use_cls_token": False,
    "num_register_tokens": 0,
    "position_embedding_type": "learned",
    "use_swiglu_ffn": False,
    "layer_scale_init_value": None,
    "qkv_bias": True,
    "qk_norm": False,
    "patch_bias": True,
    "embedding_norm": False,
    "norm_after_pool": False,
}


def vision_tower(
    config: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]:
    """Content of `config.json` and tensors of the vision tower, or of the classifier, of a SigLIP with a text tower.

    Returns:
        Configuration of the type `siglip_vision_model`, its tensors, and the names of the tensors that were left out:
        those of the text, and in a classifier those of the pooling, which it does not use.
    """
    architecture = (config.get("architectures") or [""])[0]
    classifies = architecture.endswith("ForImageClassification")
    fields = {**(config.get("vision_config") or {}), "model_type": FAMILY}
    fields["architectures"] = [architecture if classifies else "SiglipVisionModel"]
    unused: tuple[str, ...] = _NOT_VISION
    if classifies:
        unused = (*_NOT_VISION, "vision_model.head.")
        fields |= {"vision_use_head": False}
        fields |= {name: config[name] for name in ("id2label", "label2id", "problem_type") if name in config}
    left_out = sorted(name for name in state if name.startswith(unused))
    return fields, {name: tensor for name, tensor in state.items() if name not in left_out}, left_out


def in_whole_patches(image_size: Any, patch_size: Any) -> int | tuple[int, int]:
    """Image size without the last rows and columns that are no whole patch, which convolutions do not see.

    Example:
        >>> in_whole_patches(384, 14)
        378
    """
    image_hw, patch_hw = as_pair("image_size", image_size), as_pair("patch_size", patch_size)
    height, width = (side // patch * patch for side, patch in zip(image_hw, patch_hw, strict=True))
    return height if height == width else (height, width)


def config_from_siglip(native: PreTrainedConfig) -> HubViTConfig:
    """Our configuration of a SigLIP vision tower; without its pooling head the mean of the tokens is pooled."""
    given: Any = native
    fields = {name: getattr(given, name) for name in _SAME} | _ALWAYS
    fields |= {
        "image_size": in_whole_patches(given.image_size, given.patch_size),
        "attention_probs_dropout_prob": given.attention_dropout,
        "pool": "map" if given.vision_use_head else "mean",
        "position_embedding_resampling": "bicubic",
        "id2label": dict(given.id2label),
        "problem_type": given.problem_type,
    }
    return HubViTConfig(**fields)


def config_to_siglip(config: HubViTConfig) -> PreTrainedConfig:
    """Configuration of transformers' SigLIP vision tower for our model, see `missing_in_siglip`."""
    fields = {name: getattr(config, name) for name in _SAME}
    fields |= {"attention_dropout": config.attention_probs_dropout_prob, "vision_use_head": config.pool == "map"}
    fields |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    return AutoConfig.for_model(FAMILY, **fields)


def missing_in_siglip(config: HubViTConfig, task: str) -> list[str]:
    """Features of our model that transformers' SigLIP vision tower lacks, each as text."""
    expected: dict[str, Any] = _ALWAYS | {"add_pooling_layer": False, "hidden_dropout_prob": 0.0, "pool": "map"}
    found = [
        f"{name}={getattr(config, name)!r} (only {value!r})"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if config.image_hw[0] != config.image_hw[1] or config.patch_hw[0] != config.patch_hw[1]:
        found.append(f"image_size={config.image_size!r} with patch_size={config.patch_size!r} (needs squares)")
    if task != "backbone":
        found.append(f"a head for {task}: the vision tower has the encoder alone")
    return found


__all__ = [
    "FAMILY",
    "WITH_TEXT",
    "config_from_siglip",
    "config_to_siglip",
    "in_whole_patches",
    "missing_in_siglip",
    "vision_tower",
]
