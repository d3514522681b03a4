"""The decoder of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872, section 3.2), and with queries that are
boxes (DAB-DETR, Liu et al. 2022, https://arxiv.org/abs/2201.12329).

Shapes: B images, T queries, N tokens of the encoder ("memory"), D width, L layers.
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
    """Linear layers with ReLU between: (..., first width) to (..., last width)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., first width) to (..., last width)."""
        for layer in self.layers[:-1]:
            hidden_states = nn.functional.relu(layer(hidden_states))
        return self.layers[-1](hidden_states)


@dataclass
class DecoderStates:
    """What a decoder computed.

    Args:
        normed: Each layer's output after the decoder's LayerNorm, (L, B, T, D).
        boxes: Each layer's boxes, (L, B, T, 4) in (0, 1), where queries are boxes.
        states: The queries and each layer's output before that norm, (B, T, D).
        self_maps: Each layer's weights among queries, (B, H, T, T), or None.
        cross_maps: Each layer's weights on the memory, (B, H, T, N), or None.
    """

    normed: torch.Tensor
    boxes: torch.Tensor | None
    states: list[torch.Tensor] = field(default_factory=list)
    self_maps: list[torch.Tensor | None] = field(default_factory=list)
    cross_maps: list[torch.Tensor | None] = field(default_factory=list)


class HubDetrDecoderLayer(GradientCheckpointingLayer):
    """Post-norm decoder layer: queries look at each other, then at the image."""

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
        """(B, T, D) to (B, T, D), and the weights among queries and on the memory when asked for.

        `anchor_positions` (B, T, D) tell where on the image a query that is a box looks.
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
    """A stack of decoder layers whose outputs all pass one LayerNorm; the stream between layers does not."""

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
        """Decodes.

        Args:
            content: (B, T, D), what the queries start as.
            queries: (B, T, D), their learned positions; or (B, T, 4), boxes in [0, 1].
            memory: (B, N, D).
            memory_positions: (B or 1, N, D).
            self_mask: Added to the scores among queries, or None.
            cross_mask: Added to the scores on the memory, or None.
            output_attentions: Return the weights under any implementation.
            **kwargs: For the attention implementation.
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
        """Positions (B, T, D) among the queries, and on the image where those differ.

        Args:
            hidden_states: (B, T, D), what the layer is given.
            queries: (B, T, D), learned positions.
            first: Whether it is the first layer.
        """
        return queries, None

    def moved(self, normed: torch.Tensor, queries: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """The boxes (B, T, 4) to which a layer moved the queries; None where they are no boxes."""
        return None


class HubDetrAnchorDecoder(HubDetrDecoder):
    """Queries that are boxes. Differs from `HubDetrDecoder`: positions come from the box, which each layer moves.

    Where a query looks is scaled by its content and by its width and height (DAB-DETR, eq. 4 to 6), so that large
    boxes look at a large part of the image. Gradients do not pass from one layer's box to the next.
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
        """Positions among the queries and on the image, (B, T, D) each.

        Args:
            hidden_states: (B, T, D), what the layer is given.
            queries: (B, T, 4), boxes (center x, center y, width, height) in [0, 1].
            first: Whether it is the first layer.
        """
        boxes = queries.float()
        dtype, half = hidden_states.dtype, self.config.d_model // 2
        x, y, width, height = sine_embedding(boxes, half, self.config.position_temperature).to(dtype).unbind(-2)
        positions = self.query_position_head(torch.cat([y, x, width, height], dim=-1))
        wanted = self.size_head(hidden_states).sigmoid()  # (B, T, 2), the width and height to look for
        ratio = (wanted / boxes[..., 2:].clamp(min=1e-3)).to(dtype)
        looks = torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1)
        return positions, looks if first else looks * self.position_scale(hidden_states)

    def moved(self, normed: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """The boxes (B, T, 4) in (0, 1) to which a layer moved the queries."""
        return torch.sigmoid(self.bbox_predictor(normed).float() + logit(queries.float()))


__all__ = ["DecoderStates", "HubDetrAnchorDecoder", "HubDetrDecoder", "HubDetrHead"]
