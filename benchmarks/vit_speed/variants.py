"""Ours with one choice undone, to see what the choice is worth."""

from collections.abc import Callable
from functools import partial
from typing import Any

from vithub.modeling import attention, modeling_vit
from vithub.modeling.layers import HubViTPatchEmbedding


def _always(answer: bool, query: Any) -> bool:
    del query
    return answer


def _fused_attention() -> None:
    """torch's fused attention everywhere, as the peers."""
    attention.products_are_faster = partial(_always, False)


def _product_attention() -> None:
    """Attention as plain matrix products everywhere."""
    attention.products_are_faster = partial(_always, True)


def _convolution() -> None:
    """Patches by convolution everywhere, as the peers."""
    HubViTPatchEmbedding.forward = HubViTPatchEmbedding.convolve  # type: ignore[method-assign]


def _masking() -> None:
    """Stochastic depth that computes the dropped samples and multiplies them by 0."""
    original = modeling_vit.add_residual

    def masked(states: Any, branch: Any, rate: float, _: bool = True, *others: Any) -> Any:
        return original(states, branch, rate, False, *others)

    modeling_vit.add_residual = masked


VARIANTS: dict[str, Callable[[], None]] = {
    "fused-attention": _fused_attention,
    "product-attention": _product_attention,
    "convolution": _convolution,
    "masking": _masking,
}
