"""Conversion of configurations between timm's vision transformers and ours."""

import json
import math
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.layers import GluMlp, Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_vit import HubViTConfig
from .dinov3_configs import config_from_eva, config_to_eva, missing_from_eva, missing_in_eva
from .siglip_configs import in_whole_patches
from .transformers_configs import InexpressibleError

# Activations: timm's name, timm's class, our name.
_ACTIVATIONS = (
    ("gelu", "GELU", "gelu"),
    ("gelu_tanh", "GELUTanh", "gelu_pytorch_tanh"),
    ("quick_gelu", "QuickGELU", "quick_gelu"),
    ("silu", "SiLU", "silu"),
    ("relu", "ReLU", "relu"),
)
# Entry points of timm, grouped by the settings that their arguments cannot change: (width, depth, patch side, image
# side) of each.
_PLAIN = {
    f"vit_{size}_patch{patch}_{image}": (width, depth, patch, image)
    for size, width, depth, variants in (
        ("tiny", 192, 12, ((16, 224), (16, 384))),
        ("small", 384, 12, ((16, 224), (16, 384), (32, 224), (32, 384), (8, 224))),
        ("base", 768, 12, ((16, 224), (16, 384), (32, 224), (32, 384), (8, 224))),
        ("large", 1024, 24, ((16, 224), (16, 384), (32, 224), (32, 384), (14, 224))),
        ("huge", 1280, 32, ((14, 224),)),
        ("giant", 1408, 40, ((14, 224),)),
    )
    for patch, image in variants
}
_DINOV2_SIZES = (("small", 384, 12), ("base", 768, 12), ("large", 1024, 24))
_DINOV2 = {f"vit_{size}_patch14_dinov2": (width, depth, 14, 518) for size, width, depth in _DINOV2_SIZES}
_WITH_REGISTERS = {f"vit_{size}_patch14_reg4_dinov2": (width, depth, 14, 518) for size, width, depth in _DINOV2_SIZES}
_GATED = {"vit_giant_patch14_dinov2": (1536, 40, 14, 518)}
_CLIP = {
    "vit_base_patch32_clip_224": (768, 12, 32, 224),
    "vit_base_patch16_clip_224": (768, 12, 16, 224),
    "vit_large_patch14_clip_224": (1024, 24, 14, 224),
    "vit_huge_patch14_clip_224": (1280, 32, 14, 224),
}
_DISTILLED = {
    "deit_tiny_distilled_patch16_224": (192, 12, 16, 224),
    "deit_small_distilled_patch16_224": (384, 12, 16, 224),
    "deit_base_distilled_patch16_224": (768, 12, 16, 224),
    "deit_base_distilled_patch16_384": (768, 12, 16, 384),
}
_FROM_CLASS = {class_name: ours for _, class_name, ours in _ACTIVATIONS}
_TO_NAME = {ours: name for name, _, ours in _ACTIVATIONS}


def config_from_timm(model: Any) -> HubViTConfig:
    """Our configuration of a timm vision transformer, including its label names.

    Raises:
        InexpressibleError: The model has features that our models lack; all of them are listed.
    """
    if missing := missing_from_eva(model) if isinstance(model, Eva) else _unknown_features(model):
        raise InexpressibleError("vithub", missing)
    if isinstance(model, Eva):
        return config_from_eva(model, _labels(model))
    block = model.blocks[0]
    mlp, distilled = block.mlp, isinstance(model, VisionTransformerDistilled)
    gated = isinstance(mlp, GluMlp)
    activation = "gelu" if gated else _FROM_CLASS[type(mlp.act).__name__]
    fields: dict[str, Any] = {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": mlp.fc2.in_features,
        "hidden_act": activation,
        "use_swiglu_ffn": gated,
        "qkv_bias": block.attn.qkv.bias is not None,
        "qk_norm": not isinstance(block.attn.q_norm, nn.Identity),
        "layer_norm_eps": _last_norm(model).eps,
        "layer_scale_init_value": 1e-5 if hasattr(block.ls1, "gamma") else None,
        "image_size": in_whole_patches(model.patch_embed.img_size, model.patch_embed.patch_size),
        "patch_size": _one_or_pair(model.patch_embed.patch_size),
        "num_channels": model.in_chans,
        "patch_bias": model.patch_embed.proj.bias is not None,
        "use_cls_token": model.cls_token is not None,
        "num_register_tokens": model.num_reg_tokens,
        "position_embedding_prefix": not model.no_embed_class,
        "embedding_norm": not isinstance(model.norm_pre, nn.Identity),
        "pool": {"token": "cls", "avg": "mean", "map": "map"}[model.global_pool],
        "norm_after_pool": isinstance(model.norm, nn.Identity),
        "id2label": _labels(model),
    }
    return HubDeiTConfig(**fields) if distilled else HubViTConfig(**fields)


def refuse_other_architectures(model: Any, name: str) -> None:
    """Raises an `InexpressibleError` with the model's name if a timm model is not a vision transformer."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled, Eva):
        kind = type(model).__name__
        raise InexpressibleError("vithub", [f"timm's {name} of the class {kind} (only ViT, DeiT and DINOv3)"])


def _one_or_pair(size: tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else (size[0], size[1])


def _unknown_features(model: Any) -> list[str]:
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return [f"the model class {type(model).__name__}"]
    block = model.blocks[0]
    if type(block) is not Block:
        return [f"the block {type(block).__name__}"]
    norms = {"the last norm": _last_norm(model), "the norm of a layer": block.norm1}
    if not isinstance(block.attn.q_norm, nn.Identity):
        norms["the norm of queries and keys"] = block.attn.q_norm
    absent = {
        "a norm inside the attention": block.attn.norm,
        "a norm inside the MLP": getattr(block.mlp, "norm", nn.Identity()),
        "a norm inside the patch embedding": model.patch_embed.norm,
    }
    unsupported = {
        "an attention or MLP projection without bias": block.attn.proj.bias is None or block.mlp.fc2.bias is None,
        f"the pool {model.global_pool!r}": model.global_pool not in ("token", "avg", "map"),
        "attention pooling of another kind": not _attention_pool_is_known(model),
        "a mean over prefix tokens (pool_include_prefix)": model.pool_include_prefix,
        "no position embeddings": model.pos_embed is None,
        "a patch embedding other than one convolution": not isinstance(model.patch_embed.proj, nn.Conv2d),
        _mlp_description(block.mlp): not _mlp_is_known(block.mlp),
    }
    found = [f"{what} {type(norm).__name__}" for what, norm in norms.items() if not isinstance(norm, nn.LayerNorm)]
    found += [what for what, module in absent.items() if not isinstance(module, nn.Identity)]
    return found + [what for what, present in unsupported.items() if present]


def _attention_pool_is_known(model: Any) -> bool:
    """True if the model does not pool by attention, or pools as SigLIP does.

    SigLIP's pooling attends to patches only, adds no positions, and has an MLP like that of the layers.
    """
    if model.global_pool != "map":
        return True
    pool, block = model.attn_pool, model.blocks[0]
    plain = [isinstance(norm, nn.Identity) for norm in (pool.q_norm, pool.k_norm)]
    same_mlp = type(pool.mlp.act) is type(block.mlp.act) and not isinstance(block.mlp, GluMlp)
    return (
        pool.pool == "token" and pool.latent_len == 1 and pool.pos_embed is None and all(plain)
        and pool.num_heads == block.attn.num_heads and isinstance(pool.norm, nn.LayerNorm)
        and isinstance(pool.q, nn.Linear) and pool.q.bias is not None
        and not model.num_prefix_tokens and same_mlp and pool.mlp.fc2.in_features == block.mlp.fc2.in_features
    )  # fmt: skip


def _last_norm(model: Any) -> Any:
    return model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm


def _mlp_is_known(mlp: Any) -> bool:
    if isinstance(mlp, GluMlp):
        return isinstance(mlp.act, nn.SiLU) and not mlp.gate_last
    return type(mlp) is Mlp and type(mlp.act).__name__ in _FROM_CLASS


def _mlp_description(mlp: Any) -> str:
    gate = f", gate_last={mlp.gate_last}" if hasattr(mlp, "gate_last") else ""
    return f"the MLP {type(mlp).__name__} with {type(mlp.act).__name__}{gate}"


def _labels(model: Any) -> dict[int, str]:
    """Label names of the checkpoint, or of the ImageNet subset with that many classes, or LABEL_0, LABEL_1, ..."""
    count = getattr(model, "num_classes", 0) or 2
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if names := cfg.get("label_names"):
        return {index: str(name) for index, name in enumerate(names)}
    from_imagenet = "in1k" in str(cfg.get("tag")) or "imagenet" in str(cfg.get("url")) or count in (1000, 21841, 21843)
    subset = infer_imagenet_subset(count) if from_imagenet else None
    if subset is not None:
        return imagenet_labels(subset, count)
    return {index: f"LABEL_{index}" for index in range(count)}


def imagenet_labels(subset: str, count: int) -> dict[int, str]:
    """Readable class names of an ImageNet subset; classes that share a name also get their synset."""
    info = ImageNetInfo(subset)
    names = [info.index_to_description(index).split(",")[0] for index in range(count)]
    taken = {name for name in names if names.count(name) > 1}
    return {i: f"{name} ({info.index_to_label_name(i)})" if name in taken else name for i, name in enumerate(names)}


def fold_register_positions(state: dict[str, torch.Tensor], config: HubViTConfig) -> dict[str, torch.Tensor]:
    """timm's tensors, with the rows of `pos_embed` for registers, if there are any, added to the registers."""
    registers, before = config.num_register_tokens, config.num_position_prefix
    grid = config.grid_size[0] * config.grid_size[1]
    positions = state["pos_embed"]
    if not registers or positions.shape[1] == before + grid:
        return state
    state = dict(state)
    state["reg_token"] = state["reg_token"] + positions[:, before : before + registers]
    state["pos_embed"] = torch.cat([positions[:, :before], positions[:, before + registers :]], dim=1)
    return state


def fold_cls_positions(state: dict[str, torch.Tensor], config: HubViTConfig) -> dict[str, torch.Tensor]:
    """Our tensors under timm's names, with the CLS row of `pos_embed` added to CLS if timm has no such row."""
    if not (config.num_register_tokens and config.num_position_prefix):
        return state
    state = dict(state)
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def config_to_timm(config: HubViTConfig, task: str, processor: Any = None) -> dict[str, Any]:
    """Content of timm's `config.json` for our model: architecture, arguments and the processor's data settings.

    Args:
        config: Our configuration.
        task: "backbone", "image-classification" or "masked-image-modeling".
        processor: Image processor of the model; None leaves out the data settings.

    Raises:
        InexpressibleError: The model has features that timm lacks; all of them are listed.
    """
    if missing := _inexpressible(config, task):
        raise InexpressibleError("timm", missing)
    distilled = isinstance(config, HubDeiTConfig) and config.use_distillation_token
    arguments: dict[str, Any] = {
        "img_size": list(config.image_hw),
        "patch_size": config.patch_size if isinstance(config.patch_size, int) else list(config.patch_size),
        "in_chans": config.num_channels,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm,
        "init_values": config.layer_scale_init_value,
        "global_pool": {"cls": "token", "mean": "avg", "map": "map"}.get(config.pool, "avg"),
    }
    if config.position_embedding_type == "rotary":
        architecture, more = config_to_eva(config)
        arguments |= {"mlp_ratio": _mlp_ratio(config.mlp_size, config.hidden_size)} | more
    else:
        architecture = _architecture(config, distilled)
        arguments |= _arguments(config, distilled)
    classes = config.num_labels if task == "image-classification" else 0
    cfg = {"num_classes": classes, "fixed_input_size": True, "first_conv": "patch_embed.proj"}
    cfg["classifier"] = ["head", "head_dist"] if distilled else "head"
    if classes:
        cfg["label_names"] = [config.id2label[index] for index in range(classes)]
    cfg |= _data_settings(config, processor)
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": config.hidden_size,
        "pretrained_cfg": cfg,
        "model_args": arguments,
    }


def _arguments(config: HubViTConfig, distilled: bool) -> dict[str, Any]:
    """Arguments of timm's `VisionTransformer` that its DINOv3 (`Eva`) does not have under the same name."""
    width = config.mlp_size * (2 if config.use_swiglu_ffn else 1)
    arguments: dict[str, Any] = {
        "mlp_ratio": _mlp_ratio(width, config.hidden_size),
        "no_embed_class": not config.position_embedding_prefix or bool(config.num_register_tokens),
        "pre_norm": config.embedding_norm,
        "fc_norm": config.norm_after_pool,
    }
    if not config.use_swiglu_ffn:
        arguments["act_layer"] = _TO_NAME[config.hidden_act]
    if not distilled:
        arguments |= {"class_token": config.use_cls_token, "reg_tokens": config.num_register_tokens}
    return arguments


def _mlp_ratio(width: int, hidden_size: int) -> float:
    """Ratio whose product with `hidden_size`, rounded down as timm does, is `width`."""
    ratio = width / hidden_size
    return ratio if int(hidden_size * ratio) == width else math.nextafter(ratio, math.inf)


def _architecture(config: HubViTConfig, distilled: bool) -> str:
    """Entry point of timm with the most similar sizes, among those whose fixed settings (norm, MLP) equal ours.

    All other settings are overridden by arguments, so that any of these entry points gives the same model.
    """
    sizes = _DISTILLED if distilled else _PLAIN
    if config.use_swiglu_ffn:
        sizes = _GATED
    elif config.layer_norm_eps != 1e-6:
        sizes = _CLIP
    elif not distilled and config.layer_scale_init_value is not None:
        sizes = _WITH_REGISTERS if config.num_register_tokens else _DINOV2

    def distance(name: str) -> float:
        width, depth, patch, image = sizes[name]
        patch_height, image_height = config.patch_hw[0], config.image_hw[0]
        apart = [(width, config.hidden_size), (depth, config.num_hidden_layers)]
        shape = sum(abs(math.log(theirs / ours)) for theirs, ours in apart)
        return shape + 0.1 * abs(math.log(patch / patch_height)) + 0.01 * abs(math.log(image / image_height))

    return min(sizes, key=distance)


def _data_settings(config: HubViTConfig, processor: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"input_size": [config.num_channels, *config.image_hw]}
    if processor is None:
        return settings
    interpolation = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}[int(processor.resample)]
    shortest = dict(processor.size).get("shortest_edge")
    resized = shortest or dict(processor.size)["height"]
    return settings | {
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "interpolation": interpolation,
        "crop_pct": min(1.0, config.image_hw[0] / resized) if processor.do_center_crop else 1.0,
        "crop_mode": "center" if shortest else "squash",
    }


def _inexpressible(config: HubViTConfig, task: str) -> list[str]:
    distilled = isinstance(config, HubDeiTConfig) and config.use_distillation_token
    if config.position_embedding_type == "rotary":
        return missing_in_eva(config, distilled) + _missing_heads(config, task)
    found = []
    if isinstance(config, HubDeiTConfig) and distilled and not config.use_distillation_head and task != "backbone":
        found.append("use_distillation_head=False with a distillation token")
    if distilled and (config.num_register_tokens or config.pool != "cls" or not config.use_cls_token):
        found.append("a distillation token with registers, without CLS or with another pool than 'cls'")
    if config.has_key_bias != config.qkv_bias:
        found.append(f"qkv_bias={config.qkv_bias} with key_bias={config.key_bias} (only with rotary positions)")
    if config.pool == "map" and (config.num_prefix_tokens or config.use_swiglu_ffn):
        found.append("pool='map' over other tokens than patches, or with use_swiglu_ffn=True")
    if config.pool == "cls+mean" and task != "masked-image-modeling":
        found.append("pool='cls+mean' (only 'cls' and 'mean')")
    if config.layer_norm_eps not in (1e-6, 1e-5) or (
        (distilled or config.use_swiglu_ffn) and config.layer_norm_eps != 1e-6
    ):
        found.append(f"layer_norm_eps={config.layer_norm_eps} (only 1e-06)")
    if not config.use_swiglu_ffn and config.hidden_act not in _TO_NAME:
        found.append(f"hidden_act={config.hidden_act!r} (only {sorted(_TO_NAME)})")
    if config.patch_bias == config.embedding_norm:
        found.append(f"patch_bias={config.patch_bias} with embedding_norm={config.embedding_norm}")
    return found + _missing_heads(config, task)


def _missing_heads(config: HubViTConfig, task: str) -> list[str]:
    found = ["feature maps (convert with task='backbone')"] if task == "feature-maps" else []
    if config.add_pooling_layer and task == "backbone":
        found.append("add_pooling_layer=True")
    if config.use_mask_token and task == "masked-image-modeling":
        found.append("a masked image modelling head")
    return found


def timm_model(config: dict[str, Any]) -> nn.Module:
    """Builds the timm model that the content of a timm `config.json` describes, with random weights."""
    arguments = dict(config.get("model_args") or {})
    cfg = json.loads(json.dumps(config["pretrained_cfg"]))
    arguments.setdefault("num_classes", config.get("num_classes", cfg.get("num_classes")))
    model: nn.Module = timm.create_model(config["architecture"], pretrained=False, pretrained_cfg=cfg, **arguments)
    return model


__all__ = [
    "config_from_timm",
    "config_to_timm",
    "fold_cls_positions",
    "fold_register_positions",
    "imagenet_labels",
    "refuse_other_architectures",
    "timm_model",
]
