"""Conversion of detectors of transformers and of DETR's authors to ours, and of ours to transformers."""

import re
from typing import Any

import torch
import transformers
from transformers import DetrConfig, DetrForObjectDetection, PreTrainedModel, ResNetConfig

from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
from .detr_keys import from_original_names, from_transformers_names, to_transformers_names
from .key_tables import KeyMismatchError
from .model_classes import refuse_unknown_field
from .transformers_configs import InexpressibleError

DETR_FAMILY = "detr"
OTHER_AUXILIARY = (
    "its configuration has auxiliary_loss=True, with which transformers computes another function: each decoder layer "
    "gets the normalised output of the one before; this model, as DETR's authors' and transformers' without "
    "auxiliary_loss, passes it on unnormalised and normalises only what the heads read, so that its predictions differ "
    "from those that transformers makes of these weights"
)
_CLASSES: dict[str, type[PreTrainedModel]] = {"backbone": HubDetrModel, "object-detection": HubDetrForObjectDetection}

# Fields with the same name and meaning in both libraries.
_SHARED = (
    "num_queries", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
    "encoder_ffn_dim", "decoder_ffn_dim", "activation_function", "dropout", "attention_dropout", "activation_dropout",
    "dilation", "class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient",
    "eos_coefficient",
)  # fmt: skip


def detr_config_from_transformers(values: dict[str, Any]) -> HubDetrConfig:
    """Our configuration of a transformers DETR, from the content of its `config.json`, written by any version.

    Fields that affect only training keep the values of the published recipe: auxiliary losses are on.

    Raises:
        InexpressibleError: The model has features that our models lack; they are listed.
    """
    native = DetrConfig.from_dict(values)
    lacking = []
    if native.position_embedding_type != "sine":
        lacking.append(f"position_embedding_type={native.position_embedding_type!r} (only 'sine')")
    if (values.get("architectures") or [""])[0] == "DetrForSegmentation":
        lacking.append("a segmentation head (architectures=['DetrForSegmentation'])")
    if lacking:
        raise InexpressibleError("vithub", lacking)
    backbone = native.backbone_config.to_dict()
    if backbone["model_type"] == "timm_backbone":
        backbone = {
            "model_type": "timm_backbone",
            "backbone": backbone["backbone"],
            "num_channels": backbone["num_channels"],
            "out_indices": [4],
        }
    fields = {name: getattr(native, name) for name in _SHARED}
    return HubDetrConfig(backbone_config=backbone, id2label=dict(native.id2label), **fields)


def detr_config_to_transformers(config: HubDetrConfig) -> DetrConfig:
    """Configuration of the transformers DETR that computes the same function.

    Raises:
        InexpressibleError: transformers has no such model; the features are listed.
    """
    backbone = config.backbone_config
    lacking = [f"{name}={getattr(config, name)}" for name in ("anchor_queries", "focal_loss") if getattr(config, name)]
    if config.position_temperature != 10000:
        lacking.append(f"position_temperature={config.position_temperature} (only 10000)")
    if isinstance(backbone, HubViTConfig):
        lacking.append("a ViT as backbone")
    if not config.freeze_batch_norm:
        lacking.append("batch normalisation that learns (freeze_batch_norm=False)")
    assert isinstance(backbone, transformers.PreTrainedConfig)
    if config.dilation and backbone.model_type != "timm_backbone":
        lacking.append("dilation with a backbone of transformers (only with one of timm)")
    fields = {name: getattr(config, name) for name in _SHARED}
    for name in ("class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient"):
        if fields[name] != int(fields[name]):
            lacking.append(f"{name}={fields[name]} (only whole numbers)")
        fields[name] = int(fields[name])
    if lacking:
        raise InexpressibleError("transformers", lacking)
    return DetrConfig(backbone_config=backbone.to_dict(), id2label=dict(config.id2label), **fields)


def is_original_detr(state: dict[str, torch.Tensor]) -> bool:
    """Whether tensors have the names that DETR's authors use."""
    return {"transformer.decoder.norm.weight", "query_embed.weight", "input_proj.weight"} <= set(state)


def detr_config_from_original(state: dict[str, torch.Tensor]) -> HubDetrConfig:
    """Our configuration of a checkpoint of DETR's authors, from its tensors; all their models have 8 heads.

    Dilation cannot be seen from the tensors: set `dilation=True` for the "DC5" models.

    Raises:
        InexpressibleError: The checkpoint has a segmentation head.
        KeyMismatchError: The backbone is not a ResNet of four stages.
    """
    lacking = sorted({name.split(".")[0] for name in state if name.startswith(("mask_head.", "bbox_attention."))})
    if lacking:
        raise InexpressibleError("vithub", [f"a segmentation head ({', '.join(lacking)})"])
    body = "backbone.0.body."
    blocks = [1 + max(_numbers(state, rf"{body}layer{stage}\.(\d+)\.")) for stage in range(1, 5)]
    kind, last = ("bottleneck", 3) if f"{body}layer1.0.conv3.weight" in state else ("basic", 2)
    sizes = [len(state[f"{body}layer{stage}.0.conv{last}.weight"]) for stage in range(1, 5)]
    backbone = ResNetConfig(
        num_channels=state[f"{body}conv1.weight"].shape[1],
        embedding_size=len(state[f"{body}conv1.weight"]),
        hidden_sizes=sizes,
        depths=blocks,
        layer_type=kind,
        out_features=["stage4"],
    )
    queries, width = state["query_embed.weight"].shape
    return HubDetrConfig(
        backbone_config=backbone,
        num_labels=len(state["class_embed.weight"]) - 1,
        num_queries=queries,
        d_model=width,
        encoder_layers=1 + max(_numbers(state, r"transformer\.encoder\.layers\.(\d+)\.")),
        decoder_layers=1 + max(_numbers(state, r"transformer\.decoder\.layers\.(\d+)\.")),
        encoder_ffn_dim=len(state["transformer.encoder.layers.0.linear1.weight"]),
        decoder_ffn_dim=len(state["transformer.decoder.layers.0.linear1.weight"]),
    )


def detr_from_transformers(
    values: dict[str, Any], state: dict[str, torch.Tensor], task: str, fields: dict[str, Any], name: str
) -> PreTrainedModel:
    """Our detector (task "backbone": without the heads) with the tensors of a transformers DETR."""
    config = detr_config_from_transformers(values)
    timm = getattr(config.backbone_config, "model_type", "") == "timm_backbone"
    return _loaded(config, from_transformers_names(state, timm), task, fields, name)


def detr_from_original(state: dict[str, torch.Tensor], task: str, fields: dict[str, Any], name: str) -> PreTrainedModel:
    """Our detector (task "backbone": without the heads) with the tensors of a DETR of its authors."""
    return _loaded(detr_config_from_original(state), from_original_names(state), task, fields, name)


def detr_to_transformers(model: PreTrainedModel) -> DetrForObjectDetection:
    """Converts our detector to a transformers DETR, in evaluation mode.

    Raises:
        InexpressibleError: transformers has no such model; the features are listed.
        KeyMismatchError: The tensor names of the two models do not correspond; they are listed.
    """
    if not isinstance(model, HubDetrForObjectDetection):
        raise InexpressibleError("transformers", ["a detector without heads (HubDetrModel)"])
    native = DetrForObjectDetection(detr_config_to_transformers(model.config)).to(model.dtype)
    renamed = to_transformers_names(dict(model.state_dict()))
    wanted = native.state_dict()
    left = [name for name in renamed if name not in wanted and not name.endswith("num_batches_tracked")]
    if left or (missing := sorted(set(wanted) - set(renamed))):
        raise KeyMismatchError(f"tensors without a name in transformers: {left}; missing there: {missing}")
    native.load_state_dict({name: renamed[name] for name in wanted})
    native.config.dtype = model.dtype
    return native.eval()


def _loaded(
    config: HubDetrConfig, state: dict[str, torch.Tensor], task: str, fields: dict[str, Any], name: str
) -> PreTrainedModel:
    attention = fields.pop("attn_implementation", None)
    for field_name, value in fields.items():
        refuse_unknown_field(config, field_name)
        setattr(config, field_name, value)
    config.check()
    if task not in _CLASSES:
        raise ValueError(f"there is no HubDetrConfig model for {task!r}, only for {sorted(_CLASSES)}")
    model = _CLASSES[task](config)
    if task == "backbone":
        state = {key.removeprefix("detr."): tensor for key, tensor in state.items() if key.startswith("detr.")}
    own = model.state_dict()
    wrong = [f"{key} {tuple(t.shape)} for {tuple(own[key].shape)}" for key, t in state.items()
             if key in own and t.shape != own[key].shape]  # fmt: skip
    unexpected = sorted(set(state) - set(own))
    # frozen batch normalisation has no counters of batches
    missing = sorted(key for key in set(own) - set(state) if not key.endswith("num_batches_tracked"))
    unexpected = [key for key in unexpected if not key.endswith("num_batches_tracked")]
    if wrong or unexpected or missing:
        raise KeyMismatchError(
            f"{name}: missing tensors: {missing}; unexpected: {unexpected}; of another shape: {wrong}"
        )
    dtype = state[next(key for key in own if key in state)].dtype
    model.to(dtype)
    config.dtype = dtype
    model.load_state_dict(state, strict=False)
    if attention is not None:
        model.set_attn_implementation(attention)
    return model.eval()


def _numbers(state: dict[str, torch.Tensor], pattern: str) -> list[int]:
    found = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    if not found:
        raise KeyMismatchError(f"no tensor is named {pattern}: not a ResNet of four stages with a DETR on it")
    return found


__all__ = [
    "DETR_FAMILY",
    "OTHER_AUXILIARY",
    "detr_config_from_original",
    "detr_config_from_transformers",
    "detr_config_to_transformers",
    "detr_from_original",
    "detr_from_transformers",
    "detr_to_transformers",
    "is_original_detr",
]
