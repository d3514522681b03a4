"""Conversion of configurations between ours and the DINOv3 (arXiv 2508.10104) of transformers and of timm (`Eva`)."""

import math
from typing import Any

from timm.layers import Mlp, RotaryEmbeddingDinoV3, SwiGLU
from timm.models.eva import Eva, EvaBlock
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from ...configuration.configuration_vit import HubViTConfig

FAMILY = "dinov3_vit"
# Our name, and that of transformers' configuration.
_SAME = (
    ("hidden_size", "hidden_size"),
    ("num_hidden_layers", "num_hidden_layers"),
    ("num_attention_heads", "num_attention_heads"),
    ("intermediate_size", "intermediate_size"),
    ("hidden_act", "hidden_act"),
    ("attention_probs_dropout_prob", "attention_dropout"),
    ("initializer_range", "initializer_range"),
    ("layer_norm_eps", "layer_norm_eps"),
    ("num_channels", "num_channels"),
    ("image_size", "image_size"),
    ("patch_size", "patch_size"),
    ("num_register_tokens", "num_register_tokens"),
    ("use_swiglu_ffn", "use_gated_mlp"),
    ("layer_scale_init_value", "layerscale_value"),
    ("drop_path_rate", "drop_path_rate"),
    ("rotary_theta", "rope_theta"),
    ("rotary_shift", "pos_embed_shift"),
    ("rotary_jitter", "pos_embed_jitter"),
    ("rotary_rescale", "pos_embed_rescale"),
)
# Entry points of timm by the bias of queries and values: (width, depth) of each. Their arguments set all other sizes.
_ENTRY_POINTS: dict[bool, dict[str, tuple[int, int]]] = {
    False: {
        "vit_small_patch16_dinov3": (384, 12),
        "vit_small_plus_patch16_dinov3": (384, 12),
        "vit_base_patch16_dinov3": (768, 12),
        "vit_large_patch16_dinov3": (1024, 24),
        "vit_huge_plus_patch16_dinov3": (1280, 32),
        "vit_7b_patch16_dinov3": (4096, 40),
    },
    True: {
        "vit_tiny_patch16_dinov3_qkvb": (192, 12),
        "vit_small_patch16_dinov3_qkvb": (384, 12),
        "vit_small_plus_patch16_dinov3_qkvb": (384, 12),
        "vit_base_patch16_dinov3_qkvb": (768, 12),
        "vit_large_patch16_dinov3_qkvb": (1024, 24),
        "vit_huge_plus_patch16_dinov3_qkvb": (1280, 32),
    },
}
_GATED = ("plus", "7b")  # in the names of entry points with a gated MLP
# What every DINOv3 has.
_ALWAYS: dict[str, Any] = {
    "position_embedding_type": "rotary",
    "use_cls_token": True,
    "patch_bias": True,
    "embedding_norm": False,
    "norm_after_pool": False,
    "qk_norm": False,
}


def config_from_dinov3(native: PreTrainedConfig) -> tuple[HubViTConfig | None, list[str]]:
    """Our configuration of transformers' DINOv3.

    Args:
        native: Configuration of the type `dinov3_vit`.

    Returns:
        Our configuration, and the features that our models lack; with any of those, the configuration is None.
    """
    given: Any = native
    missing = [
        f"{name}={getattr(given, name)!r} (only True)" for name in ("proj_bias", "mlp_bias") if not getattr(given, name)
    ]
    if given.query_bias != given.value_bias:
        missing.append(f"query_bias={given.query_bias} with value_bias={given.value_bias} (only both or none)")
    if given.use_gated_mlp and given.hidden_act != "silu":
        missing.append(f"hidden_act={given.hidden_act!r} in a gated MLP (only 'silu')")
    if not given.reshape_hidden_states or getattr(given, "return_class_token", False):
        missing.append("feature maps as lists of patches or with CLS tokens")
    if missing:
        return None, missing
    fields = {ours: getattr(given, theirs) for ours, theirs in _SAME}
    fields |= _ALWAYS | {"qkv_bias": given.query_bias, "key_bias": given.key_bias, "use_mask_token": True}
    fields |= {"drop_path_schedule": "uniform", "pool": "cls", "id2label": dict(given.id2label)}
    return HubViTConfig(**fields), []


def config_to_dinov3(config: HubViTConfig) -> PreTrainedConfig:
    """Configuration of transformers' DINOv3 for our model, see `missing_in_dinov3`."""
    fields = {theirs: getattr(config, ours) for ours, theirs in _SAME}
    if config.use_swiglu_ffn:
        fields["hidden_act"] = "silu"
    fields |= {"query_bias": config.qkv_bias, "value_bias": config.qkv_bias, "key_bias": config.has_key_bias}
    fields |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    return AutoConfig.for_model(FAMILY, **fields)


def missing_in_dinov3(config: HubViTConfig, task: str) -> list[str]:
    """Features of our model that transformers' DINOv3 lacks, each as text."""
    expected: dict[str, Any] = _ALWAYS | {"pool": "cls", "add_pooling_layer": False, "hidden_dropout_prob": 0.0}
    found = [
        f"{name}={getattr(config, name)!r} (only {value!r})"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if config.layer_scale_init_value is None:
        found.append("layer_scale_init_value=None (needs LayerScale)")
    if task not in ("backbone", "feature-maps"):
        found.append(f"a head for {task}: it has the encoder alone")
    return found


def missing_from_eva(model: Eva) -> list[str]:
    """Features of timm's `Eva` that our models lack, each as text; such a model is no DINOv3."""
    block = model.blocks[0]
    if type(block) is not EvaBlock:
        return [f"the block {type(block).__name__}"]
    attention, mlp = block.attn, block.mlp
    rope = model.rope
    absent = {
        "a norm inside the attention": attention.norm,
        "a norm inside the MLP": getattr(mlp, "norm", nn.Identity()),
        "a norm before the layers": model.norm_pre,
    }
    unsupported = {
        "positions other than DINOv3's rotary ones": type(rope) is not RotaryEmbeddingDinoV3,
        "position embeddings besides the rotary ones": model.pos_embed is not None,
        "interleaved rotation": not attention.rotate_half,
        "another norm of queries and keys": not isinstance(attention.q_norm, nn.Identity | nn.LayerNorm),
        "gated attention": attention.gate is not None,
        "separate projections of queries, keys and values": attention.qkv is None,
        f"the pool {model.global_pool!r}": model.global_pool not in ("token", "avg", ""),
        "no CLS token": model.cls_token is None,
        "layers without LayerScale": block.gamma_1 is None or block.gamma_2 is None,
        "a norm other than LayerNorm": not isinstance(_last_norm(model), nn.LayerNorm),
        f"the MLP {type(mlp).__name__} with {type(mlp.act).__name__}": not _mlp_is_known(mlp),
    }
    if type(rope) is RotaryEmbeddingDinoV3:
        unsupported["rotary coordinates of another kind"] = (
            rope.normalize_coords != "separate" or rope.grid_offset != 0.0 or rope.temperature is None
            or rope.grid_indexing != "ij"
        )  # fmt: skip
    found = [what for what, module in absent.items() if not isinstance(module, nn.Identity)]
    return found + [what for what, present in unsupported.items() if present]


def config_from_eva(model: Eva, labels: dict[int, str]) -> HubViTConfig:
    """Our configuration of a DINOv3 of timm; `missing_from_eva` must be empty.

    Args:
        model: Model of timm.
        labels: Label names by index.
    """
    block: Any = model.blocks[0]
    rope: Any = model.rope
    attention, mlp, patches = block.attn, block.mlp, model.patch_embed
    gated = isinstance(mlp, SwiGLU)
    height, width = patches.img_size
    patch_height, patch_width = patches.patch_size
    fields: dict[str, Any] = _ALWAYS | {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": attention.num_heads,
        "intermediate_size": mlp.fc2.in_features,
        "hidden_act": "gelu",
        "use_swiglu_ffn": gated,
        "qkv_bias": attention.q_bias is not None,
        "key_bias": False,
        "qk_norm": not isinstance(attention.q_norm, nn.Identity),
        "layer_norm_eps": _last_norm(model).eps,
        "layer_scale_init_value": 1e-5,
        "image_size": height if height == width else (height, width),
        "patch_size": patch_height if patch_height == patch_width else (patch_height, patch_width),
        "num_channels": model.in_chans,
        "num_register_tokens": 0 if model.reg_token is None else model.reg_token.shape[1],
        "rotary_theta": float(rope.temperature),
        "rotary_shift": rope.shift_coords,
        "rotary_jitter": rope.jitter_coords,
        "rotary_rescale": rope.rescale_coords,
        "pool": "mean" if model.global_pool == "avg" else "cls",
        "norm_after_pool": isinstance(model.norm, nn.Identity),
        "id2label": labels,
    }
    return HubViTConfig(**fields)


def config_to_eva(config: HubViTConfig) -> tuple[str, dict[str, Any]]:
    """Entry point of timm and its arguments for our model, see `missing_in_eva`."""
    sizes = _ENTRY_POINTS[config.qkv_bias]
    gated = config.use_swiglu_ffn
    arguments = {
        "num_reg_tokens": config.num_register_tokens,
        "swiglu_mlp": gated,
        "swiglu_align_to": (8 if config.mlp_size % 8 == 0 else 1) if gated else 0,
        "use_fc_norm": config.norm_after_pool,
        "rope_temperature": config.rotary_theta,
        "rope_shift_coords": config.rotary_shift,
        "rope_jitter_coords": config.rotary_jitter,
        "rope_rescale_coords": config.rotary_rescale,
    }

    def distance(name: str) -> tuple[bool, float]:
        width, depth = sizes[name]
        apart = abs(math.log(width / config.hidden_size)) + abs(math.log(depth / config.num_hidden_layers))
        return any(part in name for part in _GATED) is not gated, apart

    return min(sizes, key=distance), arguments


def missing_in_eva(config: HubViTConfig, distilled: bool) -> list[str]:
    """Features of our model with rotary positions that timm's `Eva` lacks, each as text.

    Args:
        config: Our configuration, with rotary positions.
        distilled: Whether the model has a distillation token.
    """
    expected: dict[str, Any] = {"use_cls_token": True, "patch_bias": True, "embedding_norm": False}
    expected |= {"layer_norm_eps": 1e-5, "pool": "mean" if config.pool == "mean" else "cls"}
    if not config.use_swiglu_ffn:
        expected["hidden_act"] = "gelu"
    found = [
        f"{name}={getattr(config, name)!r} (only {value!r})"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if config.has_key_bias:
        found.append("a bias of the keys with rotary positions")
    if config.layer_scale_init_value is None:
        found.append("layer_scale_init_value=None (needs LayerScale)")
    if distilled:
        found.append("a distillation token with rotary positions")
    return found


def _last_norm(model: Any) -> Any:
    return model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm


def _mlp_is_known(mlp: Any) -> bool:
    if isinstance(mlp, SwiGLU):
        return isinstance(mlp.act, nn.SiLU)
    return type(mlp) is Mlp and isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"


__all__ = [
    "FAMILY",
    "config_from_dinov3",
    "config_from_eva",
    "config_to_dinov3",
    "config_to_eva",
    "missing_from_eva",
    "missing_in_dinov3",
    "missing_in_eva",
]
