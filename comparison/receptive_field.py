"""Effective receptive field of a network, from gradients (Luo et al. 2016, https://arxiv.org/abs/1701.04128).

The effective receptive field of a cell of a feature map is the map of the gradient of that cell with respect to the
input; its size is the distance within which a given share of the whole gradient lies. It applies to CNNs and
transformers alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ReceptiveField:
    """Influence of pixels on the middle cell of a feature map.

    Attributes:
        influence: Mean absolute gradient over images and channels, (H, W); sums to 1.
        radius: Distance in pixels around the cell's centre that contains half of the influence.
        rms: Root mean square distance of the influence from the centre, in pixels.
    """

    influence: torch.Tensor
    radius: float
    rms: float


def effective_receptive_field(features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> ReceptiveField:
    """Computes the effective receptive field of a feature map's middle cell.

    Args:
        features: Differentiable function from images (B, C, H, W) to a feature map (B, D, h, w).
        images: Images (B, C, H, W) over which the gradient is averaged.

    Raises:
        ValueError: The middle cell depends on no pixel.
    """
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        output = features(pixels)
        row, column = output.shape[2] // 2, output.shape[3] // 2
        # A fixed random direction: in the plain sum, channels would cancel each other.
        direction = torch.randn(output.shape[1], generator=torch.Generator().manual_seed(0))
        middle = (output[:, :, row, column] * direction.to(output)).sum()
        gradient = torch.autograd.grad(middle, pixels, allow_unused=True)[0] if middle.requires_grad else None
    influence = torch.zeros(images.shape[2:]) if gradient is None else gradient.abs().mean((0, 1)).cpu().double()
    if not influence.sum() > 0:
        raise ValueError("the middle cell of the feature map depends on no pixel of the images")
    influence = influence / influence.sum()
    centre = [
        (cell + 0.5) * size / side - 0.5
        for cell, size, side in zip((row, column), images.shape[2:], output.shape[2:], strict=True)
    ]
    down, right = (
        torch.arange(size, dtype=torch.float64) - middle for size, middle in zip(influence.shape, centre, strict=True)
    )
    distance = (down[:, None] ** 2 + right[None, :] ** 2).sqrt()
    order = distance.flatten().argsort(stable=True)
    within = influence.flatten()[order].cumsum(0)
    reached = int(torch.searchsorted(within, 0.5).clamp(max=len(within) - 1))
    rms = float((influence * distance**2).sum().sqrt())
    return ReceptiveField(influence.float(), float(distance.flatten()[order][reached]), rms)


__all__ = ["ReceptiveField", "effective_receptive_field"]
