"""Access to the patch projection and the position embeddings of any vision transformer."""

from typing import Any

import torch
from torch import nn

from ...modeling.layers import HubViTPatchEmbedding

# Last parts of the parameter names that libraries use for position embeddings.
POSITION_NAMES = ("position_embeddings", "pos_embed", "pos_embedding", "position_embedding")


def first_kernel(model: nn.Module) -> tuple[torch.Tensor, tuple[int, int]]:
    """Filters of the first layer over pixels, (D, C, height, width), fp32, and their stride (height, width) in pixels.

    In a vision transformer they are the patch projection, whose stride equals its size.

    Raises:
        ValueError: The model has no convolution or patch projection.
    """
    for module in model.modules():
        if isinstance(module, HubViTPatchEmbedding):
            return module.weight.detach().float().view(-1, module.num_channels, *module.patch_hw), module.patch_hw
        if isinstance(module, nn.Conv2d):
            height, width = module.stride
            return module.weight.detach().float(), (int(height), int(width))
    raise ValueError(f"{type(model).__name__} has no filters over pixels (a convolution or patch projection)")


def patch_grid(model: nn.Module, image_hw: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of patches that a vision transformer splits an image of (height, width) pixels into.

    Raises:
        ValueError: The first layer of the model is not a patch projection, or the image is smaller than a patch.
    """
    kernel, stride = first_kernel(model)
    if tuple(kernel.shape[2:]) != stride:
        raise ValueError(
            f"{type(model).__name__} does not begin with a patch projection: filters of {tuple(kernel.shape[2:])} "
            f"pixels are {stride} pixels apart"
        )
    rows, columns = image_hw[0] // stride[0], image_hw[1] // stride[1]
    if not rows or not columns:
        raise ValueError(f"an image of {image_hw} pixels holds no patch of {stride}")
    return rows, columns


def position_table(model: nn.Module) -> tuple[torch.Tensor, int]:
    """Position embeddings of the patches, (rows, columns, D), fp32, and the number of table rows for prefix tokens.

    Raises:
        ValueError: The model has no table of position embeddings, or the grid of the table cannot be determined.
    """
    for name, table in (*model.named_parameters(), *model.named_buffers()):
        if name.rsplit(".", 1)[-1] in POSITION_NAMES and table.ndim == 3 and table.shape[0] == 1:
            break
        if name.endswith("position_embedding.weight") and table.ndim == 2:  # an nn.Embedding, as CLIP has it
            table = table[None]
            break
    else:
        raise ValueError(
            f"{type(model).__name__} has no table of absolute position embeddings "
            f"(looked for a tensor named {', '.join(POSITION_NAMES)})"
        )
    stored = table.detach()[0].float()
    rows, columns = _stored_grid(model)
    prefix = len(stored) - rows * columns
    if not 0 <= prefix <= 64:
        raise ValueError(
            f"{name} of {type(model).__name__} has {len(stored)} rows, which does not fit {rows} x {columns} patches"
        )
    return stored[prefix:].view(rows, columns, -1), prefix


def _stored_grid(model: nn.Module) -> tuple[int, int]:
    """(rows, columns) of the stored position table, from the configuration or from timm's patch projection."""
    for module in model.modules():
        if isinstance(grid := getattr(module, "grid_size", None), tuple) and len(grid) == 2:
            return int(grid[0]), int(grid[1])
    for holder in (getattr(model, "config", None), *model.modules()):
        size = getattr(getattr(holder, "vision_config", holder), "image_size", None)
        if isinstance(size, int | list | tuple):
            return patch_grid(model, _pair(size))
    raise ValueError(f"{type(model).__name__} says no `image_size`, so that the grid of its positions is unknown")


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


__all__ = ["POSITION_NAMES", "first_kernel", "patch_grid", "position_table"]
