"""Helpers of tasks that learn from a teacher: conversion of pixels to its format, and the precision of its answers."""

import torch
from torch import nn

from ...data.image_processing import PixelFormat
from ..recipe.sections import DistillationSettings
from ..runtime.precision import has_fast_bf16
from ..runtime.processes import process_state


class PixelAdapter:
    """Converter of pixels to the mean, standard deviation and size that another model expects.

    Args:
        given: Pixel format in which pixels arrive.
        wanted: Pixel format that the model expects.
    """

    def __init__(self, given: PixelFormat, wanted: PixelFormat) -> None:
        self.given, self.wanted = given, wanted
        self._renormalisation: torch.Tensor | None = None  # given mean and std, wanted ones, (4, 1, C, 1, 1)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Converts pixels (B, C, height, width); other sizes are resized (bicubic, antialiased)."""
        given, wanted = self.given, self.wanted
        if (given.mean, given.std) != (wanted.mean, wanted.std):
            if self._renormalisation is None or self._renormalisation.device != pixel_values.device:
                values = torch.tensor([given.mean, given.std, wanted.mean, wanted.std], dtype=torch.float32)
                self._renormalisation = values.view(4, 1, -1, 1, 1).to(pixel_values.device)
            given_mean, given_std, mean, std = self._renormalisation
            pixel_values = (pixel_values.float() * given_std + given_mean - mean) / std
        if tuple(pixel_values.shape[2:]) != tuple(wanted.image_hw):
            pixel_values = nn.functional.interpolate(
                pixel_values, wanted.image_hw, mode="bicubic", antialias=True, align_corners=False
            )
        return pixel_values


def teaches_in_bf16(settings: DistillationSettings) -> bool:
    """Returns True if a recipe's teacher computes in bf16."""
    if settings.precision == "auto":
        return has_fast_bf16(process_state().device)
    return settings.precision == "bf16"


__all__ = ["PixelAdapter", "teaches_in_bf16"]
