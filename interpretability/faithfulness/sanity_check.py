"""Sanity check by randomising the model's weights (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292).

An explanation that does not change when the learned weights are destroyed explains the image, not the model.
"""

from copy import deepcopy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn


def randomised_model(model: nn.Module, share: float = 1.0, seed: int = 0) -> nn.Module:
    """Copy of a model whose weights are shuffled inside each tensor.

    Each tensor keeps its values, so that the scales of the layers stay the same in every library, while everything that
    was learned is destroyed.

    Args:
        model: Model to copy; it is not changed.
        share: Share of the parameter tensors that are shuffled, counted from the output, in (0, 1]; 1 by default.
        seed: Random seed of the shuffling; 0 by default.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share!r}")
    copy = deepcopy(model)
    parameters = list(copy.parameters())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters[len(parameters) - max(1, round(share * len(parameters))) :]:
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy


def rank_correlation(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    """Spearman's rank correlation of each map with its counterpart: (B, h, w) each, to (B,), in [-1, 1].

    A constant map has no ranks: its correlation is 1 with another constant map and 0 with any other map.
    """
    if before.shape != after.shape:
        raise ValueError(
            f"maps before and after must have one shape, got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    first, second = (rankdata(maps.flatten(1).numpy(force=True), axis=1) for maps in (before, after))
    first, second = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (first, second))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    both_flat = ~first.any(axis=1) & ~second.any(axis=1)
    products = (first * second).sum(axis=1)
    return np.where(scale > 0, products / np.where(scale > 0, scale, 1.0), both_flat.astype(np.float64))


__all__ = ["randomised_model", "rank_correlation"]
