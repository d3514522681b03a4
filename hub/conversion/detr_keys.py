"""Translation of DETR's tensor names between this package, transformers and the original code of its authors."""

import re
from collections.abc import Callable

import torch

from .key_tables import KeyMismatchError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def _block(match: re.Match[str]) -> str:
    return f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}"


# Names of a ResNet's parts in timm and torchvision on the left, in transformers on the right.
_RESNET: tuple[Rule, ...] = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"{_block(m)}.layer.{int(m[3]) - 1}.convolution."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"{_block(m)}.layer.{int(m[3]) - 1}.normalization."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"{_block(m)}.shortcut.convolution."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"{_block(m)}.shortcut.normalization."),
)
# Names of transformers' DETR, in memory and in folders of several versions, on the left; ours on the right.
_TRANSFORMERS: tuple[Rule, ...] = (
    (r"^model\.", "detr."),
    (r"^(detr\.)?backbone\.(conv_encoder\.)?model\.", r"\1backbone.model."),
    (r"query_position_embeddings\.", "query_embeddings."),
    (r"_attn\.out_proj\.", "_attn.o_proj."),
    (r"(coder\.layers\.\d+)\.fc([12])\.", r"\1.mlp.fc\2."),
)
# Names of the authors (https://github.com/facebookresearch/detr) on the left, ours on the right; packed projections are
# split separately.
_ORIGINAL: tuple[Rule, ...] = (
    (r"^transformer\.(en|de)coder\.", r"detr.\1coder."),
    (r"^detr\.decoder\.norm\.", "detr.decoder.layernorm."),
    (r"^query_embed\.", "detr.query_embeddings."),
    (r"^input_proj\.", "detr.input_projection."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"_attn\.out_proj\.", "_attn.o_proj."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"^(detr\.\w+\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(detr\.encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"^(detr\.decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"^(detr\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"^backbone\.0\.body\.", "detr.backbone.model."),
)
_BACKBONE = "detr.backbone.model."


def _renamed(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def resnet_from_timm(name: str) -> str:
    """Name in transformers' ResNet of a timm or torchvision ResNet tensor; other names are returned unchanged."""
    return _renamed(name, _RESNET)


def from_transformers_names(state: dict[str, torch.Tensor], timm: bool) -> dict[str, torch.Tensor]:
    """Tensors of transformers' DETR under our names; `timm` says whether its backbone is a timm model."""
    inner = f"{_BACKBONE}_backbone."
    if not any(name.startswith("model.") for name in state):  # a model without heads
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    renamed = {_renamed(name, _TRANSFORMERS): tensor for name, tensor in state.items()}
    if not timm:
        return renamed
    return {name.replace(_BACKBONE, inner) if inner not in name else name: t for name, t in renamed.items()}


def to_transformers_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors under the names of transformers' DETR in memory."""
    renamed = {}
    for name, tensor in state.items():
        theirs = name.replace(f"{_BACKBONE}_backbone.", _BACKBONE).replace(
            "query_embeddings.", "query_position_embeddings."
        )
        renamed["model." + theirs.removeprefix("detr.") if theirs.startswith("detr.") else theirs] = tensor
    return renamed


def from_original_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the authors' DETR under our names.

    Packed projections are split into query, key and value, and the ResNet gets the names of transformers.

    Raises:
        KeyMismatchError: A packed projection cannot be split into three parts.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        ours = _renamed(name, _ORIGINAL)
        if ours.startswith(_BACKBONE):
            ours = _BACKBONE + resnet_from_timm(ours.removeprefix(_BACKBONE))
        if match := re.match(r"(.*_attn)\.in_proj_(weight|bias)$", ours):
            if len(tensor) % 3:
                raise KeyMismatchError(f"{name} must hold queries, keys and values, got {tuple(tensor.shape)}")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{match[1]}.{part}_proj.{match[2]}"] = piece.contiguous()
        else:
            renamed[ours] = tensor
    return renamed


__all__ = ["from_original_names", "from_transformers_names", "resnet_from_timm", "to_transformers_names"]
