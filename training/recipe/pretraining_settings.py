"""Recipe section of pretraining on images without labels."""

from typing import Annotated, Literal

from pydantic import Field

from .sections import Section

# Share of the patches that each method masks unless the recipe says otherwise, as published.
MASK_RATIOS = {"mae": 0.75, "simmim": 0.6}
METHODS = tuple(MASK_RATIOS)
Width = Annotated[int, Field(ge=4, le=65_536)]


class PretrainingSettings(Section):
    """Settings of pretraining on images without labels."""

    method: Literal["mae", "simmim"] = Field(
        "mae",
        description="mae: reconstruct hidden patches from the visible ones, which alone are encoded; simmim: from "
        "mask tokens in the encoder",
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

    @property
    def masked(self) -> float:
        """Part of the patches that is hidden: `mask_ratio`, or the method's published value."""
        return MASK_RATIOS[self.method] if self.mask_ratio is None else self.mask_ratio


__all__ = ["MASK_RATIOS", "METHODS", "PretrainingSettings"]
