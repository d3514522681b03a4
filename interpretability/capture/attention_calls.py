"""Attention operation of a forward pass, whose weights are computed on demand, completely or in part.

Shapes: B images, H heads, Q queries, N keys (tokens), K = width of a head.
"""

from dataclasses import dataclass

import torch

_CHUNK_BYTES = 1 << 26  # most memory for the weights held at once to average over heads


@dataclass
class AttentionCall:
    """Inputs of one attention operation: either `query` and `key`, or the `computed` weights, are known.

    Args:
        index: Number of the attention operation in the forward pass, from 0.
        tokens: Tokens (B, N, D) from which the values are projected, part of the autograd graph; None if unknown.
        query: Queries (B, H, Q, K), or None.
        key: Keys (B, H, N, K), or None.
        mask: Mask that broadcasts to (B, H, Q, N): floats added to the scores, or bool with True for visible keys; None
            for no mask.
        scale: Factor of the scores.
        computed: Attention weights (B, H, Q, N) or (B * H, Q, N) whose rows sum to 1, or None; part of the autograd
            graph, so that gradients with respect to them exist.
        batch: Batch size B, needed if `computed` has three dimensions.
    """

    index: int
    tokens: torch.Tensor | None
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    scale: float = 1.0
    computed: torch.Tensor | None = None
    batch: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (B, H, Q, N) of the attention weights."""
        if self.computed is not None:
            if self.computed.ndim == 3:
                assert self.batch is not None
                return self.batch, self.computed.shape[0] // self.batch, *self.computed.shape[1:]
            batch, heads, queries, keys = self.computed.shape
            return batch, heads, queries, keys
        assert self.query is not None
        assert self.key is not None
        return (*self.query.shape[:3], self.key.shape[2])

    def weights(self, rows: slice | None = None, heads: slice | None = None) -> torch.Tensor:
        """Attention weights (B, H, Q, N) in fp32, or those of some rows and heads; each row sums to 1.

        Args:
            rows: Queries to compute; None means all.
            heads: Heads to compute; None means all.
        """
        rows, heads = rows or slice(None), heads or slice(None)
        if self.computed is not None:
            return self.computed.reshape(self.shape)[:, heads, rows].float()
        assert self.query is not None
        assert self.key is not None
        mask = self.mask
        if mask is not None:
            mask = mask[(None,) * (4 - mask.ndim)]
            mask = mask[:, heads if mask.shape[1] > 1 else slice(None), rows if mask.shape[2] > 1 else slice(None)]
        return attention_weights(self.query[:, heads, rows], self.key[:, heads], mask, self.scale).float()

    def head_mean(self) -> torch.Tensor:
        """Mean of the attention weights over heads, (B, Q, N), fp32; only a few heads are held at once."""
        batch, heads, queries, keys = self.shape
        step = max(1, _CHUNK_BYTES // (4 * batch * queries * keys))
        total = self.weights(heads=slice(0, step)).sum(dim=1)
        for start in range(step, heads, step):
            total += self.weights(heads=slice(start, start + step)).sum(dim=1)
        return total / heads


def attention_weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """softmax(Q K^T * scale + mask) in fp32 or fp64: queries (B, H, Q, K) and keys (B, H, N, K) to (B, H, Q, N)."""
    scores = torch.matmul(query, key.transpose(-2, -1)) * scale
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


__all__ = ["AttentionCall", "attention_weights"]
