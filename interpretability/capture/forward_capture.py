"""Capture of attention during a forward pass, without changing the model.

A torch mode intercepts the torch functions that the model calls. It recognises every attention operation, whatever its
module is called, and records its inputs. The model's modules, settings and attention implementation are not changed,
and the mode ends with the forward pass, also after an error.

Shapes: B images, H heads, Q queries, N keys (tokens), K = width of a head, D = hidden size.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from .attention_calls import AttentionCall, attention_weights

_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax}
_FUSED_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionCapture(TorchFunctionMode):
    """Torch mode that passes each attention operation inside the block to `visit`, in order.

    Three forms are recognised: torch's fused attention, torch's multi-head attention, and a softmax over the last
    dimension of scores (B, H, Q, N) or (B * H, Q, N).

    Args:
        visit: Function called with each attention operation as it runs; tensors that it does not keep are freed.
        batch: Batch size B.
        differentiable: Whether to compute the weights as part of the autograd graph, so that gradients with respect to
            them exist; if False, attention runs as usual and weights are computed on demand.
    """

    def __init__(self, visit: Callable[[AttentionCall], None], batch: int, differentiable: bool = False) -> None:
        super().__init__()
        self.visit, self.batch, self.differentiable = visit, batch, differentiable
        self.count = 0
        self.projected: torch.Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function and records it if it is an attention operation; torch calls this method."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused({**dict(zip(_FUSED_NAMES, args, strict=False)), **kwargs})
        if func is F.multi_head_attention_forward:
            return self._multi_head(_MULTI_HEAD.bind(*args, **kwargs))
        if func is F.linear and args and args[0].ndim == 3:
            self.projected = args[0]
        result = func(*args, **kwargs)
        if func in _SOFTMAX:
            self._softmax(result, args, kwargs)
        return result

    def _show(self, **values: Any) -> AttentionCall:
        call = AttentionCall(self.count, self.projected, **values)
        self.count += 1
        self.visit(call)
        return call

    def _fused(self, given: dict[str, Any]) -> torch.Tensor:
        query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
        if query.ndim != 4:
            raise ValueError(f"attention over {query.ndim - 3} dimensions of heads is not supported: {query.shape}")
        if given.get("enable_gqa"):
            key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
        if given.get("is_causal"):
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        return self._attend(query, key, value, mask, given.get("scale"))[0]

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
        scale: float | None = None,
    ) -> tuple[torch.Tensor, AttentionCall]:  # fmt: skip
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        if self.differentiable:
            weights = attention_weights(query, key, mask, scale).to(query.dtype)
            return torch.matmul(weights, value), self._show(computed=weights)
        context = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        return context, self._show(query=query, key=key, mask=mask, scale=scale)

    def _softmax(self, weights: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        heads_apart = weights.ndim == 4 or (weights.ndim == 3 and weights.shape[0] % self.batch == 0)
        if heads_apart and dim in (-1, weights.ndim - 1):
            self._show(computed=weights, batch=self.batch)

    def _multi_head(self, bound: inspect.BoundArguments) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes `F.multi_head_attention_forward` with an attention operation that can be captured."""
        bound.apply_defaults()
        given = bound.arguments
        query, key, value, heads = given["query"], given["key"], given["value"], given["num_heads"]
        rare = ("bias_k", "bias_v", "static_k", "static_v", "add_zero_attn")
        odd = [name for name in rare if given[name] is not None and given[name] is not False]
        if query.ndim != 3 or odd:
            raise ValueError(f"this form of torch's multi-head attention is not supported: {odd or query.shape}")
        length, batch, width = query.shape  # torch's function takes (N, B, D)
        tokens = value.transpose(0, 1)  # (B, N, D); the projections start from it, so that its gradient exists
        seen = tokens.transpose(0, 1)
        query, key, value = (seen if states is value else states for states in (query, key, value))
        separate = [given[name] for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        matrices = separate if given["use_separate_proj_weight"] else given["in_proj_weight"].chunk(3)
        biases = (None, None, None) if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
        query, key, value = (
            F.linear(states, matrix, bias).view(-1, batch, heads, width // heads).permute(1, 2, 0, 3)  # (B, H, N, K)
            for states, matrix, bias in zip((query, key, value), matrices, biases, strict=True)
        )
        self.projected = tokens
        mask = _joined_mask(given["attn_mask"], given["key_padding_mask"], batch, query)
        context, call = self._attend(query, key, value, mask)
        context = context.permute(2, 0, 1, 3).reshape(length, batch, width)
        output = F.linear(context, given["out_proj_weight"], given["out_proj_bias"])
        if not given["need_weights"]:
            return output, None
        weights = call.weights().to(query.dtype)
        return output, weights.mean(dim=1) if given["average_attn_weights"] else weights


def _joined_mask(
    mask: torch.Tensor | None, padding: torch.Tensor | None, batch: int, query: torch.Tensor
) -> torch.Tensor | None:
    """Additive mask for scores (B, H, Q, N) from both masks of torch's multi-head attention (True: hidden), or None."""
    added = [
        torch.zeros_like(part, dtype=query.dtype).masked_fill(part, float("-inf")) if part.dtype == torch.bool else part
        for part in (
            None if mask is None else mask.view(batch, -1, *mask.shape[1:]) if mask.ndim == 3 else mask,
            None if padding is None else padding[:, None, None],
        )
        if part is not None
    ]
    return None if not added else added[0] if len(added) == 1 else added[0] + added[1]


__all__ = ["AttentionCapture"]
