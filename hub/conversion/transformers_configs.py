"""Conversion of configurations between ours and those of transformers' ViT, DeiT, DINOv2 and DINOv3."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_vit import HubViTConfig
from ...data.argument_names import stated_field
from .dinov3_configs import FAMILY as DINOV3
from .dinov3_configs import config_from_dinov3, config_to_dinov3, missing_in_dinov3
from .siglip_configs import FAMILY as SIGLIP
from .siglip_configs import config_from_siglip, config_to_siglip, in_whole_patches, missing_in_siglip

FAMILIES = ("vit", "deit", "dinov2", "dinov2_with_registers", DINOV3, SIGLIP, "ijepa", "vit_mae")
# Families with the tensor names and most fields of `vit`.
_LIKE_VIT = ("vit", "deit", "ijepa", "vit_mae")

_LACKING = {DINOV3: missing_in_dinov3, SIGLIP: missing_in_siglip}
_STEMS = {
    "vit": "ViT",
    "deit": "DeiT",
    "ijepa": "IJepa",
    "dinov2": "Dinov2",
    "dinov2_with_registers": "Dinov2WithRegisters",
    DINOV3: "DINOv3ViT",
}

# Families of transformers with a class for `AutoBackbone`.
_WITH_MAPS = ("dinov2", "dinov2_with_registers", DINOV3)
_NAFLEX = "as many patches as the image has, padded and masked (NaFlex); SigLIP 2 of one size has the type 'siglip'"
# Model types that transformers and timm have and ours cannot be, and why.
REFUSED = {
    "beit": "a learned attention bias for the relative position of each two patches (beit)",
    "siglip2": _NAFLEX,
    "siglip2_vision_model": _NAFLEX,
}

# Backbones of transformers with an optional pooler.
WITH_POOLER = ("ViTModel", "DeiTModel")

# Fields with the same name and meaning in both libraries.
_SHARED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "num_channels",
    "qkv_bias",
    "problem_type",
)


class InexpressibleError(ValueError):
    """The target library has no such model; the message lists the features that it lacks.

    Args:
        target: Name of the target library.
        features: Descriptions of the features that it lacks.
        advice: What the user can do about it; empty if there is nothing.
    """

    def __init__(self, target: str, features: list[str], advice: str = "") -> None:
        self.reason = f"{target} cannot express this model: " + "; ".join(features)
        super().__init__(self.reason + (f"; {advice}" if advice else ""))
        self.target, self.features = target, features


def config_from_transformers(native: PreTrainedConfig, architecture: str, has_pooler: bool = True) -> HubViTConfig:
    """Our configuration of a transformers model.

    Args:
        native: Configuration of the model, of one of `FAMILIES`.
        architecture: Class name of the model, which determines the head.
        has_pooler: Whether a `ViTModel` or `DeiTModel` has its pooler; its configuration does not state this.

    Raises:
        InexpressibleError: The model has features that our models lack; they are listed.
    """
    config = _config_from(native, architecture, has_pooler)
    if architecture.endswith("Backbone"):
        given: Any = native
        config.apply_layernorm, config.reshape_hidden_states = given.apply_layernorm, given.reshape_hidden_states
        config.out_indices = given.out_indices
    return config


def _config_from(native: PreTrainedConfig, architecture: str, has_pooler: bool) -> HubViTConfig:
    family = native.model_type
    if family == DINOV3:
        config, missing = config_from_dinov3(native)
        if config is None:
            raise InexpressibleError("vithub", missing)
        return config
    if family == SIGLIP:
        return config_from_siglip(native)
    fields: dict[str, Any] = {name: getattr(native, name) for name in _SHARED}
    fields |= {"patch_size": native.patch_size, "id2label": dict(native.id2label)}
    fields["image_size"] = in_whole_patches(native.image_size, native.patch_size)
    antialiased = family == "dinov2_with_registers"
    fields["position_embedding_resampling"] = "bicubic_antialias" if antialiased else "bicubic"
    config_class: type[HubViTConfig] = HubDeiTConfig if family == "deit" else HubViTConfig
    if family in _LIKE_VIT:
        fields["intermediate_size"] = native.intermediate_size
        if family == "ijepa":
            fields |= {"use_cls_token": False, "pool": "mean"}
        fields["add_pooling_layer"] = has_pooler and architecture in WITH_POOLER
        if fields["add_pooling_layer"]:
            _refuse_other_poolers(native)
        fields["use_mask_token"] = architecture.endswith("ForMaskedImageModeling")
        if family == "deit":
            fields["use_distillation_head"] = architecture == "DeiTForImageClassificationWithTeacher"
    else:
        hidden = int(native.hidden_size * native.mlp_ratio)
        gated = (int(hidden * 2 / 3) + 7) // 8 * 8
        fields |= {
            "intermediate_size": gated if native.use_swiglu_ffn else hidden,
            "use_swiglu_ffn": native.use_swiglu_ffn,
            "layer_scale_init_value": native.layerscale_value,
            "drop_path_rate": native.drop_path_rate,
            "drop_path_schedule": "uniform",
            "use_mask_token": getattr(native, "use_mask_token", True),
            "num_register_tokens": getattr(native, "num_register_tokens", 0),
            "pool": "cls+mean" if architecture.endswith("ForImageClassification") else "cls",
        }
    return config_class(**fields)


def has_pooler(names: Iterable[str]) -> bool:
    """Whether a checkpoint with these tensor names has a pooler."""
    return any(name.endswith("pooler.dense.weight") for name in names)


def half_of_head(state: Mapping[str, torch.Tensor], config: HubViTConfig) -> tuple[str, torch.Tensor] | None:
    """Pooling and classifier weight (L, D) of a head on CLS and the mean of the patches that uses only one of them.

    `convert` writes the other half of the weight (L, 2 D) as zeros where transformers' DINOv2 stands for a model that
    pools "cls" or "mean". None where both halves are used, where all is zero, or where there is no such head.

    Args:
        state: Tensors of a checkpoint of transformers by name.
        config: Our configuration of it.
    """
    weight = next((tensor for name, tensor in state.items() if name.endswith("classifier.weight")), None)
    if weight is None or config.pool != "cls+mean" or weight.shape[1:] != (2 * config.hidden_size,):
        return None
    cls, mean = weight[:, : config.hidden_size], weight[:, config.hidden_size :]
    if bool(cls.any()) == bool(mean.any()):
        return None
    return ("cls", cls.contiguous()) if cls.any() else ("mean", mean.contiguous())


def _refuse_other_poolers(native: PreTrainedConfig) -> None:
    size, activation = native.pooler_output_size, native.pooler_act
    if size != native.hidden_size or activation != "tanh":
        features = [f"pooler_output_size={size} with pooler_act={activation!r} (only D and 'tanh')"]
        raise InexpressibleError("vithub", features)


def family_for(config: HubViTConfig) -> str:
    """Family of transformers that is closest to our configuration."""
    if isinstance(config, HubDeiTConfig) and config.use_distillation_token:
        return "deit"
    if config.position_embedding_type == "rotary":
        return DINOV3
    if config.pool == "map":
        return SIGLIP
    if not (config.use_cls_token or config.num_register_tokens or config.layer_scale_init_value is not None):
        return "ijepa"
    if config.num_register_tokens:
        return "dinov2_with_registers"
    return "dinov2" if config.layer_scale_init_value is not None or config.use_swiglu_ffn else "vit"


def config_to_transformers(config: HubViTConfig, task: str) -> tuple[PreTrainedConfig, str]:
    """Configuration and class name of the same model in transformers.

    Args:
        config: Our configuration.
        task: "backbone", "image-classification" or "masked-image-modeling".

    Raises:
        InexpressibleError: The model has features that transformers' classes lack; all of them are listed.
    """
    family = family_for(config)
    lacking = _LACKING.get(family)
    missing = _inexpressible(config, family, task) if lacking is None else lacking(config, task)
    if task == "feature-maps" and family not in _WITH_MAPS:
        missing.append("feature maps (convert with task='backbone')")
    if missing:
        raise InexpressibleError(f"transformers' `{family}`", missing, _advice(config, family, task))
    if family == DINOV3:
        return _named(config_to_dinov3(config), config, _architecture(config, family, task))
    if family == SIGLIP:
        return _named(config_to_siglip(config), config, "SiglipVisionModel")
    fields: dict[str, Any] = {name: getattr(config, name) for name in _SHARED}
    fields |= {"image_size": config.image_size, "patch_size": config.patch_size}
    fields |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    if family in _LIKE_VIT:
        fields["intermediate_size"] = config.intermediate_size
    if family in ("vit", "deit"):
        fields["encoder_stride"] = config.patch_hw[0]
    if family.startswith("dinov2"):
        ratio = _mlp_ratio(config)
        fields |= {"mlp_ratio": ratio, "use_swiglu_ffn": config.use_swiglu_ffn, "drop_path_rate": 0.0}
        fields["layerscale_value"] = config.layer_scale_init_value
        if family == "dinov2":
            fields["use_mask_token"] = config.use_mask_token
        else:
            fields["num_register_tokens"] = config.num_register_tokens
    return _named(AutoConfig.for_model(family, **fields), config, _architecture(config, family, task))


def _named(given: PreTrainedConfig, config: HubViTConfig, architecture: str) -> tuple[PreTrainedConfig, str]:
    native: Any = given
    native.architectures = [architecture]
    if architecture.endswith("Backbone"):
        native.apply_layernorm, native.reshape_hidden_states = config.apply_layernorm, config.reshape_hidden_states
        native.out_indices = config.out_indices
    return native, architecture


def _architecture(config: HubViTConfig, family: str, task: str) -> str:
    stem = _STEMS[family]
    if task in ("backbone", "feature-maps"):
        return f"{stem}Model" if task == "backbone" else f"{stem}Backbone"
    if task == "masked-image-modeling":
        return f"{stem}ForMaskedImageModeling"
    teacher = isinstance(config, HubDeiTConfig) and family == "deit" and config.use_distillation_head
    return f"{stem}ForImageClassification" + ("WithTeacher" if teacher else "")


def _mlp_ratio(config: HubViTConfig) -> int | None:
    """Integer `mlp_ratio` of DINOv2 that gives our `intermediate_size`, or None if there is none."""
    for ratio in range(1, 17):
        hidden = config.hidden_size * ratio
        if (((int(hidden * 2 / 3) + 7) // 8 * 8) if config.use_swiglu_ffn else hidden) == config.intermediate_size:
            return ratio
    return None


def _inexpressible(config: HubViTConfig, family: str, task: str) -> list[str]:
    """Features that transformers' `family` lacks, each with our value."""
    dino, ijepa = family.startswith("dinov2"), family == "ijepa"
    expected: dict[str, Any] = {
        "use_cls_token": not ijepa,
        "position_embedding_prefix": True,
        "patch_bias": True,
        "embedding_norm": False,
        "norm_after_pool": False,
        "qk_norm": False,
        "key_bias": config.key_bias if config.has_key_bias == config.qkv_bias else None,
    }
    if task == "backbone" or (task == "image-classification" and not dino):
        expected["pool"] = _pool(family)
    if task == "backbone":
        expected["add_pooling_layer"] = config.add_pooling_layer and not (dino or ijepa)
    if dino:
        expected["hidden_act"] = config.hidden_act if not config.use_swiglu_ffn else "gelu"
    else:
        expected |= {"use_swiglu_ffn": False, "layer_scale_init_value": None, "num_register_tokens": 0}
        expected["use_mask_token"] = task == "masked-image-modeling"
    found = [
        f"{name}={getattr(config, name)!r} (only {value!r})"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if dino:
        found += _inexpressible_in_dinov2(config, task)
    if isinstance(config, HubDeiTConfig) and not config.use_distillation_token and config.use_distillation_head:
        found.append("a distillation head without its token")
    if task == "masked-image-modeling" and config.patch_hw[0] != config.patch_hw[1]:
        found.append(f"patch_size={config.patch_size!r} (masked image modelling needs a square)")
    return found


def _pool(family: str) -> str:
    """Pooling of transformers' class; its classifiers of DINOv2 take "cls+mean", which expresses each of the two."""
    return "mean" if family == "ijepa" else "cls"


def _advice(config: HubViTConfig, family: str, task: str) -> str:
    """Training option that gives a classifier the pooling of transformers' class, or an empty text."""
    pool = _pool(family)
    settled = family in _LACKING or family.startswith("dinov2") or config.pool == pool
    if task != "image-classification" or settled:
        return ""
    return f"a model trained with {stated_field('model.fields.pool', pool)} has the pooling of that class"


def _inexpressible_in_dinov2(config: HubViTConfig, task: str) -> list[str]:
    found = []
    if config.layer_scale_init_value is None:
        found.append("layer_scale_init_value=None (needs LayerScale)")
    if _mlp_ratio(config) is None:
        found.append(f"intermediate_size={config.intermediate_size} (needs a whole mlp_ratio)")
    if config.image_hw[0] != config.image_hw[1]:
        found.append(f"image_size={config.image_size!r} (needs a square)")
    if config.position_embedding_type == "sincos":
        found.append("position_embedding_type='sincos' (resampled otherwise)")
    if task == "masked-image-modeling":
        found.append("a masked image modelling head")
    return found


__all__ = [
    "FAMILIES",
    "REFUSED",
    "WITH_POOLER",
    "InexpressibleError",
    "config_from_transformers",
    "config_to_transformers",
    "family_for",
    "half_of_head",
    "has_pooler",
]
