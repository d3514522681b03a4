"""Which parameters decay and how fast each layer learns."""

import re
from typing import Any

from torch import nn

# Learned tensors that weight decay would only shrink: DeiT's list, by our names and those of other libraries.
_NO_DECAY = re.compile(r"(cls|dist|distillation|register|reg|mask)_tokens?$|pos(ition)?_embed(dings?)?$")


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its learning rate, weight decay and name.

    Norms, biases and other vectors, tokens and position embeddings do not decay (DeiT, table 9). With layer-wise
    decay the head has the full rate and each layer below `layer_decay` times that of the one above it (BEiT,
    https://arxiv.org/abs/2106.08254, appendix); embeddings are the lowest.

    Args:
        model: Frozen parameters are left out.
        lr: Of the head.
        weight_decay: Of matrices.
        layer_decay: In (0, 1].
    """
    depth = 1 + max(
        (layer for name, _ in model.named_parameters() if (layer := layer_of(name)) is not None), default=-1
    )
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and _NO_DECAY.search(name) is None
        level = _level(name, depth)
        scale = layer_decay ** (depth + 1 - level)
        group = groups.setdefault(
            (level, decays),
            {
                "params": [],
                "lr": lr * scale,
                "scale": scale,
                "weight_decay": weight_decay if decays else 0.0,
                "name": f"level {level}, {'decay' if decays else 'no decay'}",
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def layer_of(name: str) -> int | None:
    """The number of the layer that a parameter's name tells, or None for embeddings, last norm and head."""
    match = re.search(r"(?:^|\.)(?:layers?|blocks)\.(\d+)\.", name)
    return int(match[1]) if match else None


def _level(name: str, depth: int) -> int:
    """0 for embeddings, 1 to `depth` for layers, `depth` + 1 for the last norm, pooler and head."""
    layer = layer_of(name)
    if layer is not None:
        return layer + 1
    return 0 if re.search(r"embed|token", name) else depth + 1


__all__ = ["layer_of", "parameter_groups"]
