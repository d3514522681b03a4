"""How training images with boxes are varied: DETR's own way, and a light one.

Sizes are in pixels of a model that sees images of 800 pixels at their shorter side, as DETR does
(https://arxiv.org/abs/2005.12872, appendix A.4); for a model that sees smaller ones all of them shrink in proportion.
"""

from typing import Annotated, NamedTuple

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

REFERENCE = 800  # shorter side, in pixels, that sizes are stated for

Probability = Annotated[float, Field(ge=0, le=1)]
Sides = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class BoxAugmentation(BaseModel):
    """Settings of the training transform of a detector. All draws come from (seed, epoch, sample)."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    horizontal_flip: Probability = Field(0.5, description="probability")
    vertical_flip: Probability = Field(0.0, description="probability; for images without an up, such as cells")
    sides: Sides = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        description="shorter sides that an image is resized to, one drawn, in pixels where the model's is 800",
    )
    longest: int = Field(1333, ge=1, description="pixels that the longer side may have, where the shorter's is 800")
    crop: Probability = Field(0.5, description="probability of cutting out a part, before resizing")
    crop_sides: Sides = Field((400, 500, 600), description="shorter sides, one drawn, of an image that is to be cut")
    crop_size: tuple[int, int] = Field((384, 600), description="least and most pixels of the cut's width and height")
    min_visible: Probability = Field(0.0, description="part of a box's area that a cut must leave, or it is left out")
    color_jitter: float = Field(0.0, ge=0, le=1, description="strength for brightness, contrast, saturation")


DETR = BoxAugmentation()
LIGHT = BoxAugmentation(
    sides=(640, 704, 768, 800, 864, 928),
    longest=1600,
    crop=0.3,
    crop_sides=(800,),
    crop_size=(480, 1333),
    min_visible=0.25,
    color_jitter=0.2,
)
BOX_AUGMENTATIONS = {"detr": DETR, "light": LIGHT}


class Augmented(NamedTuple):
    """An image and those of its boxes that are left.

    Args:
        pixels: (3, height, width), fp32, normalised.
        boxes: (n, 4), left, top, right, bottom in pixels.
        kept: (n,), which of the boxes given they are.
    """

    pixels: torch.Tensor
    boxes: torch.Tensor
    kept: torch.Tensor


class BoxTransform:
    """PIL image and boxes to a normalised tensor and its boxes.

    Args:
        settings: What to do.
        shortest: Pixels of the shorter side in evaluation.
        mean: Per channel, on the scale [0, 1].
        std: Likewise.
    """

    def __init__(self, settings: BoxAugmentation, shortest: int, mean: list[float], std: list[float]) -> None:
        self.settings, self.scale = settings, shortest / REFERENCE
        strength = settings.color_jitter
        self.jitter = v2.ColorJitter(strength, strength, strength) if strength else None
        self.normalise = v2.Normalize(list(mean), list(std))

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> Augmented:
        """One image with boxes (n, 4) as corners in pixels; draws from torch's generator, which the caller seeds."""
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
    """Whether something of a probability happens; draws in any case, so that other draws do not depend on it."""
    return bool(torch.rand(()) < probability)


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _areas(corners: torch.Tensor) -> torch.Tensor:
    plain = corners.as_subclass(torch.Tensor)
    return (plain[:, 2:] - plain[:, :2]).prod(dim=1)


__all__ = ["BOX_AUGMENTATIONS", "REFERENCE", "Augmented", "BoxAugmentation", "BoxTransform"]
