"""Augmentation settings of detectors, with two presets: that of DETR, and a light one.

Sizes are in pixels for a model whose images have a shorter side of 800 pixels, as in DETR
(https://arxiv.org/abs/2005.12872, appendix A.4); for other models all sizes are scaled in proportion.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..setting_types import InOrder, Probability

REFERENCE = 800  # shorter side in pixels to which the sizes refer

Side = Annotated[int, Field(ge=1, le=65_536)]
Scale = Annotated[float, Field(gt=0, le=8)]
Sides = Annotated[tuple[Side, ...], Field(min_length=1, max_length=1_000)]


class BoxAugmentation(BaseModel):
    """Settings of the training transform of a detector. All draws depend only on (seed, epoch, sample)."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    horizontal_flip: Probability = Field(0.5, description="probability")
    vertical_flip: Probability = Field(0.0, description="probability; for images without an up, such as cells")
    sides: Sides = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        description="shorter sides that an image is resized to, one drawn, in pixels where the model's is 800",
    )
    longest: Side = Field(1333, description="pixels that the longer side may have, where the shorter's is 800")
    batch_scale: Annotated[tuple[Scale, Scale], InOrder] = Field(
        (1.0, 1.0), description="least and largest factor, drawn for a step, of the size of a model with one size"
    )
    crop: Probability = Field(0.5, description="probability of cutting out a part, before resizing")
    crop_sides: Sides = Field((400, 500, 600), description="shorter sides, one drawn, of an image that is to be cut")
    crop_size: Annotated[tuple[Side, Side], InOrder] = Field(
        (384, 600), description="least and most pixels of the cut's width and height"
    )
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


__all__ = ["BOX_AUGMENTATIONS", "REFERENCE", "BoxAugmentation"]
