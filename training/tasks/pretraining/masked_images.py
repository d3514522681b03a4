"""Masked image modelling: SimMIM (https://arxiv.org/abs/2111.09886) and MAE (https://arxiv.org/abs/2111.06377).

Shapes: B images, C channels, N patches of an image, K of them visible, P prefix tokens, D = hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ....configuration.configuration_vit import HubViTConfig
from ....modeling.modeling_vit import HubViTModel
from ....modeling.position_embeddings import sincos_position_embeddings
from ...recipe.pretraining_settings import PretrainingSettings
from ...recipe.recipe import RecipeError
from .learners import Learner, initialize
from .masking import draw_mask, draw_noise, hidden_count, visible_count
from .visible_patches import cut_patches, encode_visible


def _grid(config: HubViTConfig, image_hw: tuple[int, int]) -> tuple[int, int]:
    return image_hw[0] // config.patch_hw[0], image_hw[1] // config.patch_hw[1]


class SimMIM(Learner):
    """Reconstruction of hidden patches, which a mask token replaces in the encoder, by a linear layer.

    Args:
        vit: Backbone with a mask token.
        settings: Pretraining settings of the recipe.

    Raises:
        RecipeError: A setting does not suit the size of the images.
    """

    def __init__(self, vit: HubViTModel, settings: PretrainingSettings) -> None:
        super().__init__(vit)
        self.settings = settings
        hidden_count(settings, vit.config.grid_size)
        config = vit.config
        self.head = nn.Linear(config.hidden_size, config.num_channels * config.patch_hw[0] * config.patch_hw[1])
        initialize(self.head, config.initializer_range)

    def draws(self, seeds: Sequence[int], image_hw: tuple[int, int]) -> dict[str, torch.Tensor]:
        """`mask` (B, N) bool, True on hidden patches."""
        grid = _grid(self.vit.config, image_hw)
        return {"mask": draw_mask(seeds, grid, hidden_count(self.settings, grid), self.settings.mask_unit)}

    def forward(self, *, pixel_values: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Computes the mean absolute error of each image's hidden pixels, (B,) fp32.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            mask: Hidden patches (B, N), True where hidden; every image has at least one.
            **kwargs: Arguments of the backbone, such as `batch_window`.
        """
        tokens = self.vit(pixel_values, bool_masked_pos=mask, **kwargs).last_hidden_state
        rebuilt = self.head(tokens[:, self.vit.config.num_prefix_tokens :])  # (B, N, C * patch pixels)
        error = (cut_patches(pixel_values, self.vit.config.patch_hw) - rebuilt.float()).abs().mean(dim=-1)
        hidden = mask.to(error.dtype)
        return (error * hidden).sum(dim=1) / hidden.sum(dim=1)


class PixelDecoder(nn.Module):
    """MAE's decoder: a narrower ViT over all patches, of which the hidden ones begin as one learned token.

    Args:
        config: Configuration of the backbone.
        settings: Pretraining settings of the recipe, with the decoder's size.

    Raises:
        RecipeError: Width and heads of the decoder do not fit each other.
    """

    positions: torch.Tensor

    def __init__(self, config: HubViTConfig, settings: PretrainingSettings) -> None:
        super().__init__()
        width, heads = settings.decoder_width, settings.decoder_heads
        if width % heads or width % 4:
            raise RecipeError(
                f"pretraining.decoder_width: must be a multiple of 4 and of pretraining.decoder_heads {heads}, got "
                f"{width}"
            )
        small = HubViTConfig(
            hidden_size=width, num_hidden_layers=settings.decoder_layers, num_attention_heads=heads,
            image_size=config.image_size, patch_size=config.patch_size, num_channels=config.num_channels,
            layer_norm_eps=config.layer_norm_eps, position_embedding_type="sincos",
        )  # fmt: skip
        built = HubViTModel(small)  # its layers are initialised, and have an implementation of attention
        self.entry = nn.Linear(config.hidden_size, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.parts, self.norm = built.layers, built.layernorm
        self.exit = nn.Linear(width, config.num_channels * config.patch_hw[0] * config.patch_hw[1])
        initialize(self.entry, config.initializer_range)
        initialize(self.exit, config.initializer_range)
        nn.init.normal_(self.hidden, std=config.initializer_range)
        self.width, self.prefix = width, config.num_prefix_tokens
        self.register_buffer("positions", sincos_position_embeddings(width, *config.grid_size), persistent=False)

    def forward(self, tokens: torch.Tensor, order: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Predicts the pixels of every patch, (B, N, C * patch pixels).

        Args:
            tokens: Encoded prefix and visible patches (B, P + K, D).
            order: Places of all patches (B, N) int64, of which the first K are visible.
            grid: Rows and columns of patches.
        """
        entered = self.entry(tokens)
        prefix, visible = entered[:, : self.prefix], entered[:, self.prefix :]
        missing = self.hidden.to(visible.dtype).expand(len(visible), order.shape[1] - visible.shape[1], -1)
        back = order.argsort(dim=1)  # where each patch, row by row, is in `order`
        patches = torch.cat([visible, missing], dim=1).gather(1, back[:, :, None].expand(-1, -1, self.width))
        positions = self.positions
        if len(positions) != grid[0] * grid[1]:
            positions = sincos_position_embeddings(self.width, *grid).to(positions.device)
        states = torch.cat([prefix, patches + positions.to(patches.dtype)], dim=1)
        for layer in self.parts:
            states, _ = layer(states)
        pixels: torch.Tensor = self.exit(self.norm(states)[:, self.prefix :])
        return pixels


class MAE(Learner):
    """Reconstruction of hidden patches from the visible ones, which alone pass through the encoder.

    Args:
        vit: Backbone with learned or fixed position embeddings.
        settings: Pretraining settings of the recipe.

    Raises:
        RecipeError: A setting does not suit the backbone or the size of the images.
    """

    def __init__(self, vit: HubViTModel, settings: PretrainingSettings) -> None:
        super().__init__(vit)
        if vit.config.position_embedding_type == "rotary":
            raise RecipeError(
                "pretraining.method: mae needs position embeddings, which a backbone with rotary positions has not; "
                "use simmim, got mae"
            )
        self.settings = settings
        visible_count(settings, vit.config.grid_size)
        self.head = PixelDecoder(vit.config, settings)

    def draws(self, seeds: Sequence[int], image_hw: tuple[int, int]) -> dict[str, torch.Tensor]:
        """`noise` (B, N) fp32; the patches with the smallest values are visible."""
        rows, columns = _grid(self.vit.config, image_hw)
        return {"noise": draw_noise(seeds, rows * columns)}

    def forward(self, *, pixel_values: torch.Tensor, noise: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Computes the mean squared error of each image's hidden pixels, (B,) fp32.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            noise: Order of the patches, (B, N); those with the smallest values are visible.
            **kwargs: Arguments of the encoder's layers, such as `batch_window`.
        """
        config, (height, width) = self.vit.config, pixel_values.shape[2:]
        grid = _grid(config, (height, width))
        count, order = visible_count(self.settings, grid), noise.argsort(dim=1, stable=True)
        tokens = encode_visible(self.vit, pixel_values, order[:, :count], **kwargs)
        rebuilt = self.head(tokens, order, grid).float()
        targets = cut_patches(pixel_values.float(), config.patch_hw)
        if self.settings.normalize_targets:
            spread = targets.var(dim=-1, keepdim=True)
            targets = (targets - targets.mean(dim=-1, keepdim=True)) / (spread + 1e-6).sqrt()
        error = (rebuilt - targets).square().mean(dim=-1)  # (B, N)
        return error.gather(1, order[:, count:]).mean(dim=1)


__all__ = ["MAE", "PixelDecoder", "SimMIM"]
