"""Conversion of configurations between ours and transformers' vision tower of SigLIP (https://arxiv.org/abs/2303.15343)."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ...configuration.configuration_vit import HubViTConfig

FAMILY = "siglip_vision_model"
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


def config_from_siglip(native: PreTrainedConfig) -> HubViTConfig:
    """Our configuration of a SigLIP vision tower; without its pooling head the mean of the tokens is pooled."""
    given: Any = native
    fields = {name: getattr(given, name) for name in _SAME} | _ALWAYS
    fields |= {
        "attention_probs_dropout_prob": given.attention_dropout,
        "pool": "map" if given.vision_use_head else "mean",
        "position_embedding_resampling": "bicubic",
        "id2label": dict(given.id2label),
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


__all__ = ["FAMILY", "config_from_siglip", "config_to_siglip", "missing_in_siglip"]
