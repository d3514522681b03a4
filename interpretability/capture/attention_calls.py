"""One attention of a forward pass, whose weights are computed when asked for, in whole or in part.

Shapes: B images, H heads, Q queries, N keys (tokens), K = width of a head.
"""

from dataclasses import dataclass

import torch

_CHUNK_BYTES = 1 << 26  # of the weights that are held at once to average over heads


@dataclass
class AttentionCall:
    """What one attention of a model was given; either `query` and `key`, or the `computed` weights, are known.

    Args:
        index: Which attention of the forward pass, from 0.
        tokens: (B, N, D), what was projected to this attention's values, in the graph; None where it is not known.
        query: (B, H, Q, K).
        key: (B, H, N, K).
        mask: Added to the scores, or True where a key may be seen; broadcasts to (B, H, Q, N).
        scale: Factor of the scores.
        computed: (B, H, Q, N) or (B * H, Q, N), rows sum to 1; itself in the graph, so that gradients by it exist.
        batch: B, where `computed` does not tell it.
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
        """(B, H, Q, N)."""
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
        """(B, H, Q, N) in fp32, or only some rows of Q and some heads; each row sums to 1."""
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
        """(B, Q, N), the mean over heads, of which only a few are held at once."""
        batch, heads, queries, keys = self.shape
        step = max(1, _CHUNK_BYTES // (4 * batch * queries * keys))
        total = self.weights(heads=slice(0, step)).sum(dim=1)
        for start in range(step, heads, step):
            total += self.weights(heads=slice(start, start + step)).sum(dim=1)
        return total / heads


def attention_weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """softmax(Q K^T * scale + mask), in fp32 or fp64: (B, H, Q, K) and (B, H, N, K) to (B, H, Q, N)."""
    scores = torch.matmul(query, key.transpose(-2, -1)) * scale
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


__all__ = ["AttentionCall", "attention_weights"]
