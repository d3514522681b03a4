"""Layers of a vision transformer other than attention: patch embedding, MLPs, LayerScale and stochastic depth.

Shapes: B images, C channels, N tokens, D = hidden size, M = width of the MLP.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from transformers.activations import ACT2FN

from ..configuration.configuration_vit import HubViTConfig


class HubViTPatchEmbedding(nn.Module):
    """Patch embedding: cuts an image into patches and projects each linearly (ViT, eq. 1).

    `weight` is (D, C * patch height * patch width): the matrix of a linear layer, or a flattened convolution kernel.
    """

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.patch_hw = config.patch_hw
        pixels = config.num_channels * config.patch_hw[0] * config.patch_hw[1]
        self.weight = nn.Parameter(torch.empty(config.hidden_size, pixels))
        self.bias = nn.Parameter(torch.empty(config.hidden_size)) if config.patch_bias else None

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, height, width) to (B, N, D), patches row by row; the sides are multiples of the patch's."""
        if pixel_values.device.type == "cpu" and runs_in_half_precision(pixel_values):
            return self.project_patches(pixel_values)  # about twice as fast there; elsewhere convolution is faster
        return self.convolve(pixel_values)

    def project_patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Projects the patches by a linear layer: cuts them, flattens each channel by channel, multiplies."""
        batch, channels, height, width = pixel_values.shape
        patch_height, patch_width = self.patch_hw
        rows, columns = height // patch_height, width // patch_width
        patches = pixel_values.reshape(batch, channels, rows, patch_height, columns, patch_width)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)  # (B, N, C * patch pixels)
        return nn.functional.linear(patches, self.weight, self.bias)

    def convolve(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Projects the patches by a convolution whose kernel size and stride are the patch's; as `project_patches`."""
        kernel = self.weight.view(-1, self.num_channels, *self.patch_hw)
        grid = nn.functional.conv2d(pixel_values, kernel, self.bias, stride=self.patch_hw)
        return grid.flatten(2).transpose(1, 2)  # (B, D, rows, columns) to (B, N, D)


def runs_in_half_precision(states: torch.Tensor) -> bool:
    """Whether matrix products of these states run in a 16-bit type, by their own dtype or under autocast."""
    return states.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(states.device.type)


class HubViTMLP(nn.Module):
    """MLP of two linear layers with an activation between them: (B, N, D) to (B, N, M) to (B, N, D)."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_size)
        self.fc2 = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, N, D) to (B, N, D)."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class HubViTSwiGLU(nn.Module):
    """Gated MLP (Shazeer 2020, https://arxiv.org/abs/2002.05202): (silu(x W_gate) * (x W_up)) W_down."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.mlp_size)
        self.up_proj = nn.Linear(config.hidden_size, config.mlp_size)
        self.down_proj = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, N, D) to (B, N, D)."""
        gated = nn.functional.silu(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(gated)


class HubViTLayerScale(nn.Module):
    """LayerScale: a learned factor per channel of a residual branch (CaiT, https://arxiv.org/abs/2103.17239, eq. 4)."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, N, D) to (B, N, D)."""
        return hidden_states * self.scale


class KeptSamples(NamedTuple):
    """Samples whose branch stochastic depth keeps.

    Args:
        mask: Whether each sample is kept, (B,) bool.
        rows: Indices of the kept samples, ascending, (K,) int64.
    """

    mask: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device) -> "KeptSamples":
        """Copies both tensors to a device, which does not have to finish its work first."""
        return KeptSamples(self.mask.to(device, non_blocking=True), self.rows.to(device, non_blocking=True))


def draw_kept_samples(
    samples: int,
    drop_path: float,
    batch_window: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> KeptSamples:
    """Draws the samples that keep their branch, on the CPU: the number of rows must be known before a device is asked.

    Args:
        samples: Number of samples B.
        drop_path: Probability to drop a sample's branch, in (0, 1).
        batch_window: (first, total) where these B samples are a part of a batch of `total`: with the same state of the
            generator, samples are then dropped as in the whole batch, however it is split.
        generator: Generator of the CPU; None takes torch's.
    """
    first, total = batch_window or (0, samples)
    mask = torch.rand(total, generator=generator)[first : first + samples] < 1 - drop_path
    return KeptSamples(mask, torch.tensor([row for row, kept in enumerate(mask.tolist()) if kept], dtype=torch.int64))


def add_residual(
    hidden_states: torch.Tensor,
    branch: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]],
    drop_path: float = 0.0,
    skip: bool = True,
    batch_window: tuple[int, int] | None = None,
    kept: KeptSamples | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Computes x + branch(x), with stochastic depth per sample (Huang et al. 2016, https://arxiv.org/abs/1603.09382).

    Each sample's branch is dropped with probability `drop_path` and the others are scaled by 1 / (1 - drop_path).

    Args:
        hidden_states: Input x of the branch, (B, N, D).
        branch: Function that maps (b, N, D) to (b, N, D), each sample independently, and to a second result, which
            is returned.
        drop_path: Probability to drop a sample's branch, in [0, 1).
        skip: Whether dropped samples are left out of the branch's computation. A compiled graph, whose shapes are
            fixed, computes them in any case.
        batch_window: (first, total) of these samples, see `draw_kept_samples`.
        kept: Kept samples, on the device of the input; None draws them.
    """
    if drop_path == 0:
        update, more = branch(hidden_states)
        return hidden_states + update, more
    keep, batch, device = 1 - drop_path, hidden_states.shape[0], hidden_states.device
    if torch.compiler.is_compiling() or not skip:
        if kept is not None:
            mask = kept.mask
        elif torch.compiler.is_compiling():
            first, total = batch_window or (0, batch)
            mask = torch.rand(total, device=device)[first : first + batch] < keep
        else:
            mask = draw_kept_samples(batch, drop_path, batch_window).mask.to(device, non_blocking=True)
        factor = (mask / keep).to(hidden_states.dtype).view(-1, 1, 1)
        update, more = branch(hidden_states)
        return hidden_states + update * factor, more
    rows = (kept or draw_kept_samples(batch, drop_path, batch_window).to(device)).rows
    if not len(rows):  # attention implementations fail on no samples, and the branch needs gradients: zeros
        update, more = branch(hidden_states)
        return hidden_states + (update * 0.0).to(hidden_states.dtype), more
    update, more = branch(hidden_states.index_select(0, rows))  # indexing by brackets sorts in its backward pass
    return hidden_states.index_add(0, rows, update.to(hidden_states.dtype), alpha=1 / keep), more


__all__ = [
    "HubViTLayerScale",
    "HubViTMLP",
    "HubViTPatchEmbedding",
    "HubViTSwiGLU",
    "KeptSamples",
    "add_residual",
    "draw_kept_samples",
    "runs_in_half_precision",
]
