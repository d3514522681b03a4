"""Attention pooling: a learned query gathers the tokens of an image (Set Transformer, https://arxiv.org/abs/1810.00825).

Vision transformers have it as "MAP head" (https://arxiv.org/abs/2106.04560, section 3.3), among them SigLIP
(https://arxiv.org/abs/2303.15343). Shapes: B images, N tokens, D = hidden size.
"""

import torch
from torch import nn

from ..configuration.configuration_vit import HubViTConfig
from .layers import HubViTMLP


class HubViTAttentionPooling(nn.Module):
    """Multi-head attention of one learned query over all tokens, then an MLP on a residual branch."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.probe_token = nn.Parameter(torch.zeros(1, 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.o_proj = nn.Linear(width, width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = HubViTMLP(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps tokens (B, N, D) to the pooled state (B, D)."""
        batch = hidden_states.shape[0]
        # projected for each image: the product of a single row depends on where the weights lie in memory
        query = self._by_head(self.q_proj(self.probe_token.to(hidden_states.dtype).expand(batch, -1, -1)))
        key, value = self._by_head(self.k_proj(hidden_states)), self._by_head(self.v_proj(hidden_states))
        gathered = nn.functional.scaled_dot_product_attention(query, key, value)  # (B, heads, 1, K)
        pooled = self.o_proj(gathered.transpose(1, 2).flatten(2))
        pooled = pooled + self.mlp(self.layernorm(pooled))
        return pooled[:, 0]

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        """Splits (B, N, D) into (B, heads, N, D / heads)."""
        batch, tokens, width = states.shape
        return states.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)


__all__ = ["HubViTAttentionPooling"]
