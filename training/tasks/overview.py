"""View of a task's data before training: counts of classes, and pictures of its batches."""

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image


class DataOverview:
    """Part of a training task that shows its data; a task overrides what it can tell."""

    counted = "images"  # what `class_counts` counts

    @property
    def varying_shapes(self) -> bool:
        """Whether the images of one batch may have other shapes than those of the next."""
        return False

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Returns the number of images, or of what is `counted`, of each class by split; none of streams."""
        return {}

    def pictures(self, batch: Mapping[str, Any]) -> list[tuple[Image.Image, str]]:  # noqa: ARG002
        """Returns the images of a training batch, as the model receives them, each with a title.

        Args:
            batch: Batch of the train loader on the CPU, before `prepare_step`.
        """
        return []


def picture_of(pixels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Image.Image:
    """Converts the model's pixels to an image.

    Args:
        pixels: Normalised pixels (C, height, width), with one channel or three.
        mean: Mean of each channel that was subtracted.
        std: Standard deviation of each channel that was divided by.
    """
    colors = pixels.float() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    levels = (colors.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[:, :, 0])


__all__ = ["DataOverview", "picture_of"]
