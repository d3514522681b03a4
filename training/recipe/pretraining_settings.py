"""Recipe section of pretraining on images without labels."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...data.setting_types import ShareRange
from .sections import Pixels, Positive, Section, Share

# Share of the patches that each method masks unless the recipe says otherwise, as published.
MASK_RATIOS = {"mae": 0.75, "simmim": 0.6, "dino": 0.3}
METHODS = ("mae", "simmim", "dino", "features")
Width = Annotated[int, Field(ge=4, le=65_536)]


class PretrainingSettings(Section):
    """Settings of pretraining on images without labels."""

    method: Literal["mae", "simmim", "dino", "features"] = Field(
        "mae",
        description="mae: reconstruct hidden patches from the visible ones, which alone are encoded; simmim: from "
        "mask tokens in the encoder; dino: agree with a moving average of itself on other views; features: learn those "
        "of distillation.teacher",
    )
    mask_ratio: float | None = Field(
        None, gt=0, lt=1, description="part of the patches that is hidden; default: mae 0.75, simmim 0.6, dino 0.3"
    )
    mask_unit: int = Field(
        1, ge=1, le=1024, description="patches per side of the squares that are hidden (SimMIM's paper: 32 pixels)"
    )
    normalize_targets: bool = Field(True, description="mae: standardise the pixels of each patch to reconstruct")
    decoder_width: Width = Field(512, description="mae: width of the decoder, a multiple of 4 and of decoder_heads")
    decoder_layers: int = Field(8, ge=1, le=1024, description="mae: layers of the decoder")
    decoder_heads: int = Field(16, ge=1, le=1024, description="mae: attention heads of the decoder")
    masked_weight: float = Field(
        0.0, ge=0, le=1e6, description="dino: weight of the hidden patches of large views (iBOT: 1); 0: none is hidden"
    )
    local_crops: int = Field(6, ge=0, le=64, description="dino: small views of an image, beside two large ones")
    local_size: Pixels | None = Field(None, description="dino: pixels of small views; default: 3 / 7 of the image's")
    local_scale: ShareRange = Field((0.05, 0.4), description="dino: part of the image's area that small views take")
    prototypes: int = Field(4096, ge=2, le=2**20, description="dino: classes that teacher and student agree on")
    projection_width: Width = Field(2048, description="dino: width of the layers before the prototypes")
    bottleneck_width: Width = Field(256, description="dino: width of what is compared with the prototypes")
    frozen_prototypes: int = Field(1, ge=0, description="dino: first epochs in which the prototypes stay as they are")
    student_temperature: Positive = Field(0.1, description="dino: of the student's answers")
    teacher_temperature: Positive = Field(0.04, description="dino: of the teacher's answers, which sharpens them")
    teacher_momentum: Share = Field(0.996, description="dino: of the teacher's weights at the start; 1 at the end")
    centre_momentum: Share = Field(0.9, description="dino: of the mean that is subtracted from the teacher's answers")
    probe: str | None = Field(
        None, description="labelled images by whose nearest neighbours features are judged; default: none"
    )
    probe_images: int = Field(2000, ge=2, le=100_000, description="most images of the probe")
    probe_neighbours: int = Field(20, ge=1, le=1000, description="nearest images of the probe that vote")
    image_weight: float = Field(1.0, ge=0, le=1e6, description="features: weight of the features of whole images")
    patch_weight: float = Field(1.0, ge=0, le=1e6, description="features: weight of the features of patches")
    cosine_share: float = Field(
        0.9, ge=0, le=1, description="features: part of the cosine in the distance; the rest is smooth L1"
    )

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.method == "features" and self.image_weight == self.patch_weight == 0:
            raise ValueError("pretraining.image_weight and pretraining.patch_weight are both 0: one must be above 0")
        return self

    @property
    def masked(self) -> float | None:
        """Part of the patches that is hidden: `mask_ratio`, or the method's published value; None if it hides none."""
        published = MASK_RATIOS.get(self.method)
        if self.method == "dino" and not self.masked_weight:
            return None
        return published if published is None or self.mask_ratio is None else self.mask_ratio


__all__ = ["MASK_RATIOS", "METHODS", "PretrainingSettings"]
