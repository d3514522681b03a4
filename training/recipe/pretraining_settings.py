"""Recipe section of pretraining on images without labels."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .sections import Section

# Share of the patches that each method masks unless the recipe says otherwise, as published.
MASK_RATIOS = {"mae": 0.75, "simmim": 0.6}
METHODS = ("mae", "simmim", "features")
Width = Annotated[int, Field(ge=4, le=65_536)]


class PretrainingSettings(Section):
    """Settings of pretraining on images without labels."""

    method: Literal["mae", "simmim", "features"] = Field(
        "mae",
        description="mae: reconstruct hidden patches from the visible ones, which alone are encoded; simmim: from "
        "mask tokens in the encoder; features: learn those of distillation.teacher",
    )
    mask_ratio: float | None = Field(
        None, gt=0, lt=1, description="part of the patches that is hidden; default: mae 0.75, simmim 0.6"
    )
    mask_unit: int = Field(
        1, ge=1, le=1024, description="simmim: patches per side of the squares that are hidden (paper: 32 pixels)"
    )
    normalize_targets: bool = Field(True, description="mae: standardise the pixels of each patch to reconstruct")
    decoder_width: Width = Field(512, description="mae: width of the decoder, a multiple of 4 and of decoder_heads")
    decoder_layers: int = Field(8, ge=1, le=1024, description="mae: layers of the decoder")
    decoder_heads: int = Field(16, ge=1, le=1024, description="mae: attention heads of the decoder")
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
        return published if published is None or self.mask_ratio is None else self.mask_ratio


__all__ = ["MASK_RATIOS", "METHODS", "PretrainingSettings"]
