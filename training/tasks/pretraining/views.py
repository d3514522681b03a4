"""Numbers and sizes of the views of an image, and their place in one row of numbers."""

from dataclasses import dataclass

import torch

from ....configuration.configuration_vit import HubViTConfig
from ...recipe.pretraining_settings import PretrainingSettings
from ...recipe.recipe import RecipeError

LARGE_VIEWS = 2


@dataclass(frozen=True)
class ViewSizes:
    """Numbers and sizes of the views of an image.

    Args:
        large: Size (height, width) of a large view in pixels.
        small: Size (height, width) of a small view in pixels.
        smalls: Number of small views.
        channels: Number of channels.
        larges: Number of large views.
    """

    large: tuple[int, int]
    small: tuple[int, int]
    smalls: int
    channels: int = 3
    larges: int = LARGE_VIEWS

    @classmethod
    def of(cls, config: HubViTConfig, settings: PretrainingSettings) -> "ViewSizes":
        """Sizes for a backbone: large views have its image size, small ones the recipe's, by default 3 / 7 of it.

        Raises:
            RecipeError: The patch does not divide the sides of a small view.
        """
        patch = config.patch_hw
        side = settings.local_size
        if side is None:  # 96 of 224 pixels, in whole patches
            height, width = (max(1, round(whole * 3 / 7 / step)) * step for whole, step in zip(
                config.image_hw, patch, strict=True))  # fmt: skip
            return cls(config.image_hw, (height, width), settings.local_crops, config.num_channels)
        if side % patch[0] or side % patch[1]:
            raise RecipeError(
                f"pretraining.local_size: must be a multiple of the patch {patch[0]} x {patch[1]}, got {side}"
            )
        return cls(config.image_hw, (side, side), settings.local_crops, config.num_channels)

    def cut(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Views of a batch of rows (B, F): large ones (B, V, C, height, width), and small ones or None."""
        (height, width), (low, narrow), channels = self.large, self.small, self.channels
        of_larges = self.larges * channels * height * width
        larges = rows[:, :of_larges].view(len(rows), self.larges, channels, height, width)
        if not self.smalls:
            return larges, None
        return larges, rows[:, of_larges:].view(len(rows), self.smalls, channels, low, narrow)


__all__ = ["LARGE_VIEWS", "ViewSizes"]
