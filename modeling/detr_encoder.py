"""Sine positions and encoder of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872, section 3.2).

Shapes: B images, h x w cells of the feature map, N = h w tokens, D width, H heads.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration.configuration_detr import HubDetrConfig
from .detr_attention import HubDetrAttention


def sine_embedding(places: torch.Tensor, width: int, temperature: float) -> torch.Tensor:
    """Sine embedding of numbers (...) in [0, 1], where 1 stands for 2 pi: (..., width), fp32 in [-1, 1].

    Sines and cosines alternate; their wavelengths run geometrically from 2 pi to 2 pi * temperature.
    """
    exponents = torch.arange(width // 2, device=places.device, dtype=torch.float32) * (2 / width)
    angles = places.float()[..., None] * (2 * math.pi) / temperature**exponents  # (..., width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def sine_positions(
    size: tuple[int, int], mask: torch.Tensor | None, width: int, temperature: float, device: torch.device
) -> torch.Tensor:
    """Sine positions of the cells of a feature map, relative to the part of it that shows the image.

    Args:
        size: Size (h, w) of the feature map in cells.
        mask: Mask (B, h, w), True on the image; None where there is no padding.
        width: Width D of the positions: the first half encodes the row, the second the column.
        temperature: Ratio of the longest to the shortest wavelength, `HubDetrConfig.position_temperature`.
        device: Device of the result; used only where there is no mask.

    Returns:
        Positions (B or 1, N, D), fp32. The last row and column of the image are at 1 (2 pi), whatever padding follows.
    """
    shown = torch.ones(1, *size, device=device, dtype=torch.bool) if mask is None else mask
    # Counted in whole numbers: sums of floats have no deterministic form on CUDA.
    rows, columns = (shown.cumsum(axis, dtype=torch.int32).float() for axis in (1, 2))
    rows = rows / (rows[:, -1:] + 1e-6)
    columns = columns / (columns[:, :, -1:] + 1e-6)
    halves = [sine_embedding(places, width // 2, temperature) for places in (rows, columns)]
    return torch.cat(halves, dim=-1).flatten(1, 2)


class HubDetrMLP(nn.Module):
    """Two linear layers with an activation between: (B, N, D) to (B, N, D)."""

    def __init__(self, config: HubDetrConfig, width: int) -> None:
        super().__init__()
        self.activation = ACT2FN[config.activation_function]
        self.fc1 = nn.Linear(config.d_model, width)
        self.fc2 = nn.Linear(width, config.d_model)
        self.dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, N, D) to (B, N, D)."""
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


class HubDetrEncoderLayer(GradientCheckpointingLayer):
    """Post-norm encoder layer; positions are added to the queries and keys in every layer."""

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        self.self_attn = HubDetrAttention(config, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.mlp = HubDetrMLP(config, config.encoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Maps (B, N, D) to (B, N, D); returns the weights (B, H, N, N) too when asked for."""
        placed = hidden_states + positions
        update, weights = self.self_attn(placed, placed, hidden_states, mask, output_attentions, **kwargs)
        hidden_states = self.self_attn_layer_norm(hidden_states + self.dropout(update))
        hidden_states = self.final_layer_norm(hidden_states + self.dropout(self.mlp(hidden_states)))
        return hidden_states, weights if output_attentions else None


class HubDetrEncoder(nn.Module):
    """Stack of encoder layers."""

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HubDetrEncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor | None]]:
        """Maps (B, N, D) to (B, N, D); also returns the input and each layer's output, and each layer's weights."""
        states, maps = [hidden_states], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, positions, mask, output_attentions, **kwargs)
            states.append(hidden_states)
            maps.append(weights)
        return hidden_states, states, maps


__all__ = ["HubDetrEncoder", "HubDetrEncoderLayer", "HubDetrMLP", "sine_embedding", "sine_positions"]
