"""Multi-head self-attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2).

Shapes: B images, N tokens, D = hidden size, H heads, K = D / H.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..configuration.configuration_vit import HubViTConfig
from .rotary_positions import Rotary, rotate

# torch's fused attention is fast on a CPU in bf16 only where the processor has matrix tiles (AMX).
_capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
_HAS_MATRIX_TILES = bool(_capabilities.get("amx_tile", False))
# Above this many bytes of scores the fused attention, which never stores them, is always used.
_MAX_SCORE_BYTES = 1 << 28


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes softmax(Q K^T * scaling) V, and returns the attention weights too.

    Takes (B, H, N, K) tensors; returns the output (B, N, H, K) and the weights (B, H, N, N), whose rows sum to 1
    (before dropout), in the dtype of the query.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (B, H, N, N)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2), weights


def product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, dropout: float
) -> torch.Tensor:
    """Computes the output of `eager_attention` in fewer passes, without the weights: (B, H, N, K) to (B, N, H, K)."""
    batch, heads, tokens, width = query.shape
    query, key, value = (states.reshape(batch * heads, tokens, width) for states in (query, key, value))
    scores = torch.baddbmm(query.new_empty(1), query, key.transpose(1, 2), beta=0, alpha=scaling)
    weights = scores.softmax(dim=-1)
    if dropout:
        weights = nn.functional.dropout(weights, p=dropout)
    return torch.bmm(weights, value).view(batch, heads, tokens, width).transpose(1, 2)


def products_are_faster(query: torch.Tensor) -> bool:
    """Whether plain matrix products are faster than torch's fused attention for a query (B, H, N, K).

    The measurements are in docs/speed.md.
    """
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    batch, heads, tokens, _ = query.shape
    fits = batch * heads * tokens * tokens * query.element_size() <= _MAX_SCORE_BYTES
    learning = torch.is_grad_enabled() and query.requires_grad
    return fits and (learning or not _HAS_MATRIX_TILES)


class HubViTAttention(nn.Module):
    """Self-attention of one layer, through the attention interface of transformers.

    A call with `output_attentions` uses eager attention, whichever implementation is set.
    """

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_probs_dropout_prob
        self.is_causal = False  # read by the implementations of transformers
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.has_key_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        normed = partial(nn.LayerNorm, self.head_dim, eps=config.layer_norm_eps) if config.qk_norm else nn.Identity
        self.q_norm, self.k_norm = normed(), normed()

    def forward(
        self,
        hidden_states: torch.Tensor,
        output_attentions: bool = False,
        rotary: Rotary | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Maps (B, N, D) to (B, N, D).

        Args:
            hidden_states: Tokens (B, N, D).
            output_attentions: Whether to return the weights, which "eager" attention returns in any case.
            rotary: Cosine and sine by which queries and keys of the patches are turned; None turns none.
            **kwargs: Arguments of the attention implementation.

        Returns:
            Tokens (B, N, D), and the weights (B, H, N, N) or None.
        """
        batch, tokens, _ = hidden_states.shape
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        # of the projections: with tensor parallelism each device has some heads only
        heads = (batch, tokens, query.shape[-1] // self.head_dim, self.head_dim)
        query = self.q_norm(query.view(heads)).transpose(1, 2)  # (B, H, N, K)
        key = self.k_norm(key.view(heads)).transpose(1, 2)
        value = value.view(heads).transpose(1, 2)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        dropout = self.dropout if self.training else 0.0

        implementation = "eager" if output_attentions else self.config._attn_implementation
        if implementation == "sdpa" and products_are_faster(query):
            context, weights = product_attention(query, key, value, self.scaling, dropout), None
        else:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
            context, weights = attend(
                self, query, key, value, None, scaling=self.scaling, dropout=dropout, **kwargs
            )  # (B, N, H, K)
        return self.o_proj(context.flatten(2)), weights


__all__ = ["HubViTAttention", "eager_attention"]
