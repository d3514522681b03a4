"""Decoders of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872, section 3.2) and of DAB-DETR.

The queries of DAB-DETR (Liu et al. 2022, https://arxiv.org/abs/2201.12329) are boxes.

Shapes: B images, T queries, N tokens of the encoder ("memory"), D width, H heads, L layers.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import logit
from .detr_attention import HubDetrAnchorCrossAttention, HubDetrAttention
from .detr_encoder import HubDetrMLP, sine_embedding


class HubDetrHead(nn.Module):
    """MLP of linear layers with ReLU between them: (..., first width) to (..., last width)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (..., first width) to (..., last width)."""
        for layer in self.layers[:-1]:
            hidden_states = nn.functional.relu(layer(hidden_states))
        return self.layers[-1](hidden_states)


@dataclass
class DecoderStates:
    """Output of a decoder.

    Args:
        normed: Each layer's output after the decoder's LayerNorm, (L, B, T, D).
        boxes: Each layer's boxes, (L, B, T, 4) in (0, 1); None where queries are not boxes.
        states: Input of the first layer and each layer's output before that LayerNorm, (B, T, D) each.
        self_maps: Each layer's self-attention weights, (B, H, T, T), or None.
        cross_maps: Each layer's cross-attention weights on the memory, (B, H, T, N), or None.
    """

    normed: torch.Tensor
    boxes: torch.Tensor | None
    states: list[torch.Tensor] = field(default_factory=list)
    self_maps: list[torch.Tensor | None] = field(default_factory=list)
    cross_maps: list[torch.Tensor | None] = field(default_factory=list)


class HubDetrDecoderLayer(GradientCheckpointingLayer):
    """Post-norm decoder layer: self-attention among the queries, cross-attention to the image, then an MLP."""

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        heads = config.decoder_attention_heads
        anchored = config.anchor_queries
        self.self_attn = HubDetrAttention(config, heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = (HubDetrAnchorCrossAttention if anchored else HubDetrAttention)(config, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.mlp = HubDetrMLP(config, config.decoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        query_positions: torch.Tensor,
        anchor_positions: torch.Tensor | None,
        memory: torch.Tensor,
        memory_positions: torch.Tensor,
        self_mask: torch.Tensor | None,
        cross_mask: torch.Tensor | None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Maps (B, T, D) to (B, T, D); returns the self- and cross-attention weights too, or None.

        `anchor_positions` (B, T, D) are the positions on the image of queries that are boxes; None for other queries.
        """
        placed = hidden_states + query_positions
        update, self_map = self.self_attn(placed, placed, hidden_states, self_mask, output_attentions, **kwargs)
        hidden_states = self.self_attn_layer_norm(hidden_states + self.dropout(update))
        if anchor_positions is not None:
            sources = [hidden_states, memory, anchor_positions, memory_positions.expand_as(memory)]
        else:
            sources = [hidden_states + query_positions, memory + memory_positions, memory]
        update, cross_map = self.encoder_attn(*sources, cross_mask, output_attentions, **kwargs)
        hidden_states = self.encoder_attn_layer_norm(hidden_states + self.dropout(update))
        hidden_states = self.final_layer_norm(hidden_states + self.dropout(self.mlp(hidden_states)))
        return hidden_states, self_map, cross_map


class HubDetrDecoder(nn.Module):
    """Stack of decoder layers. One LayerNorm is applied to each layer's output, but not between the layers."""

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(HubDetrDecoderLayer(config) for _ in range(config.decoder_layers))
        self.layernorm = nn.LayerNorm(config.d_model)

    def forward(
        self,
        content: torch.Tensor,
        queries: torch.Tensor,
        memory: torch.Tensor,
        memory_positions: torch.Tensor,
        self_mask: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> DecoderStates:
        """Decodes the queries of a batch.

        Args:
            content: Initial content of the queries, (B, T, D).
            queries: Learned positions of the queries, (B, T, D); or boxes in [0, 1], (B, T, 4).
            memory: Output of the encoder, (B, N, D).
            memory_positions: Positions of the memory, (B or 1, N, D).
            self_mask: Additive mask of the self-attention scores, or None.
            cross_mask: Additive mask of the cross-attention scores, or None.
            output_attentions: Whether to return the weights under any implementation.
            **kwargs: Further arguments of the attention implementation.
        """
        shared = (memory, memory_positions, self_mask, cross_mask, output_attentions)
        result = DecoderStates(content, None, [content])
        normed, boxes, hidden_states = [], [], content
        for index, layer in enumerate(self.layers):
            positions, looks = self.positions(hidden_states, queries, first=index == 0)
            hidden_states, self_map, cross_map = layer(hidden_states, positions, looks, *shared, **kwargs)
            normed.append(self.layernorm(hidden_states))
            if (moved := self.moved(normed[-1], queries)) is not None:
                boxes.append(moved)
                queries = moved.detach()
            result.states.append(hidden_states)
            result.self_maps.append(self_map)
            result.cross_maps.append(cross_map)
        result.normed = torch.stack(normed)
        result.boxes = torch.stack(boxes) if boxes else None
        return result

    def positions(
        self,
        hidden_states: torch.Tensor,  # noqa: ARG002
        queries: torch.Tensor,
        first: bool,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Positions (B, T, D) for self-attention, and for cross-attention; None where both are the same.

        Args:
            hidden_states: Input of the layer, (B, T, D).
            queries: Learned positions, (B, T, D).
            first: Whether the layer is the first.
        """
        return queries, None

    def moved(self, normed: torch.Tensor, queries: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """Boxes (B, T, 4) to which a layer moved the queries; None where queries are not boxes."""
        return None


class HubDetrAnchorDecoder(HubDetrDecoder):
    """Decoder of queries that are boxes. Differs from `HubDetrDecoder`: positions come from boxes that layers refine.

    The position that a query attends to is scaled by its content and by its width and height (DAB-DETR, eq. 4 to 6),
    so that large boxes attend to a large part of the image. Gradients do not pass from one layer's box to the next.
    """

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__(config)
        width = config.d_model
        self.query_position_head = HubDetrHead(2 * width, width, width)
        self.position_scale = HubDetrHead(width, width, width)
        self.size_head = HubDetrHead(width, width, 2)
        self.bbox_predictor = HubDetrHead(width, width, width, 4)

    def positions(
        self, hidden_states: torch.Tensor, queries: torch.Tensor, first: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions for self-attention and for cross-attention, (B, T, D) each.

        Args:
            hidden_states: Input of the layer, (B, T, D).
            queries: Boxes (center x, center y, width, height) in [0, 1], (B, T, 4).
            first: Whether the layer is the first.
        """
        boxes = queries.float()
        dtype, half = hidden_states.dtype, self.config.d_model // 2
        x, y, width, height = sine_embedding(boxes, half, self.config.position_temperature).to(dtype).unbind(-2)
        positions = self.query_position_head(torch.cat([y, x, width, height], dim=-1))
        wanted = self.size_head(hidden_states).sigmoid()  # (B, T, 2), width and height
        ratio = (wanted / boxes[..., 2:].clamp(min=1e-3)).to(dtype)
        looks = torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1)
        return positions, looks if first else looks * self.position_scale(hidden_states)

    def moved(self, normed: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Boxes (B, T, 4) in (0, 1) to which a layer moved the queries."""
        return torch.sigmoid(self.bbox_predictor(normed).float() + logit(queries.float()))


__all__ = ["DecoderStates", "HubDetrAnchorDecoder", "HubDetrDecoder", "HubDetrHead"]
