"""Augmentation settings of classifiers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..setting_types import PositiveRange, Probability, ShareRange


class Augmentation(BaseModel):
    """Settings of the training transform, of mixing and of repeated augmentation.

    All draws depend only on (seed, epoch, sample).
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    crop: Literal["random_resized", "simple", "padded", "none"] = Field(
        "random_resized",
        description="random_resized: a random part, resized; simple: resize the shorter side, pad 4 px, cut at random "
        "(DeiT-III); padded: resize, pad by an eighth, cut at random (small images); none: as in evaluation",
    )
    scale: ShareRange = Field((0.08, 1.0), description="part of the image's area that random_resized takes")
    ratio: PositiveRange = Field((3 / 4, 4 / 3), description="width to height of what random_resized takes")
    interpolation: Literal["bicubic", "bilinear", "random"] = Field("bicubic", description="of resizing")
    horizontal_flip: Probability = Field(0.5, description="probability")
    vertical_flip: Probability = Field(0.0, description="probability")
    rand_augment: str | None = Field(None, description="timm's policy string; DeiT: rand-m9-mstd0.5-inc1")
    three_augment: bool = Field(False, description="exactly one of greyscale, solarise, Gaussian blur (DeiT-III)")
    color_jitter: float = Field(
        0.0, ge=0, le=10, description="strength for brightness, contrast, saturation; off with rand_augment"
    )
    random_erasing: Probability = Field(0.0, description="probability to fill a rectangle with noise")
    repeats: int = Field(1, ge=1, description="copies of an image in a batch, augmented differently (DeiT: 3)")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup's Beta distribution, 0 for none (DeiT: 0.8)")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix's Beta distribution, 0 for none (DeiT: 1.0)")
    mix_probability: Probability = Field(1.0, description="part of the batches that are mixed")
    mix_switch: Probability = Field(0.5, description="part of the mixed batches that get CutMix, where both are on")
    mix_off_epoch: int | None = Field(None, ge=0, description="first epoch (from 0) without mixing")

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0

    def varying_fields(self) -> list[str]:
        """Names of the enabled settings that make an image look different in each epoch."""
        names = ["horizontal_flip", "vertical_flip", "rand_augment", "three_augment", "color_jitter", "random_erasing"]
        varying = [name for name in [*names, "mixup", "cutmix"] if getattr(self, name)]
        return (["crop"] if self.crop != "none" else []) + varying


__all__ = ["Augmentation"]
