"""Dropout drawn separately for each sample, so that it does not depend on how a batch is divided.

torch draws one mask for a whole tensor from the state of one generator: a batch of 8 in two parts of 4, or on two
processes, gets other masks than the undivided batch. Here each sample has its own generator during a forward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SampleDropout(TorchFunctionMode):
    """Context in which the dropout of each sample, also inside fused attention, is drawn from the sample's own seed.

    A tensor is per sample if its first dimension is the number of samples or a multiple of it, such as samples x heads.
    Other tensors are left to torch; no model here applies dropout to them. A backward pass that recomputes activations
    would draw other masks, so do not use it with activation checkpointing.

    Args:
        seeds: One seed per sample of the current batch part.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces torch's two functions that apply dropout; calls all others unchanged."""
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
        """Computes dropout(softmax(Q K^T * scale + mask)) V; Q, K and V are (B, H, N, K)."""
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
    """Whether a model has dropout, in a layer or on attention weights."""
    modules = list(model.modules())
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules)
    return layers or any(isinstance(rate := getattr(m, "dropout", 0.0), float) and rate > 0 for m in modules)


__all__ = ["SampleDropout", "drops_activations"]
