"""Resizing and cutting of uint8 images, without a detour through floating point."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

ATTEMPTS = 10  # draws of a part before the centre is taken


class Part(NamedTuple):
    """Rectangle of an image, in pixels.

    Args:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: torch.Tensor) -> torch.Tensor:
        """View of the rectangle in an image (..., height, width)."""
        return pixels[..., self.top : self.top + self.height, self.left : self.left + self.width]


def resized(pixels: torch.Tensor, size: tuple[int, int], mode: str = "bicubic") -> torch.Tensor:
    """Resizes with anti-aliasing, as Pillow does; results differ from Pillow's by rounding, 1 level at most.

    Args:
        pixels: Pixels (3, height, width), uint8.
        size: Height and width of the result.
        mode: Interpolation, "bicubic" or "bilinear".
    """
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    return functional.interpolate(pixels[None], list(size), mode=mode, antialias=True)[0]


def shorter_side_resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to `shorter` pixels; the longer is rounded down."""
    height, width = size
    if height <= width:
        return shorter, max(1, int(shorter * width / height))
    return max(1, int(shorter * height / width)), shorter


def draw_part(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], generator: np.random.Generator
) -> Part:
    """Draws the part of an image that is to be resized (Inception's crop, https://arxiv.org/abs/1409.4842).

    Args:
        size: Height and width of the image.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width to height; its logarithm is drawn evenly.
        generator: Source of the draws.
    """
    height, width = size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        share, shape, down, right = generator.random(4).tolist()
        area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return Part(int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns)
    # the largest central part within the ratios
    rows, columns = height, width
    if width / height < ratio[0]:
        rows = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        columns = min(width, round(height * ratio[1]))
    return Part((height - rows) // 2, (width - columns) // 2, max(1, rows), max(1, columns))


def centre_part(size: tuple[int, int], wanted: tuple[int, int]) -> Part:
    """Central part of an image that is at least as large as wanted."""
    top, left = (round((side - part) / 2) for side, part in zip(size, wanted, strict=True))
    return Part(top, left, *wanted)


__all__ = ["Part", "centre_part", "draw_part", "resized", "shorter_side_resized"]
