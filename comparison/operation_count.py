"""Number of multiplications that a model needs for an image, counted where torch dispatches the operations.

Only products of matrices and convolutions are counted (as fvcore and torch do); one multiply-accumulate (MAC) is two
floating-point operations. Additions, normalisations and activations are a few per cent of a network's work and are
listed as free of products. An operation that is in neither list is reported by name and never counted as 0. torch's own
counter counts fused attention on a CPU as 0, hence this one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


class UncountedOperationError(ValueError):
    """Error raised when a model ran operations with an unknown number of products."""


@dataclass(frozen=True)
class OperationCount:
    """Operations of one call of a model.

    Attributes:
        macs: Multiply-accumulates of the whole batch.
        by_kind: Multiply-accumulates by kind: "convolution", "linear" (tokens with learned weights) and "attention"
            (tokens with tokens, fused or as plain products; for torch's fused layer, including its projections).
        uncounted: Number of runs of each operation whose products are unknown.
    """

    macs: int
    by_kind: dict[str, int] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Number of floating-point operations: two per multiply-accumulate."""
        return 2 * self.macs

    def checked(self) -> "OperationCount":
        """Returns the count itself, after checking that it is complete.

        Raises:
            UncountedOperationError: The products of an operation are unknown.
        """
        if self.uncounted:
            names = ", ".join(f"{name} ({times} x)" for name, times in sorted(self.uncounted.items()))
            raise UncountedOperationError(f"the products of these operations are not known: {names}")
        return self


def count_operations(call: Callable[[], Any]) -> OperationCount:
    """Counts the operations of `call`, backward passes included, in any attention implementation and gradient mode."""
    counter = _Counter()
    with counter:
        call()
    kinds = {name: flops // 2 for name, flops in sorted(counter.flops.items())}
    return OperationCount(sum(kinds.values()), kinds, dict(counter.uncounted))


def count_model(model: nn.Module, pixel_values: torch.Tensor) -> OperationCount:
    """Counts a forward pass of a model on pixels (B, C, H, W), without gradients."""
    with torch.no_grad():
        return count_operations(lambda: model(pixel_values))


def _attention(query: Any, key: Any, value: Any, **_: Any) -> int:
    """Counts Q K^T and its product with V, for shapes (B, H, N, K), (B, H, S, K) and (B, H, S, V)."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (width + value[3])


def _attention_backward(_grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Counts five products: the recomputed scores, and the gradients of weights, values, queries and keys."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (3 * width + 2 * value[3])


def _convolution_backward(
    grad: Any, image: Any, weight: Any, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool,
    _output_padding: Any, _groups: int, wanted: Any,
) -> int:  # fmt: skip
    """Counts one convolution for the gradient of the image, and one for that of the weight."""
    sites = prod(image if transposed else grad)
    return 2 * sites * prod(weight[1:]) * (int(wanted[0]) + int(wanted[1]))


def _fused_layer(query: Any, key: Any, _value: Any, width: int, *_: Any, **__: Any) -> int:
    """Counts `nn.MultiheadAttention` as one operation: projections in and out, and the attention between."""
    batch, tokens, _ = query
    return 2 * batch * (4 * tokens * width * width + 2 * tokens * key[1] * width)


# Formulas over the shapes of the arguments that torch's table lacks, or has wrong: it counts the backward pass of a
# convolution with G groups as G times its work.
_OWN: dict[Any, tuple[str, Callable[..., int]]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: ("attention", _attention),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: ("attention", _attention_backward),
    aten.convolution_backward: ("convolution", _convolution_backward),
    aten._native_multi_head_attention: ("attention", _fused_layer),
}
# Operations that hold no product, although torch does not tag them as pointwise.
_PRODUCT_FREE = {
    "_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "_local_scalar_dense", "_log_softmax",
    "_log_softmax_backward_data", "_safe_softmax", "_softmax", "_softmax_backward_data", "_to_copy", "_unsafe_view",
    "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "adaptive_avg_pool2d", "adaptive_max_pool2d", "all",
    "amax", "amin", "any", "arange", "argmax", "argmin", "as_strided_", "avg_pool2d", "avg_pool2d_backward",
    "batch_norm", "bernoulli", "bernoulli_", "cat", "constant_pad_nd", "copy_", "cumsum", "dropout", "embedding",
    "embedding_dense_backward", "empty", "empty_like", "empty_permuted", "empty_strided", "equal", "eye", "fill_",
    "flip", "full", "full_like", "gather", "gelu_backward", "grid_sampler_2d", "group_norm", "hardsigmoid_backward",
    "hardswish_backward", "hardtanh_backward", "im2col", "index", "index_add", "index_copy", "index_put",
    "index_put_", "index_select", "is_same_size", "layer_norm", "lift_fresh", "linalg_vector_norm", "linspace",
    "log_softmax", "masked_select", "max", "max_pool2d", "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward", "mean", "meshgrid", "min", "native_batch_norm",
    "native_batch_norm_backward", "native_dropout", "native_dropout_backward", "native_group_norm",
    "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward", "new_empty",
    "new_empty_strided", "new_full", "new_ones", "new_zeros", "nll_loss_backward", "nll_loss_forward", "nonzero",
    "norm", "normal_", "ones", "ones_like", "pad", "pixel_shuffle", "pixel_unshuffle", "prod", "rand", "rand_like",
    "randn", "randn_like", "randperm", "reflection_pad2d", "repeat", "rms_norm", "roll", "scalar_tensor", "scatter",
    "scatter_add", "select_backward", "select_scatter", "set_", "sigmoid_backward", "silu_backward",
    "slice_backward", "slice_scatter", "softmax", "sort", "stack", "std", "sum", "tanh_backward",
    "threshold_backward", "topk", "tril", "triu", "unfold_backward", "uniform_", "upsample_bicubic2d",
    "upsample_bicubic2d_backward", "upsample_bilinear2d", "upsample_bilinear2d_backward", "upsample_nearest2d",
    "upsample_nearest2d_backward", "var", "var_mean", "where", "zero_", "zeros", "zeros_like",
}  # fmt: skip


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that adds up the products of all operations in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        if packet in _OWN:
            out = func(*args, **kwargs)
            kind, formula = _OWN[packet]
            self.flops[kind] += formula(*_shapes(args), **{name: _shape(value) for name, value in kwargs.items()})
            return out
        if packet in flop_registry:
            out = func(*args, **kwargs)
            self.flops[_kind(packet)] += flop_registry[packet](*args, **kwargs, out_val=out)
            return out
        if _is_product_free(func):
            return func(*args, **kwargs)
        with self:  # the operation may consist of smaller ones, which are then counted
            out = func.decompose(*args, **kwargs) if hasattr(func, "decompose") else NotImplemented
        if out is not NotImplemented:
            return out
        self.uncounted[str(packet)] += 1
        return func(*args, **kwargs)


def _is_product_free(func: Any) -> bool:
    if getattr(func, "is_view", False) or torch.Tag.pointwise in func.tags:
        return True
    namespace, _, name = func._schema.name.partition("::")
    return namespace == "prim" or (namespace == "aten" and name in _PRODUCT_FREE)


def _kind(packet: Any) -> str:
    name = str(packet)
    if "conv" in name:
        return "convolution"
    return "attention" if "attention" in name or "bmm" in name else "linear"


def _shapes(values: Any) -> list[Any]:
    return [_shape(value) for value in values]


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


__all__ = ["OperationCount", "UncountedOperationError", "count_model", "count_operations"]
