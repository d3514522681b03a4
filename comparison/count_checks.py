"""Operation counts of a contestant at any resolution, without computing, with checks that the counts are right."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..configuration.configuration_vit import HubViTConfig
from .closed_form import closed_form_macs
from .contestants import Contestant, logits_of
from .operation_count import OperationCount, count_operations

TOLERANCE = 1e-3


class CountMismatchError(ValueError):
    """Error raised when two ways of counting the same network's work disagree."""


def counted(contestant: Contestant, image_hw: tuple[int, int], *, training: bool = False) -> OperationCount:
    """Counts the operations of one image: a forward pass, or with `training` a forward and a backward pass.

    The network is rebuilt without values if possible (torch's "meta" device), so that nothing is computed.
    """
    return _on(contestant, image_hw, lambda model, pixels: _step(model, pixels, training))


def check_counts(contestant: Contestant) -> float:
    """Returns the largest relative deviation between ways to count a forward pass at the contestant's own resolution.

    The ways are: with and without gradients, with attention as one operation and as plain products (if it can be
    switched), and for a ViT of this package also the closed form.

    Raises:
        CountMismatchError: The deviation is above 0.1 %.
        UncountedOperationError: An operation cannot be counted.
    """
    counts: dict[str, int] = {}
    switches = ["eager", "sdpa"] if _switchable(contestant.model) else [None]
    for implementation in switches:
        for gradients in (False, True):
            count = _on(contestant, contestant.image_hw, _counting(implementation, gradients)).checked()
            counts[f"{implementation or 'as built'}, {'with' if gradients else 'without'} gradients"] = count.macs
    config = getattr(contestant.model, "config", None)
    if isinstance(config, HubViTConfig):
        counts["closed form"] = closed_form_macs(config, contestant.image_hw)
    low, high = min(counts.values()), max(counts.values())
    deviation = (high - low) / high if high else 0.0
    if deviation > TOLERANCE:
        shown = ", ".join(f"{name}: {macs}" for name, macs in counts.items())
        raise CountMismatchError(f"{contestant.name}: multiply-accumulates differ by {deviation:.2%}: {shown}")
    return deviation


def _counting(implementation: str | None, gradients: bool) -> Callable[[nn.Module, torch.Tensor], OperationCount]:
    def count(model: nn.Module, pixels: torch.Tensor) -> OperationCount:
        if implementation is not None:
            switched: Any = model
            switched.set_attn_implementation(implementation)
        with torch.set_grad_enabled(gradients):
            return count_operations(lambda: model(pixels))

    return count


def _step(model: nn.Module, pixels: torch.Tensor, training: bool) -> OperationCount:
    # With gradients, since without them torch's fused layers hide which products belong to attention.
    if training:
        return count_operations(lambda: torch.autograd.backward(logits_of(model, pixels).sum()))
    return count_operations(lambda: model(pixels))


def _on(
    contestant: Contestant, image_hw: tuple[int, int], count: Callable[[nn.Module, torch.Tensor], OperationCount]
) -> OperationCount:
    """Counts on a network without values, or on one with random values if an operation needs them."""
    try:
        with torch.device("meta"):
            model = contestant.build(image_hw).eval()
        return count(model, torch.empty(1, 3, *image_hw, device="meta"))
    except RuntimeError:  # includes NotImplementedError, raised by operations without a meta kernel
        return count(contestant.build(image_hw).eval(), torch.zeros(1, 3, *image_hw))


def _switchable(model: nn.Module) -> bool:
    if getattr(model, "timm_model", None) is not None:  # `build` rebuilds timm's own model, which cannot be switched
        return False
    return hasattr(model, "set_attn_implementation") and bool(getattr(model, "_supports_sdpa", False))


__all__ = ["TOLERANCE", "CountMismatchError", "check_counts", "counted"]
