"""Activations that a training step keeps for its backward pass, counted as autograd saves them, in bytes."""

from typing import Any

import torch
from arms import detr_batch, detr_model, pixels, vit
from torch import nn


def saved_bytes(model: nn.Module, *images: Any, **arguments: Any) -> int:
    """Bytes of the tensors that the forward pass saves, each storage once, parameters and buffers left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []  # a freed storage's address could be another's

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(*images, **arguments)
    del outputs
    return sum(found.values())


def activations(size: str) -> dict[str, Any]:
    """MB that a forward pass of ours and of transformers' keeps, with and without gradient checkpointing."""
    count, side = (2, 32) if size == "tiny" else (4, 224)
    figures: dict[str, Any] = {"images": count}
    for library in ("vithub", "transformers"):
        model = vit(library, size).train()
        plain = saved_bytes(model, pixels(count, side))
        model.activation_checkpointing_enable()
        less = saved_bytes(model, pixels(count, side))
        figures[library] = {"mb": plain / 1e6, "checkpointed_mb": less / 1e6, "saved_part": 1 - less / plain}
    return figures


def detr_activations(size: str) -> dict[str, float]:
    """MB that the forward pass and the loss of a DETR keep, ours and transformers', on two images."""
    return {
        library: saved_bytes(detr_model(library, size), **detr_batch(size)) / 1e6
        for library in ("vithub", "transformers")
    }
