"""Temporary evaluation mode, after which a model's modes and settings are restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Attention implementations of transformers that use torch's functions, so that attention can be captured.
_VISIBLE = ("eager", "sdpa", None)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode, uncompiled, and restores all modes and settings at the end, also after an error.

    An attention implementation that cannot be captured (flash, flex or a custom kernel) is replaced by torch's inside
    the block, which gives the same output up to rounding.
    """
    training = [module for module in model.modules() if module.training]
    before = [(config, config._attn_implementation) for config in _configs(model)]
    hidden = [config for config, name in before if name not in _VISIBLE]
    try:
        for module in training:
            module.training = False
        for config in hidden:
            config._attn_implementation = "sdpa" if getattr(model, "_supports_sdpa", True) else "eager"
        with torch.inference_mode(mode=False), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in training:
            module.training = True
        for config, name in before if hidden else ():
            config._attn_implementation = name


def _configs(model: nn.Module) -> list[Any]:
    """Configurations of transformers' modules, outer ones first, since setting an outer one also sets inner ones."""
    configs = {id(c): c for m in model.modules() if hasattr(c := getattr(m, "config", None), "_attn_implementation")}
    return list(configs.values())


__all__ = ["undisturbed"]
