"""Embeddings of a vision transformer: the token sequence of an image, with positions added.

Shapes: B images, C channels, N tokens (prefix and patches), D = hidden size.
"""

import torch
from torch import nn
from transformers import initialization as init

from ..configuration.configuration_vit import HubViTConfig
from .layers import HubViTPatchEmbedding
from .position_embeddings import resample_position_embeddings, sincos_position_embeddings


class HubViTEmbeddings(nn.Module):
    """Token sequence of an image: prefix tokens and patches, with positions added (ViT, eq. 1)."""

    position_embeddings: torch.Tensor | None  # None with rotary positions, which act on queries and keys

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.patch_embeddings = HubViTPatchEmbedding(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.use_cls_token else None
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if config.use_mask_token else None
        positions = torch.zeros(1, config.num_position_prefix + config.grid_size[0] * config.grid_size[1], width)
        if config.position_embedding_type == "learned":
            self.position_embeddings = nn.Parameter(positions)
        elif config.position_embedding_type == "sincos":
            self.register_buffer("position_embeddings", positions)
        else:
            self.position_embeddings = None
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def prefix_tokens(self) -> list[torch.Tensor]:
        """Tokens before the registers, in order, each (1, 1, D); their position embeddings come first."""
        return [] if self.cls_token is None else [self.cls_token]

    def positions(self, rows: int, columns: int) -> torch.Tensor | None:
        """Position embeddings (1, prefix + rows * columns, D) of a grid of patches; None with rotary positions."""
        config, prefix, stored = self.config, self.config.num_position_prefix, self.position_embeddings
        if stored is None:
            return None
        if config.position_embedding_type == "sincos" and (rows, columns) != config.grid_size:
            patches = sincos_position_embeddings(config.hidden_size, rows, columns).to(stored)
            return torch.cat([stored[:, :prefix], patches[None]], dim=1)
        return resample_position_embeddings(
            stored, prefix, config.grid_size, (rows, columns), config.position_embedding_resampling
        )

    def check_pixels(self, pixel_values: torch.Tensor) -> tuple[int, int]:
        """Checks the shape of (B, C, height, width) pixels and returns the (rows, columns) of their patch grid."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values` must be (batch, {self.config.num_channels}, height, width), "
                f"got {tuple(pixel_values.shape)}"
            )
        (height, width), (patch_height, patch_width) = pixel_values.shape[2:], self.config.patch_hw
        if height % patch_height or width % patch_width or not height or not width:
            raise ValueError(
                f"height and width of `pixel_values` must be multiples of the patch {patch_height} x {patch_width}, "
                f"got {height} x {width}"
            )
        return height // patch_height, width // patch_width

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None) -> torch.Tensor:
        """Maps (B, C, height, width) to (B, N, D); `bool_masked_pos` (B, rows * columns) is True on masked patches."""
        rows, columns = self.check_pixels(pixel_values)
        patches = self.patch_embeddings(pixel_values.to(self.patch_embeddings.weight.dtype))
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError("`bool_masked_pos` needs `use_mask_token=True` in the configuration")
            masked = bool_masked_pos.bool().view(-1, rows * columns, 1)
            patches = torch.where(masked, self.mask_token.to(patches.dtype), patches)
        batch, prefix = patches.shape[0], self.prefix_tokens()
        if (positions := self.positions(rows, columns)) is not None:
            if self.config.num_position_prefix:
                prefix = [token + positions[:, i : i + 1] for i, token in enumerate(prefix)]
            patches = patches + positions[:, self.config.num_position_prefix :]
        prefix += [] if self.register_tokens is None else [self.register_tokens]
        tokens = torch.cat([*(token.expand(batch, -1, -1) for token in prefix), patches], dim=1)
        embeddings: torch.Tensor = self.dropout(self.norm(tokens))
        return embeddings

    def initialize(self, std: float) -> None:
        """Initialises tokens and learned positions by a truncated normal of this deviation, the mask token by 0."""
        for token in (*self.prefix_tokens(), self.register_tokens):
            if token is not None:
                init.trunc_normal_(token, std=std)
        if self.mask_token is not None:
            init.zeros_(self.mask_token)
        config = self.config
        if config.position_embedding_type == "learned":
            init.trunc_normal_(self.position_embeddings, std=std)
        elif config.position_embedding_type == "sincos":
            patches = sincos_position_embeddings(config.hidden_size, *config.grid_size)
            prefix = patches.new_zeros(config.num_position_prefix, config.hidden_size)
            init.copy_(self.position_embeddings, torch.cat([prefix, patches])[None])


__all__ = ["HubViTEmbeddings"]
