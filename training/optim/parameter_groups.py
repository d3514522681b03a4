"""Parameter groups: selection of the parameters that learn, their weight decay and their learning rates."""

import re
from typing import Any

from torch import nn

from ...configuration.model_task import DETECTION, model_task

# Learned tensors that weight decay would only shrink: DeiT's list, by the names in this package and other libraries.
_NO_DECAY = re.compile(
    r"query_anchors\.weight$|(cls|dist|distillation|register|reg|mask|probe)_tokens?$|pos(ition)?_embed(dings?)?$"
)
# Backbones of detectors, by the names in this package and in transformers; YOLOS is a ViT with tokens for boxes.
_BACKBONE = re.compile(r"(^|\.)(backbone|conv_encoder)\.|^vit\.")
_HEAD = re.compile(r"(^|\.)(classifier|distillation_classifier|cls_classifier|head|head_dist|fc)(\.|$)")


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    backbone_factor: float | None = None,
    decay_all: bool = False,
    matrices_apart: bool = False,
) -> list[dict[str, Any]]:
    """Builds groups for an optimizer, each with its learning rate, weight decay and name.

    Parameters of equal rate and decay share a group, as an optimizer runs its kernels once per group.

    Norms, biases and other vectors, tokens and position embeddings have no weight decay (DeiT, table 9). With
    layer-wise decay the head has the full learning rate, and each layer has `layer_decay` times that of the layer above
    it (BEiT, https://arxiv.org/abs/2106.08254, appendix); embeddings are the lowest level.

    Args:
        model: Model; frozen parameters are left out.
        lr: Learning rate of the head.
        weight_decay: Weight decay of matrices.
        layer_decay: Factor of the learning rate from one layer to the next lower one, in (0, 1].
        backbone_factor: Learning rate of everything except the head, relative to the head's; None leaves it to
            `layer_decay`. Encoder and decoder of a detector count as head.
        decay_all: Whether vectors, tokens and embeddings have weight decay too.
        matrices_apart: Whether the matrices inside the layers, which Muon orthogonalises, have groups of their own,
            marked by `matrices`.
    """
    depth = depth_of(model)
    detects = model_task(model) == DETECTION
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = decay_all or (parameter.ndim > 1 and _NO_DECAY.search(name) is None)
        level, head = level_of(name, depth), _BACKBONE.search(name) is None if detects else is_head(name)
        scale = layer_decay ** (depth + 1 - level)
        if backbone_factor is not None and not head:
            scale *= backbone_factor
        decay, matrix = weight_decay if decays else 0.0, matrices_apart and decays and 0 < level <= depth
        group = groups.setdefault(
            (scale, decay, matrix),
            {
                "params": [],
                "lr": lr * scale,
                "scale": scale,
                "weight_decay": decay,
                "name": f"rate x {scale:.6g}, decay {decay:g}{', matrices of layers' if matrix else ''}",
                "matrices": matrix,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def freeze_parameters(model: nn.Module, lowest: int | str) -> int:
    """Excludes parameters from training.

    Args:
        model: Model whose parameters are frozen, in place.
        lowest: "backbone" for all except the head; else the number of lowest parts to freeze, of which the embeddings
            are the first and each layer is another.

    Returns:
        Number of frozen values.
    """
    depth, frozen = depth_of(model), 0
    for name, parameter in model.named_parameters():
        below = not is_head(name) if lowest == "backbone" else level_of(name, depth) < int(lowest)
        if below and parameter.requires_grad:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen


def keep_frozen_statistics(model: nn.Module) -> None:
    """Puts frozen batch norms into evaluation mode, so that their statistics do not change."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.weight is not None:
            module.train(module.weight.requires_grad)


def is_head(name: str) -> bool:
    """Whether a parameter belongs to a classifier's last layer, judged by its name."""
    return _HEAD.search(name) is not None and layer_of(name) is None


def depth_of(model: nn.Module) -> int:
    """Returns the number of layers, judged by the parameters' names."""
    layers = (layer_of(name) for name, _ in model.named_parameters())
    return 1 + max((layer for layer in layers if layer is not None), default=-1)


def layer_of(name: str) -> int | None:
    """Returns the index of the layer in a parameter's name; None for embeddings, last norm and head."""
    match = re.search(r"(?:^|\.)(?:layers?|blocks|stages)\.(\d+)\.", name)
    return int(match[1]) if match else None


def level_of(name: str, depth: int) -> int:
    """Returns 0 for embeddings, 1 to `depth` for layers, and `depth` + 1 for the last norm, pooler and head."""
    layer = layer_of(name)
    if layer is not None:
        return layer + 1
    after = re.search(r"(?:^|\.)pool", name)  # attention pooling has a token of its own
    return 0 if re.search(r"embed|token|stem", name) and not after else depth + 1


__all__ = [
    "depth_of",
    "freeze_parameters",
    "is_head",
    "keep_frozen_statistics",
    "layer_of",
    "level_of",
    "parameter_groups",
]
