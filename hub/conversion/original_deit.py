"""Configuration of the DeiT and DeiT-III weights of their authors: `.pth` files of tensors without a configuration."""

from typing import Any

import torch

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_vit import HubViTConfig
from .timm_configs import imagenet_labels

HEAD_WIDTH = 64  # the same in every published DeiT; the file does not state it


def config_from_original(state: dict[str, torch.Tensor]) -> HubViTConfig:
    """Our configuration of the authors' weights, derived from the names and shapes of the tensors.

    Raises:
        ValueError: Tensors that every DeiT has are missing; they are listed.
    """
    required = ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "cls_token", "head.weight")
    if missing := [name for name in required if name not in state]:
        raise ValueError(f"these are not the weights of a DeiT: {', '.join(missing)} missing")
    width, channels, patch_height, patch_width = state["patch_embed.proj.weight"].shape
    distilled = "dist_token" in state
    prefix = 1 + int(distilled)
    positions = state["pos_embed"].shape[1]
    with_prefix = round((positions - prefix) ** 0.5) ** 2 == positions - prefix
    side = round((positions - (prefix if with_prefix else 0)) ** 0.5)
    classes = state["head.weight"].shape[0]
    names = {1000: "imagenet-1k", 21841: "imagenet-22k"}
    fields: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "intermediate_size": state["blocks.0.mlp.fc1.weight"].shape[0],
        "image_size": side * patch_height if patch_height == patch_width else (side * patch_height, side * patch_width),
        "patch_size": patch_height if patch_height == patch_width else (patch_height, patch_width),
        "num_channels": channels,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "layer_scale_init_value": 1e-4 if "blocks.0.gamma_1" in state or "blocks.0.ls1.gamma" in state else None,
        "position_embedding_prefix": with_prefix,
        "position_embedding_resampling": "bicubic",
        "id2label": imagenet_labels(names[classes], classes) if classes in names else None,
        "num_labels": classes,
    }
    if fields["id2label"] is None:
        del fields["id2label"]
    return HubDeiTConfig(**fields) if distilled else HubViTConfig(**fields)


__all__ = ["config_from_original"]
