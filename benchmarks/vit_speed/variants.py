"""Ours with one choice undone, to see what the choice is worth, or with an option that makes training faster."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from vithub.modeling import attention, modeling_vit
from vithub.modeling.layers import HubViTPatchEmbedding
from vithub.training.optim.master_weights import MasterWeights
from vithub.training.tasks.compilation import compile_layers


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


def _compiled(model: nn.Module) -> nn.Module:
    """`model.compile=true`: each layer compiled."""
    compile_layers(model)
    return model


def _compiled_master_weights(model: nn.Module) -> nn.Module:
    return MasterWeights(_compiled(model))


# What makes the module that a training step calls out of the model.
OPTIONS: dict[str, Callable[[Any], nn.Module]] = {
    "compiled": _compiled,
    "master-weights": MasterWeights,
    "compiled-master-weights": _compiled_master_weights,
}
