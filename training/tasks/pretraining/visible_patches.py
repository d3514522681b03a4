"""Encoding of some of an image's patches alone, as MAE does: the others cost nothing.

Shapes: B images, C channels, N patches of an image, K of them visible, P prefix tokens (CLS, registers), D = width.
"""

from typing import Any

import torch
from torch import nn

from ....modeling.modeling_vit import HubViTModel


def cut_patches(pixel_values: torch.Tensor, patch_hw: tuple[int, int]) -> torch.Tensor:
    """Cuts images (B, C, height, width) into patches, row by row: (B, N, C * patch height * patch width)."""
    batch, channels, height, width = pixel_values.shape
    rows, columns = height // patch_hw[0], width // patch_hw[1]
    cells = pixel_values.reshape(batch, channels, rows, patch_hw[0], columns, patch_hw[1])
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def gather_rows(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Tokens (B, K, D) at the given places (B, K) of sequences (B, N, D)."""
    return tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[-1]))


def encode_visible(vit: HubViTModel, pixel_values: torch.Tensor, visible: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """Encodes the visible patches of images, each at its own position: (B, P + K, D).

    With all patches visible, in order, this is `last_hidden_state` of the model.

    Args:
        vit: Backbone with learned or fixed position embeddings; rotary positions are not supported.
        pixel_values: Normalised images (B, C, height, width); the sides are multiples of the patch's.
        visible: Places of the visible patches, (B, K) int64.
        **kwargs: Arguments of the layers, such as `batch_window`.
    """
    embeddings, config = vit.embeddings, vit.config
    rows, columns = embeddings.check_pixels(pixel_values)
    projection = embeddings.patch_embeddings
    shown = gather_rows(cut_patches(pixel_values.to(projection.weight.dtype), config.patch_hw), visible)
    patches = nn.functional.linear(shown, projection.weight, projection.bias)  # (B, K, D)
    prefix: list[torch.Tensor] = embeddings.prefix_tokens()
    positions = embeddings.positions(rows, columns)
    assert positions is not None
    own = config.num_position_prefix
    if own:
        prefix = [token + positions[:, place : place + 1] for place, token in enumerate(prefix)]
    patches = patches + gather_rows(positions[:, own:].expand(len(patches), -1, -1), visible)
    if embeddings.register_tokens is not None:
        prefix = [*prefix, embeddings.register_tokens]
    tokens = torch.cat([*(token.expand(len(patches), -1, -1) for token in prefix), patches], dim=1)
    hidden: torch.Tensor = embeddings.dropout(embeddings.norm(tokens))
    for layer in vit.layers:
        hidden, _ = layer(hidden, **kwargs)
    return hidden if config.norm_after_pool else vit.layernorm(hidden)


__all__ = ["cut_patches", "encode_visible", "gather_rows"]
