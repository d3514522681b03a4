"""Augmentation of training images for classifiers."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_pil_interp
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from .augmentation_settings import Augmentation


class TrainTransform:
    """Training transform of a classifier, from a PIL image to a normalised tensor (C, height, width), fp32.

    Args:
        settings: Augmentation settings.
        image_hw: Size (height, width) of the result in pixels.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].

    Raises:
        ValueError: `settings.rand_augment` is no policy of timm.
    """

    def __init__(self, settings: Augmentation, image_hw: tuple[int, int], mean: list[float], std: list[float]) -> None:
        height, width = image_hw
        steps: list[Callable[[Any], Any]] = [*_crop(settings, height, width)]
        if settings.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(settings.horizontal_flip))
        if settings.vertical_flip:
            steps.append(v2.RandomVerticalFlip(settings.vertical_flip))
        if settings.rand_augment is not None:
            steps.append(_rand_augment(settings, min(image_hw), mean))
        if settings.three_augment:
            blur = v2.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))
            steps.append(v2.RandomChoice([v2.RandomGrayscale(p=1.0), v2.RandomSolarize(128, p=1.0), blur]))
        if settings.color_jitter and settings.rand_augment is None:
            steps.append(v2.ColorJitter(*[settings.color_jitter] * 3))
        self.image_steps = steps
        self.to_tensor = v2.Compose(
            [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
        )
        self.erase = (
            RandomErasing(settings.random_erasing, mode="pixel", device="cpu")
            if settings.random_erasing
            else nn.Identity()
        )

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Transforms one image; draws from the global generators, which the caller seeds."""
        for step in self.image_steps:
            image = step(image)
        pixels: torch.Tensor = self.erase(self.to_tensor(image))
        return pixels


def _crop(settings: Augmentation, height: int, width: int) -> list[Callable[[Any], Any]]:
    mode = InterpolationMode.BICUBIC if settings.interpolation == "bicubic" else InterpolationMode.BILINEAR
    size = [height, width]
    if settings.crop == "random_resized":

        def resized_crop(interpolation: InterpolationMode) -> Any:
            return v2.RandomResizedCrop(size, scale=settings.scale, ratio=settings.ratio, interpolation=interpolation)

        if settings.interpolation == "random":
            both = [resized_crop(InterpolationMode.BICUBIC), resized_crop(InterpolationMode.BILINEAR)]
            return [v2.RandomChoice(both)]
        return [resized_crop(mode)]
    resize: list[Callable[[Any], Any]] = [v2.Resize(size if height != width else [height], interpolation=mode)]
    if settings.crop == "simple":
        return [*resize, v2.RandomCrop(size, padding=4, padding_mode="reflect")]
    if settings.crop == "padded":
        return [
            v2.Resize(size, interpolation=mode),
            v2.RandomCrop(size, padding=[max(1, width // 8), max(1, height // 8)]),
        ]
    return [*resize, v2.CenterCrop(size)]


def _rand_augment(settings: Augmentation, side: int, mean: list[float]) -> Any:
    """RandAugment of timm, with the arguments of timm's own training transform."""
    parameters: dict[str, Any] = {
        "translate_const": int(side * 0.45),
        "img_mean": tuple(min(255, round(255 * channel)) for channel in mean),
    }
    if settings.interpolation != "random":
        parameters["interpolation"] = str_to_pil_interp(settings.interpolation)
    try:
        return rand_augment_transform(settings.rand_augment, parameters)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"`rand_augment` must be a policy of timm like rand-m9-mstd0.5-inc1, got "
                         f"{settings.rand_augment!r}") from error  # fmt: skip


__all__ = ["TrainTransform"]
