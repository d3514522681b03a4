"""Several random crops of each image: two large ones, and small ones that show a part of it."""

from typing import Any

import numpy as np
import torch

from ....data.image_processing import PixelFormat
from ....data.labelled.augmentation import TrainTransform
from ....data.labelled.augmentation_settings import Augmentation
from ....data.pixels.decoding import decode_pixels
from .views import ViewSizes


class MultiCrop:
    """Training transform that makes several views of an image (SwAV, https://arxiv.org/abs/2006.09882, as DINO does).

    It works in two halves, as `TrainTransform` does. The pixels of all views of an image are one row of numbers, so
    that views of different sizes are loaded and collated as one tensor.

    Args:
        settings: Augmentation settings of the large views, and of the small ones but for their scale.
        pixels: Pixel format of the model; its size is that of the large views.
        sizes: Numbers and sizes of the views.
        local_scale: Part of the image's area that a small view takes.
    """

    def __init__(
        self, settings: Augmentation, pixels: PixelFormat, sizes: ViewSizes, local_scale: tuple[float, float]
    ) -> None:
        self.sizes = sizes
        mean, std = list(pixels.mean), list(pixels.std)
        small = settings.model_copy(update={"scale": local_scale})
        self.large = TrainTransform(settings, sizes.large, mean, std)
        self.small = TrainTransform(small, sizes.small, mean, std) if sizes.smalls else None
        self.least = max(self.large.least, 0 if self.small is None else self.small.least)

    def decode(self, value: Any, name: str = "image") -> torch.Tensor:
        """Decodes an image at no larger size than the crops need; see `decode_pixels`."""
        return decode_pixels(value, name, self.least)

    def drawn(self, image: Any, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """First half: pixels of all views, (F,) uint8, and the drawn parameters of the second half, (views, 11)."""
        views = [self.large.drawn(image, generator) for _ in range(self.sizes.larges)]
        if self.small is not None:
            views += [self.small.drawn(image, generator) for _ in range(self.sizes.smalls)]
        return torch.cat([pixels.flatten() for pixels, _ in views]), torch.stack([draws for _, draws in views])

    def finish(self, batch: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Second half: batch with `pixel_values` (B, F), fp32, the views as `ViewSizes.cut` takes them."""
        rest = {name: value for name, value in batch.items() if name not in ("pixel_values", "draws")}
        larges, smalls = self.sizes.cut(batch["pixel_values"])
        draws, count = batch["draws"], self.sizes.larges
        parts = [_finished(self.large, larges, draws[:, :count], device)]
        if self.small is not None and smalls is not None:
            parts.append(_finished(self.small, smalls, draws[:, count:], device))
        return {**rest, "pixel_values": torch.cat(parts, dim=1)}


def _finished(transform: TrainTransform, views: torch.Tensor, draws: torch.Tensor, device: Any) -> torch.Tensor:
    """Finished views of a batch, (B, V * C * height * width), of pixels (B, V, C, height, width)."""
    flat = {"pixel_values": views.flatten(0, 1), "draws": draws.flatten(0, 1)}
    pixels: torch.Tensor = transform.finish(flat, device)["pixel_values"]
    return pixels.view(len(views), -1)


__all__ = ["MultiCrop"]
