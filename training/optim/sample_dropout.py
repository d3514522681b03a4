"""Dropout drawn for each sample by itself, so that it does not depend on how a batch is cut.

torch draws one mask for a whole tensor from the state of one generator: a batch of 8 in two pieces of 4, or on two
processes, gets other masks than in one. Here each sample has a generator of its own for the time of a forward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SampleDropout(TorchFunctionMode):
    """Within this context the dropout of each sample, that of fused attention included, is drawn from its own seed.

    A tensor belongs to samples if its first dimension is their number or a multiple of it, such as samples x heads.
    Others, which no model here drops from, are left to torch. A backward pass that computes activations again would
    draw other masks: not for activation checkpointing.

    Args:
        seeds: One per sample of the piece at hand.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces the two functions of torch that drop; calls all others."""
        kwargs = kwargs or {}
        if func is functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and _rate(args, kwargs):
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002
        if not training or p == 0 or input.shape[0] == 0 or input.shape[0] % len(self.generators):
            return functional.dropout(input, p, training, inplace)
        rows = (input.shape[0] // len(self.generators), *input.shape[1:])
        draws = torch.cat([torch.rand(rows, generator=generator) for generator in self.generators])
        kept = (draws >= p).to(input.device, input.dtype) / (1 - p)
        return input.mul_(kept) if inplace else input * kept

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """softmax(Q K^T * scale + mask), dropped from, times V: (B, H, N, K) each."""
        if is_causal or enable_gqa:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value


def _rate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    return float(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))


def drops_activations(model: nn.Module) -> bool:
    """Whether a model has dropout: a layer of it, or attention whose weights are dropped from."""
    modules = list(model.modules())
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules)
    return layers or any(isinstance(rate := getattr(m, "dropout", 0.0), float) and rate > 0 for m in modules)


__all__ = ["SampleDropout", "drops_activations"]
