"""Axial rotary positions (RoPE, https://arxiv.org/abs/2104.09864) of patches, as DINOv3 has them (arXiv 2508.10104).

Shapes: N patches, K = width of a head, a multiple of 4.
"""

import math

import torch

from ..configuration.configuration_vit import HubViTConfig

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosine and sine of each patch's angles, (N, K) each


def patch_coordinates(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Coordinates (row, column) of the patch centres, (rows * columns, 2), fp32; -1 to 1 from edge to edge."""
    row = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) / rows
    column = (torch.arange(columns, device=device, dtype=torch.float32) + 0.5) / columns
    grid = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1)
    return 2.0 * grid.flatten(0, 1) - 1.0


def vary_coordinates(coordinates: torch.Tensor, config: HubViTConfig) -> torch.Tensor:
    """Moves, stretches and scales the coordinates (N, 2) at random, as DINOv3 does in training.

    One draw holds for all images of a call: a shift within +-`rotary_shift` and a factor within
    1 / `rotary_jitter` to `rotary_jitter` for each axis, and a common factor within 1 / `rotary_rescale` to
    `rotary_rescale`; the factors are uniform in their logarithm. The draws are made on the CPU, so that they are the
    same on every device.
    """
    device = coordinates.device
    if config.rotary_shift is not None:
        shift = torch.empty(1, 2).uniform_(-config.rotary_shift, config.rotary_shift)
        coordinates = coordinates + shift.to(device, non_blocking=True)
    for factor, size in ((config.rotary_jitter, (1, 2)), (config.rotary_rescale, (1, 1))):
        if factor is not None:
            reach = math.log(factor)
            drawn = torch.empty(size).uniform_(-reach, reach).exp()
            coordinates = coordinates * drawn.to(device, non_blocking=True)
    return coordinates


def rotary_angles(config: HubViTConfig, rows: int, columns: int, device: torch.device, training: bool) -> Rotary:
    """Cosine and sine, (rows * columns, K) fp32 each, of the angles by which `rotate` turns queries and keys.

    The angles of a patch at (row, column) are 2 pi * row * f_j, then 2 pi * column * f_j, for the frequencies
    f_j = theta^(-4 j / K), j from 0 to K / 4 - 1; the second half of the channels repeats the first.

    Args:
        config: Configuration with `rotary_theta` and, for training, the variation of the coordinates.
        rows: Number of rows of patches.
        columns: Number of columns of patches.
        device: Device of the result.
        training: Whether the coordinates are varied, see `vary_coordinates`.
    """
    width = config.hidden_size // config.num_attention_heads
    steps = torch.arange(0, 1, 4 / width, device=device, dtype=torch.float32)  # (K / 4,)
    frequencies = 1 / config.rotary_theta**steps
    coordinates = patch_coordinates(rows, columns, device)
    if training:
        coordinates = vary_coordinates(coordinates, config)
    angles = 2 * math.pi * coordinates[:, :, None] * frequencies  # (N, 2, K / 4)
    angles = angles.flatten(1, 2).tile(2)
    return angles.cos(), angles.sin()


def rotate(states: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Turns each pair of channels (k, k + K / 2) of the patches by its angle; tokens before the patches stay.

    Args:
        states: Queries or keys (B, H, P + N, K), P prefix tokens and N patches.
        rotary: Cosine and sine of the patches, see `rotary_angles`.
    """
    cosine, sine = (part.to(states.dtype) for part in rotary)
    prefix = states.shape[2] - cosine.shape[0]
    patches = states[:, :, prefix:]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat((-second, first), dim=-1) * sine
    return torch.cat((states[:, :, :prefix], turned), dim=2)


__all__ = ["Rotary", "patch_coordinates", "rotary_angles", "rotate", "vary_coordinates"]
