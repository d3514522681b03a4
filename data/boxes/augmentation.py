"""Augmentation of training images with boxes, for detectors."""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ..pixels.decoding import as_pixels
from ..pixels.finishing import Draws, Finish, draw_jitter
from ..pixels.resizing import Part, resized
from ..seeding import generator_from_torch
from .augmentation_settings import REFERENCE, BoxAugmentation


class Augmented(NamedTuple):
    """Transformed image with its remaining boxes.

    Args:
        pixels: Image (3, height, width): normalised, fp32; or uint8 where the last steps are made for whole batches.
        boxes: Remaining boxes (n, 4) fp32: left, top, right, bottom in pixels of `pixels` after all steps.
        kept: Indices of the remaining boxes among the original ones, (n,).
        draws: Drawn parameters of the last steps, (11,), as `Draws.numbers` gives them; None where none are drawn.
    """

    pixels: torch.Tensor
    boxes: torch.Tensor
    kept: torch.Tensor
    draws: torch.Tensor | None = None


class View(NamedTuple):
    """Part of an image, and the size that it is resized to.

    Args:
        part: Rectangle of the image, in its pixels.
        size: Height and width of the result in pixels.
    """

    part: Part
    size: tuple[int, int]


class BoxTransform:
    """Training transform of a detector, in two halves.

    The loading process decodes an image, and cuts and resizes it in uint8 in one step (`first_half`); `finish` flips,
    jitters and normalises whole batches on the model's device, with parameters drawn before. The boxes are those after
    both halves.

    Args:
        settings: Augmentation settings.
        shortest: Shorter side of images in evaluation, in pixels, by which the sizes of the settings are scaled.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].

    Attributes:
        least: Pixels that the shorter side of a decoded image needs, so that no view must be enlarged that need not be.
    """

    def __init__(self, settings: BoxAugmentation, shortest: int, mean: list[float], std: list[float]) -> None:
        self.settings, self.scale = settings, shortest / REFERENCE
        closest = max(1.0, max(settings.crop_sides) / settings.crop_size[0]) if settings.crop else 1.0
        self.least: int | None = math.ceil(max(settings.sides) * closest * self.scale)
        self.finish = Finish(mean, std)

    def prepared(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        """Pixels (3, height, width), uint8, that a loading process keeps of a decoded image."""
        return as_pixels(image)

    def first_half(
        self,
        image: torch.Tensor,
        boxes: np.ndarray,
        image_hw: tuple[int, int],
        generator: np.random.Generator | None = None,
    ) -> Augmented:
        """First half: cut and resized pixels in uint8, the boxes, and what was drawn for the second half.

        Args:
            image: Decoded pixels (3, height, width), uint8.
            boxes: Boxes (n, 4): left, top, right, bottom in pixels of the stored image.
            image_hw: Height and width of the stored, upright image, which may be decoded at a smaller size.
            generator: Source of all draws of this image; None takes one that torch's global generator seeds.
        """
        generator = generator or generator_from_torch()
        settings = self.settings
        flips = {
            name: bool(generator.random() < getattr(settings, name)) for name in ("horizontal_flip", "vertical_flip")
        }
        size = (image.shape[-2], image.shape[-1])
        view = self.draw_view(size, generator)
        corners = boxes * np.tile((size[1] / image_hw[1], size[0] / image_hw[0]), 2)
        corners, kept = seen_boxes(corners, size, view, settings.min_visible)
        for axis, flip in enumerate(flips.values()):
            if flip:
                corners[:, [axis, axis + 2]] = view.size[1 - axis] - corners[:, [axis + 2, axis]]
        draws = Draws(**flips, **draw_jitter(settings.color_jitter, generator))
        pixels = resized(view.part.of(image), view.size, "bilinear")
        return Augmented(pixels, torch.from_numpy(corners).float(), torch.from_numpy(kept), draws.numbers())

    def __call__(self, image: Image.Image | torch.Tensor, boxes: torch.Tensor) -> Augmented:
        """Transforms an image with boxes (n, 4), corners in its pixels; draws from torch's global generator."""
        pixels = self.prepared(image)
        seen = self.first_half(pixels, boxes.double().numpy(), (pixels.shape[-2], pixels.shape[-1]))
        assert seen.draws is not None
        finished = self.finish({"pixel_values": seen.pixels[None], "draws": seen.draws[None]})["pixel_values"][0]
        return Augmented(finished, seen.boxes, seen.kept)

    def draw_view(self, size: tuple[int, int], generator: np.random.Generator) -> View:
        """Draws the part of an image (height, width) that is seen, and its size.

        A cut is drawn as DETR draws it, from the image resized to one of `crop_sides`; it is taken from the image
        itself, in whole pixels.
        """
        settings = self.settings
        part, seen = Part(0, 0, *size), size
        if generator.random() < settings.crop:
            small = self._fitted(size, settings.crop_sides, None, generator)
            least, most = (max(1, round(side * self.scale)) for side in settings.crop_size)
            rows, columns = (int(generator.integers(min(least, s), min(most, s) + 1)) for s in small)
            seen = rows, columns
            firsts = [int(generator.integers(whole - cut + 1)) for whole, cut in zip(small, seen, strict=True)]
            spans = [
                _whole_pixels(first, cut, own / other)
                for first, cut, own, other in zip(firsts, seen, size, small, strict=True)
            ]
            part = Part(spans[0][0], spans[1][0], spans[0][1], spans[1][1])
        return View(part, self._fitted(seen, settings.sides, settings.longest, generator))

    def _fitted(
        self, size: tuple[int, int], sides: tuple[int, ...], longest: int | None, generator: np.random.Generator
    ) -> tuple[int, int]:
        """Height and width of an image resized to one of several shorter sides."""
        factor = sides[int(generator.integers(len(sides)))] * self.scale / min(size)
        if longest is not None:
            factor = min(factor, longest * self.scale / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _whole_pixels(first: int, length: int, factor: float) -> tuple[int, int]:
    """First pixel and number of pixels, at least 1, of a span of an image that is `factor` times as large."""
    last = max(1, round((first + length) * factor))
    begin = min(round(first * factor), last - 1)
    return begin, last - begin


def seen_boxes(
    corners: np.ndarray, size: tuple[int, int], view: View, min_visible: float
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) in pixels of a view, cut at its border, and the indices (n,) of those that are in it.

    Args:
        corners: Boxes (m, 4): left, top, right, bottom in pixels of the image.
        size: Height and width of the image.
        view: Part of the image, and its size.
        min_visible: Share of a box's area that must be in the part.
    """
    height, width = size
    part, (rows, columns) = view.part, view.size
    whole = corners.clip(0, [width, height, width, height])
    factors = np.array([columns / part.width, rows / part.height] * 2)
    border = [columns, rows] * 2  # a product may exceed it by rounding
    if part.height == height and part.width == width:
        return (whole * factors).clip(0, border), np.arange(len(whole))
    cut = (whole - [part.left, part.top] * 2).clip(0, [part.width, part.height] * 2)
    sides, before = cut[:, 2:] - cut[:, :2], whole[:, 2:] - whole[:, :2]
    kept = np.flatnonzero((sides > 0).all(axis=1) & (sides.prod(axis=1) >= min_visible * before.prod(axis=1)))
    return (cut[kept] * factors).clip(0, border), kept


__all__ = ["Augmented", "BoxTransform", "View", "seen_boxes"]
