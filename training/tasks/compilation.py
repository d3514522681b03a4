"""Choices for speed that depend on model and device: compilation, and the memory format of convolutions."""

import warnings

import torch
from torch import nn
from transformers import PreTrainedModel

from ...modeling.detr_decoder import HubDetrDecoderLayer
from ...modeling.detr_encoder import HubDetrEncoderLayer
from ...modeling.modeling_vit import HubViTLayer, HubViTPreTrainedModel
from ..optim.sample_dropout import drops_activations
from ..recipe.recipe import Recipe
from ..runtime.compat import COMPILED_CALL

# Parts that are compiled one by one: equal ones share their graphs, so that compiling takes less than a whole model's.
_LAYERS = (HubViTLayer, HubDetrEncoderLayer, HubDetrDecoderLayer)


def compilation(recipe: Recipe, model: PreTrainedModel, device: torch.device) -> str:
    """Returns what is compiled: "no", "layers" of a model of this package, or the "whole" of another one.

    "auto" compiles classifiers of this package on CUDA. It leaves out detectors, whose images have other sizes in every
    batch; adapters and activation checkpointing, which replace the layers' calls; and dropout of activations, which is
    drawn per sample only where nothing is compiled.
    """
    wanted = recipe.model.compile
    if wanted == "auto":
        plain = recipe.lora.rank is None and not recipe.model.activation_checkpointing
        ours = isinstance(model, HubViTPreTrainedModel) and not drops_activations(model)
        wanted = device.type == "cuda" and plain and ours
    if not wanted:
        return "no"
    return "layers" if any(isinstance(module, _LAYERS) for module in model.modules()) else "whole"


def compile_layers(model: nn.Module) -> None:
    """Compiles every layer of a model of this package in place; names of weights stay."""
    # torch's compiler looks at the gradient of every input, also of those that keep none (2.8 to 2.14).
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
    for module in model.modules():
        if isinstance(module, _LAYERS):
            module.compile()


def undo_compilation(model: nn.Module) -> None:
    """Makes layers compiled in place run as they are written again."""
    for module in model.modules():
        if isinstance(module, _LAYERS):
            module.__dict__.pop(COMPILED_CALL, None)


def channels_last(recipe: Recipe, model: nn.Module, device: torch.device) -> bool:
    """Whether convolutions keep channels as the last dimension in memory: "auto" does on CUDA."""
    wanted = recipe.training.channels_last
    chosen = device.type == "cuda" if wanted == "auto" else bool(wanted)
    return chosen and any(isinstance(module, nn.Conv2d) for module in model.modules())


def put_channels_last(model: nn.Module) -> None:
    """Stores the kernels of convolutions with channels last; their outputs, and so the rest, follow."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


__all__ = ["channels_last", "compilation", "compile_layers", "put_channels_last", "undo_compilation"]
