"""A model that is left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# The implementations of transformers that go through torch's functions, where attention can be seen.
_VISIBLE = ("eager", "sdpa", None)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Runs a model in evaluation mode, uncompiled, and gives back every mode and setting at the end, come what may.

    An attention that returns no weights and cannot be seen (flash, flex, a kernel of one's own) is computed by torch's
    in the meantime, which gives the same output up to rounding.
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
    """Those of transformers' modules, outer ones first: setting an outer one sets the ones inside it."""
    configs = {id(c): c for m in model.modules() if hasattr(c := getattr(m, "config", None), "_attn_implementation")}
    return list(configs.values())


__all__ = ["undisturbed"]
