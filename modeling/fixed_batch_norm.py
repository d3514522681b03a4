"""Batch normalisation with fixed statistics and weights that keeps nothing of its input for the backward pass.

torch's own keeps the whole input, which only the gradients of the weights and of the statistics need. The numbers are
torch's: the same kernels compute both passes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _FixedBatchNorm(torch.autograd.Function):
    """`batch_norm` in evaluation mode, differentiable in its input alone."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        epsilon: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(mean, variance, weight)
        ctx.epsilon = epsilon
        return nn.functional.batch_norm(features, mean, variance, weight, bias, False, 0.0, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        mean, variance, weight = ctx.saved_tensors
        # In evaluation mode the kernel reads only the shape of the input, which the gradient has too.
        moved, _, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, gradient.detach(), weight, mean, variance, None, None, False, ctx.epsilon, [True, False, False]
        )
        return moved, None, None, None, None, None


class FixedBatchNorms(TorchFunctionMode):
    """Context in which `batch_norm` with fixed statistics and weights keeps nothing of its input.

    It acts on the function and not on modules, so that layers that are more than a normalisation (those of timm have
    an activation) keep the rest. Other functions and other calls of this one are what they are outside of it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function; called by torch."""
        kwargs = kwargs or {}
        if func is nn.functional.batch_norm and (given := _fixed(*args, **kwargs)) is not None:
            return _FixedBatchNorm.apply(*given)
        return func(*args, **kwargs)


def _fixed(
    input: torch.Tensor,  # noqa: A002, the names are those of torch's function
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> tuple[Any, ...] | None:
    """Arguments of `_FixedBatchNorm`; None where something else than the input may need a gradient, or nothing does."""
    learned = any(tensor is not None and tensor.requires_grad for tensor in (weight, bias))
    if training or learned or running_mean is None or running_var is None or not input.requires_grad:
        return None
    return input, running_mean, running_var, weight, bias, eps


__all__ = ["FixedBatchNorms"]
