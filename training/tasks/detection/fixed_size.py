"""Training images of one size, for detectors whose image processor makes images of one size."""

import math

import numpy as np
import torch
from torch import nn

from ....data.boxes.augmentation import BoxTransform, View
from ....data.boxes.augmentation_settings import REFERENCE, BoxAugmentation
from ....data.seeding import Stream, derived_generator


class FixedSizeTransform(BoxTransform):
    """Training transform of a detector whose images all have one size, whatever their shape was.

    Differs from `BoxTransform` by the size of its views, which `sides` and `longest` of the settings do not change.

    Args:
        settings: Augmentation settings.
        image_hw: (height, width) of the images in pixels.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].
    """

    def __init__(
        self, settings: BoxAugmentation, image_hw: tuple[int, int], mean: list[float], std: list[float]
    ) -> None:
        shortest, longest = sorted(image_hw)
        super().__init__(settings.model_copy(update={"sides": (REFERENCE,)}), shortest, mean, std)
        self.image_hw = image_hw
        assert self.least is not None
        self.least = math.ceil(self.least * longest / shortest)

    def draw_view(self, size: tuple[int, int], generator: np.random.Generator) -> View:
        """Draws the part of an image (height, width) that is seen; it is resized to `image_hw`."""
        return View(super().draw_view(size, generator).part, self.image_hw)


def step_size(
    image_hw: tuple[int, int], factors: tuple[float, float], multiple: int, seed: int, step: int
) -> tuple[int, int]:
    """Draws the (height, width) of all images of a step, which are multiples of `multiple` pixels.

    Args:
        image_hw: (height, width) of the images in evaluation.
        factors: Least and largest factor of that size.
        multiple: Number of pixels of which both sides must be multiples.
        seed: Seed of the run.
        step: Number of the step, from 0.
    """
    low, high = factors
    factor = low + (high - low) * float(derived_generator(seed, Stream.SCALE, step).random())
    height, width = (max(multiple, round(side * factor / multiple) * multiple) for side in image_hw)
    return height, width


def resized_batch(pixels: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
    """Resizes pixels (B, C, height, width), fp32, with anti-aliasing; boxes relative to the images stay as they are."""
    if tuple(pixels.shape[-2:]) == image_hw:
        return pixels
    return nn.functional.interpolate(pixels, image_hw, mode="bilinear", antialias=True)


__all__ = ["FixedSizeTransform", "resized_batch", "step_size"]
