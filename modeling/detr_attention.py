"""Attention of DETR, with positions separate from content (DETR, appendix A.3; DAB-DETR, section 4).

Shapes: B images, T queries, N keys, D width, H heads, K = D / H.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..configuration.configuration_detr import HubDetrConfig
from .attention import eager_attention


class HubDetrAttention(nn.Module):
    """Attention whose queries and keys have positions added and whose values have none.

    A call with `output_attentions` uses eager attention, whichever implementation is set.
    """

    def __init__(self, config: HubDetrConfig, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.d_model // num_heads
        self.dropout = config.attention_dropout
        self.is_causal = False  # read by the implementations of transformers
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.o_proj = nn.Linear(config.d_model, config.d_model)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from queries to keys; returns the output (B, T, D) and the weights (B, H, T, N).

        Args:
            query: Sum of the queries' content and positions, (B, T, D).
            key: Sum of the keys' content and positions, (B, N, D).
            value: Content of the keys, (B, N, D).
            mask: Additive mask of the scores, broadcastable to (B, H, T, N); None adds nothing.
            output_attentions: Whether to return the weights under any implementation.
            **kwargs: Further arguments of the attention implementation.
        """
        queries, keys = self._split(self.q_proj(query)), self._split(self.k_proj(key))
        return self._attend(queries, keys, self._split(self.v_proj(value)), mask, output_attentions, **kwargs)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)  # (B, H, N, K)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        output_attentions: bool,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        implementation = "eager" if output_attentions else self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        dropout = self.dropout if self.training else 0.0
        scaling = query.shape[-1] ** -0.5
        context, weights = attend(self, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs)
        return self.o_proj(context.flatten(2)), weights


class HubDetrAnchorCrossAttention(HubDetrAttention):
    """Cross-attention with separate dot products for content and for position (DAB-DETR, eq. 5 and 6).

    Differs from `HubDetrAttention`: each head's query and key are content and position concatenated, 2 K wide, so
    that the content of a query does not affect the position it attends to.
    """

    def __init__(self, config: HubDetrConfig, num_heads: int) -> None:
        super().__init__(config, num_heads)
        self.q_position_proj = nn.Linear(config.d_model, config.d_model)
        self.k_position_proj = nn.Linear(config.d_model, config.d_model)

    def forward(  # type: ignore[override]
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        query_position: torch.Tensor,
        key_position: torch.Tensor,
        mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from queries to keys; returns the output (B, T, D) and the weights (B, H, T, N).

        Args:
            query: Content of the queries, (B, T, D).
            key: Content of the keys, (B, N, D), which also gives the values.
            query_position: Positions of the queries, (B, T, D).
            key_position: Positions of the keys, (B, N, D).
            mask: Additive mask of the scores, broadcastable to (B, H, T, N); None adds nothing.
            output_attentions: Whether to return the weights under any implementation.
            **kwargs: Further arguments of the attention implementation.
        """
        queries = torch.cat(
            [self._split(self.q_proj(query)), self._split(self.q_position_proj(query_position))], dim=-1
        )  # (B, H, T, 2 K)
        keys = torch.cat([self._split(self.k_proj(key)), self._split(self.k_position_proj(key_position))], dim=-1)
        return self._attend(queries, keys, self._split(self.v_proj(key)), mask, output_attentions, **kwargs)


def additive_mask(allowed: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Mask that is 0 where `allowed` (bool, any shape) is True, and elsewhere the lowest number of `dtype`.

    That number is finite, so that a row without any allowed key does not become NaN.
    """
    if allowed is None:
        return None
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


__all__ = ["HubDetrAnchorCrossAttention", "HubDetrAttention", "additive_mask"]
