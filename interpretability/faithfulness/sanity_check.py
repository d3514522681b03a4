"""The randomisation check (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292).

An explanation that stays the same when what the model has learned is destroyed explains the image, not the model.
"""

from copy import deepcopy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn


def randomised_model(model: nn.Module, share: float = 1.0, seed: int = 0) -> nn.Module:
    """A copy whose weights are shuffled inside each tensor: each keeps its values, and none its place.

    So the layers' scales stay what they were, whatever the library, and nothing that was learned is left.

    Args:
        model: Stays as it is.
        share: The part of its parameter tensors that is shuffled, counted from the output, in (0, 1].
        seed: Of the shuffling.
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
    """Spearman's correlation of each map with its counterpart: (B, h, w) twice, to (B,) in [-1, 1].

    A map without any difference has no ranks: beside one that has some it counts as 0, beside another such as 1.
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
