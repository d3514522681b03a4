"""Augmentation of training images with boxes, for detectors."""

from typing import NamedTuple

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from .augmentation_settings import REFERENCE, BoxAugmentation


class Augmented(NamedTuple):
    """Transformed image with its remaining boxes.

    Args:
        pixels: Normalised image (3, height, width), fp32.
        boxes: Remaining boxes (n, 4): left, top, right, bottom in pixels of `pixels`.
        kept: Indices of the remaining boxes among the original ones, (n,).
    """

    pixels: torch.Tensor
    boxes: torch.Tensor
    kept: torch.Tensor


class BoxTransform:
    """Training transform of a detector, from a PIL image and boxes to a normalised tensor and its boxes.

    Args:
        settings: Augmentation settings.
        shortest: Shorter side of images in evaluation, in pixels, by which the sizes of the settings are scaled.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].
    """

    def __init__(self, settings: BoxAugmentation, shortest: int, mean: list[float], std: list[float]) -> None:
        self.settings, self.scale = settings, shortest / REFERENCE
        strength = settings.color_jitter
        self.jitter = v2.ColorJitter(strength, strength, strength) if strength else None
        self.normalise = v2.Normalize(list(mean), list(std))

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> Augmented:
        """Transforms an image with boxes (n, 4), corners in pixels; draws from torch's generator, seeded by callers."""
        settings = self.settings
        corners = tv_tensors.BoundingBoxes(boxes.float(), format="XYXY", canvas_size=(image.height, image.width))
        kept = torch.arange(len(boxes))
        if _happens(settings.horizontal_flip):
            image, corners = functional.horizontal_flip(image), functional.horizontal_flip(corners)
        if _happens(settings.vertical_flip):
            image, corners = functional.vertical_flip(image), functional.vertical_flip(corners)
        if _happens(settings.crop):
            image, corners = self._resized(image, corners, settings.crop_sides, None)
            image, corners, kept = self._cut(image, corners)
        image, corners = self._resized(image, corners, settings.sides, settings.longest)
        if self.jitter is not None:
            image = self.jitter(image)
        pixels = functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True)
        return Augmented(self.normalise(pixels), corners.as_subclass(torch.Tensor), kept)

    def _resized(
        self, image: Image.Image, corners: tv_tensors.BoundingBoxes, sides: tuple[int, ...], longest: int | None
    ) -> tuple[Image.Image, tv_tensors.BoundingBoxes]:
        side = sides[int(torch.randint(len(sides), ()))] * self.scale
        factor = side / min(image.size)
        if longest is not None:
            factor = min(factor, longest * self.scale / max(image.size))
        size = [max(1, round(image.height * factor)), max(1, round(image.width * factor))]
        resized = functional.resize(image, size, interpolation=InterpolationMode.BILINEAR)
        return resized, functional.clamp_bounding_boxes(functional.resize(corners, size))

    def _cut(
        self, image: Image.Image, corners: tv_tensors.BoundingBoxes
    ) -> tuple[Image.Image, tv_tensors.BoundingBoxes, torch.Tensor]:
        least, most = (max(1, round(side * self.scale)) for side in self.settings.crop_size)
        width, height = (_between(min(least, side), min(most, side)) for side in image.size)
        left, top = _between(0, image.width - width), _between(0, image.height - height)
        before = _areas(corners)
        cut = functional.clamp_bounding_boxes(functional.crop(corners, top, left, height, width))
        sides = cut[:, 2:] - cut[:, :2]
        seen = (sides > 0).all(dim=1) & (_areas(cut) >= self.settings.min_visible * before)
        kept = seen.nonzero().flatten()
        return (
            functional.crop(image, top, left, height, width),
            tv_tensors.wrap(cut[kept], like=cut),
            kept,
        )


def _happens(probability: float) -> bool:
    """Draws whether an event happens; a number is drawn at any probability, so that later draws do not depend on it."""
    return bool(torch.rand(()) < probability)


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _areas(corners: torch.Tensor) -> torch.Tensor:
    plain = corners.as_subclass(torch.Tensor)
    return (plain[:, 2:] - plain[:, :2]).prod(dim=1)


__all__ = ["Augmented", "BoxTransform"]
