"""Image processor of a form that preprocesses images itself: it hands over their own pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin


class RawPixels(ImageProcessingMixin):
    """Turns images into batches of their own pixels, for an exported form with preprocessing."""

    model_input_names = ("pixel_values",)

    def __call__(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Pixels of one image, or of several that have one size.

        Args:
            images: Image of Pillow or array (height, width, 3) of levels from 0 to 255, or a sequence of such.
            return_tensors: "pt" for torch, "np" or None for NumPy.

        Returns:
            Batch with `pixel_values` (B, height, width, 3), uint8.

        Raises:
            ValueError: The images differ in size.
        """
        several = images if isinstance(images, Sequence) else [images]
        levels = [np.asarray(one.convert("RGB") if isinstance(one, Image.Image) else one) for one in several]
        if len({one.shape for one in levels}) > 1:
            sizes = ", ".join(" x ".join(map(str, one.shape[:2])) for one in levels[:5])
            raise ValueError(f"a batch of raw pixels holds images of one size, got {sizes}")
        pixels = np.stack(levels)
        return BatchFeature({"pixel_values": torch.from_numpy(pixels) if return_tensors == "pt" else pixels})


__all__ = ["RawPixels"]
